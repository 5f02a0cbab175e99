// One terminal of the service: its output, its input and its size. It survives lost connections and a reload of the
// page, because the service keeps the latest output.

import { CallError, fromBase64, joined, toBase64 } from "./connect.js";
import { kept } from "./kept.js";
import { Replay } from "./replay.js";

const GRACE = 600; // seconds that the terminal keeps running without a page
const FIRST_DELAY = 250;
const LONGEST_DELAY = 5000; // milliseconds between two attempts to reconnect
const INPUT_PIECE = 16384; // bytes of input in one call
const REDRAW_PAUSE = 200; // milliseconds that a terminal has another size, so that its program notices
const INPUT_LIMIT = 8 << 20; // bytes of input that wait for the service
const TEMPORARY = ["unavailable", "resource_exhausted"];

const randomHex = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");

// `view` gets the events: connecting(), connected(), lost(error, milliseconds until the next attempt), and
// trouble(what, error) for a piece of input or a size that could not be sent.
export class Session {
  constructor(screen, client, view) {
    this.screen = screen;
    this.client = client;
    this.view = view;
    this.offset = 0; // of the next byte of output
    this.typed = new Uint8Array(0); // what waits for the service
    this.sending = false;
    this.ended = false;
    this.size = "";
    this.replay = null; // while output is shown that was written before; what the screen answers to it is dropped
    this.stopped = new AbortController();
    this.pauses = new Set(); // what ends a pause between two attempts
  }

  // Leaves the terminal, which keeps running without this page.
  stop() {
    this.ended = true;
    this.stopped.abort();
    this.tryNow();
  }

  // Makes the next attempt now.
  tryNow() {
    for (const end of this.pauses) end();
  }

