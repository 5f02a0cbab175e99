// The page: one terminal. It survives lost connections and a reload of the page, because the service keeps the latest
// output. sessionStorage holds the terminal's pid and id, and the token, which is never part of a URL.

import { CallError, Client, fromBase64, toBase64 } from "./connect.js";
import { Replay } from "./replay.js";

const GRACE = 600; // seconds that the terminal keeps running without a page
const FIRST_DELAY = 250;
const LONGEST_DELAY = 5000; // milliseconds between two attempts to reconnect
const INPUT_PIECE = 16384; // bytes of input in one call
const REDRAW_PAUSE = 200; // milliseconds that a terminal has another size, so that its program notices
const SETTLE = 50; // milliseconds without a change before a new size is sent

const $ = (id) => document.getElementById(id);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// What a later page in the same tab needs.
const kept = {
  get token() {
    return sessionStorage.getItem("token");
  },
  set token(value) {
    sessionStorage.setItem("token", value);
  },
  get terminal() {
    return JSON.parse(sessionStorage.getItem("terminal") ?? "null");
  },
  set terminal(value) {
    if (value) sessionStorage.setItem("terminal", JSON.stringify(value));
    else sessionStorage.removeItem("terminal");
  },
};

class Session {
  constructor(screen, client) {
    this.screen = screen;
    this.client = client;
    this.offset = 0; // of the next byte of output
    this.typed = [];
    this.sending = false;
    this.ended = false;
    this.size = "";
    this.replay = null; // while output is shown that was written before; what the screen answers to it is dropped
  }

  // Runs until the terminal ends, and returns how it ended. Throws CallError when it cannot continue.
  async run() {
    let delay = FIRST_DELAY;
    for (;;) {
      const began = this.offset;
      try {
        const end = await this.follow();
        this.ended = true;
        return end;
      } catch (error) {
        const again = error instanceof CallError && ["unavailable", "resource_exhausted"].includes(error.code);
        if (!again || !kept.terminal) throw error;
        show(`Connection lost (${error.message}). Reconnecting …`);
      }
      if (this.offset > began) delay = FIRST_DELAY;
      await pause(delay * (0.5 + Math.random() / 2));
      delay = Math.min(delay * 1.5, LONGEST_DELAY);
    }
  }

  async follow() {
    const terminal = kept.terminal;
    const opened = (headers) => this.opened(headers);
    const events = terminal
      ? this.client.stream("Connect", { process: { pid: terminal.pid } }, this.resume(terminal), { opened })
      : this.client.stream("Start", this.request(), { "Wstunnel-On-Disconnect": `kill; grace=${GRACE}` }, { opened });
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
    throw new CallError("unavailable", "the stream ended before the terminal");
  }

  // Shows a part of a replay, and what is behind it. Then full-screen programs draw their screens again, of which a
  // replay may have shown a part only.
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
    // If it fails, the screen is as the replay has left it.
    await this.client.call("Update", message).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, REDRAW_PAUSE));
    this.size = "";
    await this.sendSize();
  }

  request() {
    const { cols, rows } = this.screen;
    this.size = `${cols}x${rows}`;
    const envs = { TERM: "xterm-256color", COLORTERM: "truecolor", LANG: "C.UTF-8", LC_ALL: "C.UTF-8" };
    return { process: { cmd: "/bin/bash", args: ["-i", "-l"], envs }, pty: { size: { cols, rows } } };
  }

  resume(terminal) {
    return { "Wstunnel-Replay-From": String(this.offset), "Wstunnel-Process": terminal.process };
  }

  opened(headers) {
    const at = Number(headers.get("Wstunnel-Offset"));
    const live = Number(headers.get("Wstunnel-Live") ?? at);
    // An outage of the same screen is no replay: programs may still wait for the answers.
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
    show("");
    this.sendSize();
    this.send();
  }

  // Input is sent in order, one call at a time. A repeated call has the same key, so input never arrives twice.
  type(data) {
    if (this.replay) return;
    for (let at = 0; at < data.length; at += INPUT_PIECE) {
      const key = [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
      this.typed.push({ key, data: data.subarray(at, at + INPUT_PIECE) });
    }
    this.send();
  }

  async send() {
    if (this.sending || !this.pid) return;
    this.sending = true;
    let delay = FIRST_DELAY;
    while (this.typed.length && !this.ended) {
      const { key, data } = this.typed[0];
      const message = { process: { pid: this.pid }, input: { pty: toBase64(data) } };
      try {
        await this.client.call("SendInput", message, { "Wstunnel-Input": key });
        this.typed.shift();
        delay = FIRST_DELAY;
      } catch (error) {
        if (error.code !== "unavailable" && error.code !== "resource_exhausted") {
          this.typed = [];
          if (error.code !== "not_found") show(`Input could not be sent: ${error.message}`);
          break;
        }
        await pause(delay);
        delay = Math.min(delay * 1.5, LONGEST_DELAY);
      }
    }
    this.sending = false;
  }

  async sendSize() {
    const { cols, rows } = this.screen;
    if (!this.pid || this.ended || this.size === `${cols}x${rows}`) return;
    try {
      await this.client.call("Update", { process: { pid: this.pid }, pty: { size: { cols, rows } } });
      this.size = `${cols}x${rows}`;
    } catch (error) {
      // It is sent again with the next change, or after reconnecting.
      if (error.code !== "unavailable" && error.code !== "not_found") show(`The terminal could not be resized: ${error.message}`);
    }
  }
}

function show(message, { again = false } = {}) {
  $("message").textContent = message;
  $("again").hidden = !again;
  $("status").hidden = !message;
}

function askForToken(problem = "") {
  $("terminal").hidden = true;
  show("");
  $("login").hidden = false;
  $("problem").textContent = problem;
  $("token").value = "";
  $("token").focus();
}

function makeScreen() {
  $("login").hidden = true;
  $("terminal").hidden = false;
  $("terminal").replaceChildren();
  const screen = new Terminal({ cursorBlink: true, scrollback: 10000, fontFamily: "monospace", fontSize: 15 });
  const fit = new FitAddon.FitAddon();
  screen.loadAddon(fit);
  screen.open($("terminal"));
  fit.fit();
  return { screen, fit };
}

let closeLast = () => {};

async function open() {
  closeLast();
  const { screen, fit } = makeScreen();
  const session = new Session(screen, new Client(kept.token));
  const encoder = new TextEncoder();
  screen.onData((text) => session.type(encoder.encode(text)));
  screen.onBinary((text) => session.type(Uint8Array.from(text, (c) => c.charCodeAt(0))));
  let settling;
  const observer = new ResizeObserver(() => {
    clearTimeout(settling);
    settling = setTimeout(() => {
      fit.fit();
      session.sendSize();
    }, SETTLE);
  });
  observer.observe($("terminal"));
  closeLast = () => {
    observer.disconnect();
    screen.dispose();
  };
  screen.focus();
  try {
    const { exitCode = 0, status } = await session.run();
    kept.terminal = null;
    show(exitCode < 0 ? `The terminal was killed (${status}).` : `The shell ended with exit code ${exitCode}.`, {
      again: true,
    });
  } catch (error) {
    session.ended = true;
    const wasThere = kept.terminal !== null;
    kept.terminal = null;
    if (error.code === "unauthenticated") {
      closeLast();
      askForToken("Invalid access token.");
    } else {
      show(error.code === "not_found" && wasThere ? "The terminal no longer exists." : error.message, { again: true });
    }
  }
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  kept.token = $("token").value.trim();
  open();
});
$("again").addEventListener("click", () => {
  show("");
  open();
});
if (kept.token) open();
else askForToken();
