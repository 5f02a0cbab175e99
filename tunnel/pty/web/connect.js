// The parts of the Connect protocol (connectrpc.com) that process.Process needs, with JSON: unary calls, and streams of
// envelopes (1 byte of flags, 4 bytes of length, JSON).

const END = 2; // the flag of a stream's last envelope

export class CallError extends Error {
  // `code` is an error code of Connect ("not_found", …); "unavailable" if the service could not be reached.
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

export class Client {
  constructor(token) {
    this.token = token;
  }

  async call(method, message, headers = {}, { signal } = {}) {
    const response = await this.#post(method, "application/json", JSON.stringify(message), headers, signal);
    return response.json();
  }

  // Yields the messages of a stream, after calling `opened` with the reply's headers.
  async *stream(method, message, headers, { signal, opened }) {
    const body = new TextEncoder().encode(JSON.stringify(message));
    const response = await this.#post(method, "application/connect+json", envelope(body), headers, signal);
    opened(response.headers);
    const reader = response.body.getReader();
    let buffer = new Uint8Array(0);
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw new CallError("unavailable", error.message);
      });
      if (done) throw new CallError("unavailable", "the connection was lost");
      buffer = joined(buffer, value);
      let at = 0;
      while (buffer.length - at >= 5) {
        const length = new DataView(buffer.buffer, buffer.byteOffset + at + 1).getUint32(0);
        if (buffer.length - at - 5 < length) break;
        const parsed = JSON.parse(new TextDecoder().decode(buffer.subarray(at + 5, at + 5 + length)) || "{}");
        if (buffer[at] & END) {
          if (parsed.error) throw new CallError(parsed.error.code, parsed.error.message ?? parsed.error.code);
          return;
        }
        yield parsed;
        at += 5 + length;
      }
      buffer = buffer.slice(at);
    }
  }

  async #post(method, type, body, headers, signal) {
    let response;
    try {
      response = await fetch(`process.Process/${method}`, {
        method: "POST",
        body,
        signal,
        cache: "no-store",
        credentials: "omit",
        headers: { "Content-Type": type, "Connect-Protocol-Version": "1", "X-Access-Token": this.token, ...headers },
      });
    } catch (error) {
      throw new CallError("unavailable", error.message);
    }
    if (response.ok) return response;
    const parsed = await response.json().catch(() => ({}));
    // An answer without a code comes from an edge or a proxy.
    throw new CallError(parsed.code ?? "unavailable", parsed.message ?? `the server answered ${response.status}`);
  }
}

function envelope(data) {
  const framed = new Uint8Array(5 + data.length);
  new DataView(framed.buffer).setUint32(1, data.length);
  framed.set(data, 5);
  return framed;
}

function joined(first, second) {
  if (!first.length) return second;
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

export function toBase64(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