  pause(milliseconds) {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.pauses.delete(end);
        resolve();
      };
      const timer = setTimeout(end, milliseconds);
      this.pauses.add(end);
    });
  }

  // Runs until the terminal ends, and returns how it ended. Throws CallError when it cannot continue.
  async run() {
    let delay = FIRST_DELAY;
    for (;;) {
      const began = this.offset;
      let problem;
      try {
        this.view.connecting();
        const end = await this.follow();
        this.ended = true;
        return end;
      } catch (error) {
        const again = error instanceof CallError && TEMPORARY.includes(error.code);
        if (!again || !kept.terminal || this.ended) throw error;
        problem = error;
      }
      if (this.offset > began) delay = FIRST_DELAY;
      const wait = delay * (0.5 + Math.random() / 2);
      this.view.lost(problem, wait);
      await this.pause(wait);
      if (this.ended) throw problem;
      delay = Math.min(delay * 1.5, LONGEST_DELAY);
    }
  }

  async follow() {
    const { terminal } = kept;
    const events = terminal ? this.stream("Connect", { process: { pid: terminal.pid } }, this.resume(terminal)) : this.start();
    for await (const { event } of events) {
      if (event.start) this.started(event.start.pid);
      if (event.restore?.pty && this.replay) await this.show(...this.replay.restore(fromBase64(event.restore.pty)));
      if (event.data?.pty) {
        const data = fromBase64(event.data.pty);
        this.offset += data.length;
        await (this.replay ? this.show(...this.replay.feed(data)) : this.write(data));
      }
      if (event.end) return event.end;
    }
    throw new CallError("unavailable", "the stream ended before the terminal", { place: "network" });
  }

  stream(method, message, headers) {
    return this.client.stream(method, message, headers, {
      opened: (answer) => this.opened(answer),
      signal: this.stopped.signal,
    });
  }

  // The page may be reloaded, or the browser may repeat the request by itself, before the answer arrives: then the
  // service answers with the existing terminal that has this tag.
  start() {
    kept.tag ??= randomHex();
    const headers = { "Wstunnel-On-Disconnect": `kill; grace=${GRACE}`, "Wstunnel-Once": "tag" };
    return this.stream("Start", this.request(), headers);
  }

  // Shows a part of a replay, and what follows it. Then full-screen programs draw their screens again, as a replay may
  // have shown only a part.
  async show(replayed, live) {
    await this.write(replayed);
    if (this.replay.running) return;
    const { alternate } = this.replay;
    this.replay = null;
    if (alternate) this.redraw();
    await this.write(live);
  }

  // Waits for the screen, so that the service applies backpressure to fast output.
  write(data) {
    return new Promise((resolve) => this.screen.write(data, resolve));
  }

  async redraw() {
    await this.sendSize();
    const { cols, rows } = this.screen;
    const message = { process: { pid: this.pid }, pty: { size: { cols: Math.max(cols - 1, 1), rows } } };
    // If it fails, the screen stays as after the replay.
    await this.client.call("Update", message).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, REDRAW_PAUSE));
    this.size = "";
    await this.sendSize();
  }

  request() {
    const { cols, rows } = this.screen;
    this.size = `${cols}x${rows}`;
    const envs = { TERM: "xterm-256color", COLORTERM: "truecolor", LANG: "C.UTF-8", LC_ALL: "C.UTF-8" };
    return { process: { cmd: "/bin/bash", args: ["-i", "-l"], envs }, pty: { size: { cols, rows } }, tag: kept.tag };
  }

  resume(terminal) {
    return { "Wstunnel-Replay-From": String(this.offset), "Wstunnel-Process": terminal.process };
  }

  opened(headers) {
    const at = Number(headers.get("Wstunnel-Offset"));
    const live = Number(headers.get("Wstunnel-Live") ?? at);
    // After an outage of the same screen this is not a replay: programs may still wait for answers.
    if (this.process ? at > this.offset : live > 0) this.replay = new Replay(live - at);
    if (at > this.offset && this.offset > 0) {
      this.screen.write(`\r\n[${at - this.offset} bytes of output are no longer kept]\r\n`);
    }
    this.offset = at;
    this.process = headers.get("Wstunnel-Process");
  }

  started(pid) {
    this.pid = pid;
    kept.terminal = { pid, process: this.process };
    kept.tag = null;
    this.view.connected();
    this.tryNow(); // for input that waits
    this.sendSize();
    this.send();
  }

  // Input is sent in order, one call at a time; the next call has everything typed meanwhile.
  type(data) {
    if (this.ended || this.replay) return;
    if (this.typed.length + data.length > INPUT_LIMIT) {
      this.view.trouble("full");
      return;
    }
    this.typed = joined(this.typed, data);
    this.send();
  }

  async send() {
    if (this.sending || !this.pid) return;
    this.sending = true;
    try {
      while (this.typed.length && !this.ended) {
        const data = this.typed.subarray(0, INPUT_PIECE);
        await this.sendPiece(data);
        this.typed = this.typed.subarray(data.length);
      }
    } catch (error) {
      this.typed = new Uint8Array(0);
      if (error.code !== "not_found") this.view.trouble("input", error);
    } finally {
      this.sending = false;
    }
  }

  // A repeated call has the same key, so input never arrives twice.
  async sendPiece(data) {
    const key = randomHex();
    const message = { process: { pid: this.pid }, input: { pty: toBase64(data) } };
    for (let delay = FIRST_DELAY; !this.ended; delay = Math.min(delay * 1.5, LONGEST_DELAY)) {
      try {
        await this.client.call("SendInput", message, { "Wstunnel-Input": key });
        return;
      } catch (error) {
        if (!TEMPORARY.includes(error.code)) throw error;
        await this.pause(delay);
      }
    }
  }

  async sendSize() {
    const { cols, rows } = this.screen;
    if (!this.pid || this.ended || this.size === `${cols}x${rows}`) return;
    try {
      await this.client.call("Update", { process: { pid: this.pid }, pty: { size: { cols, rows } } });
      this.size = `${cols}x${rows}`;
    } catch (error) {
      // It is sent again with the next change, or after reconnecting.
      if (error.code !== "unavailable" && error.code !== "not_found") this.view.trouble("size", error);
    }
  }
}
