// The parts of the Connect protocol (connectrpc.com) that process.Process needs, with JSON: unary calls, and streams of
// envelopes (1 byte of flags, 4 bytes of length, JSON).

const END = 2; // the flag of a stream's last envelope
// The codes of the service; a proxy has other codes.
const CODES = new Set(
  ("unknown invalid_argument deadline_exceeded not_found permission_denied resource_exhausted failed_precondition " +
    "out_of_range unimplemented internal unavailable unauthenticated").split(" "),
);
const ENVELOPE_LIMIT = 16 << 20; // bytes of one message of a stream
const CALL_LIMIT = 15_000; // milliseconds for the answer to a unary call; input may wait for 10 s at the service
const BEGIN_LIMIT = 10_000; // milliseconds for the answer to a stream's request: the browser may send several over old
// dead connections in a row
const KEEPALIVE = 15; // seconds between the events that we ask for when nothing else happens
const SILENCE = 40_000; // milliseconds without any event after which a stream is lost

export class CallError extends Error {
  // `code` is an error code of Connect ("not_found", …). `place` is where the error comes from: the "service", the
  // "network" (nothing answered), "silence" (nothing answers any more), or a "proxy", with the `status` of its answer.
  // It is worth another try later if the code is "unavailable".
  constructor(code, message, { place = "service", status = 0 } = {}) {
    super(message);
    this.code = code;
    this.place = place;
    this.status = status;
  }
}

const lost = (place) => new CallError("unavailable", "the connection was lost", { place });

export class Client {
  constructor(token) {
    this.token = token;
  }

  async call(method, message, headers = {}) {
    const limit = watch(CALL_LIMIT);
    try {
      const response = await this.#post(method, "application/json", JSON.stringify(message), headers, limit);
      return await response.json().catch(() => {
        throw lost(limit.place());
      });
    } finally {
      limit.end();
    }
  }

  // Yields the messages of a stream, after calling `opened` with the reply's headers. `signal` ends it.
  async *stream(method, message, headers, { signal, opened }) {
    const body = envelope(new TextEncoder().encode(JSON.stringify(message)));
    const limit = watch(BEGIN_LIMIT, signal);
    const given = { "Keepalive-Ping-Interval": String(KEEPALIVE), ...headers };
    try {
      const response = await this.#post(method, "application/connect+json", body, given, limit);
      opened(response.headers);
      const reader = response.body.getReader();
      let buffer = new Uint8Array(0);
      for (;;) {
        limit.begin(SILENCE);
        const { done, value } = await reader.read().catch(() => {
          throw lost(limit.place());
        });
        // Not while the caller processes a message.
        limit.pause();
        if (done) throw lost("network");
        buffer = joined(buffer, value);
        let at = 0;
        while (buffer.length - at >= 5) {
          const length = new DataView(buffer.buffer, buffer.byteOffset + at + 1).getUint32(0);
          if (length > ENVELOPE_LIMIT) throw new CallError("unavailable", "no such message", { place: "proxy" });
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
    } finally {
      limit.end();
    }
  }

  async #post(method, type, body, headers, limit) {
    let response;
    try {
      response = await fetch(`process.Process/${method}`, {
        method: "POST",
        body,
        signal: limit.signal,
        cache: "no-store",
        credentials: "same-origin", // the cookies of a proxy that requires a sign-in
        redirect: "manual",
        headers: { "Content-Type": type, "Connect-Protocol-Version": "1", "X-Access-Token": this.token, ...headers },
      });
    } catch {
      throw lost(limit.place());
    }
    const kind = response.headers.get("Content-Type")?.split(";")[0].trim();
    if (response.ok && kind === type) return response;
    const { code, message } = (!response.ok && (await response.json().catch(() => null))) || {};
    if (CODES.has(code)) throw new CallError(code, String(message ?? code), { status: response.status });
    // An answer without a code comes from an edge or a proxy. Another attempt does not help if a sign-in is required.
    const refused = response.ok || response.type === "opaqueredirect" || [401, 403, 407].includes(response.status);
    const text = `a proxy answered ${response.status}`;
    throw new CallError(refused ? "refused" : "unavailable", text, { place: "proxy", status: response.status });
  }
}

// A time limit for a request, which begins now, and again with `begin`: `signal` aborts the request when the time is
// over, or when `outer` aborts. `place` says why a request failed.
function watch(milliseconds, outer) {
  const controller = new AbortController();
  const abort = () => controller.abort();
  let timer;
  let late = false;
  const pause = () => clearTimeout(timer);
  const begin = (milliseconds) => {
    pause();
    timer = setTimeout(() => {
      late = true;
      abort();
    }, milliseconds);
  };
  outer?.addEventListener("abort", abort);
  if (outer?.aborted) abort();
  begin(milliseconds);
  return {
    signal: controller.signal,
    begin,
    pause,
    place: () => (late ? "silence" : "network"),
    end() {
      pause();
      outer?.removeEventListener("abort", abort);
      abort();
    },
  };
}

function envelope(data) {
  const framed = new Uint8Array(5 + data.length);
  new DataView(framed.buffer).setUint32(1, data.length);
  framed.set(data, 5);
  return framed;
}

export function joined(first, second) {
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
