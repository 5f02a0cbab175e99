// The page: one terminal of this machine's service. It survives lost connections and a reload of the page, as the
// service keeps the last output: where it was is in sessionStorage, and so is the token, which never goes into a URL.

import { CallError, Client, fromBase64, toBase64 } from "./connect.js";

const GRACE = 600; // seconds that the terminal lives on without a page
const FIRST_DELAY = 250;
const LONGEST_DELAY = 5000; // milliseconds between two attempts to connect again
const INPUT_PIECE = 16384; // bytes that one call carries
const SETTLE = 50; // milliseconds without a change after which a size is told

const $ = (id) => document.getElementById(id);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// What a later page of the same tab needs to know.
const kept = {
  get token() {
    return sessionStorage.getItem("token");
  },
  set token(value) {
    sessionStorage.setItem("token", value);
  },
  get place() {
    return JSON.parse(sessionStorage.getItem("place") ?? "null");
  },
  set place(value) {
    if (value) sessionStorage.setItem("place", JSON.stringify(value));
    else sessionStorage.removeItem("place");
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
  }

  // Runs until the terminal has ended; returns how. Throws CallError when it cannot go on.
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
        if (!again || !kept.place) throw error;
        show(`No connection (${error.message}); trying to get it back …`);
      }
      if (this.offset > began) delay = FIRST_DELAY;
      await pause(delay * (0.5 + Math.random() / 2));
      delay = Math.min(delay * 1.5, LONGEST_DELAY);
    }
  }

  async follow() {
    const place = kept.place;
    const opened = (headers) => this.opened(headers);
    const events = place
      ? this.client.stream("Connect", { process: { pid: place.pid } }, this.back(place), { opened })
      : this.client.stream("Start", this.request(), { "Wstunnel-On-Disconnect": `kill; grace=${GRACE}` }, { opened });
    for await (const { event } of events) {
      if (event.start) this.started(event.start.pid);
      if (event.data?.pty) {
        const data = fromBase64(event.data.pty);
        this.offset += data.length;
        // Waits for the screen, so that a flood stays with the service, which knows how to hold it back.
        await new Promise((resolve) => this.screen.write(data, resolve));
      }
      if (event.end) return event.end;
    }
    throw new CallError("unavailable", "the stream ended without an end of the terminal");
  }

  request() {
    const { cols, rows } = this.screen;
    this.size = `${cols}x${rows}`;
    const envs = { TERM: "xterm-256color", COLORTERM: "truecolor", LANG: "C.UTF-8", LC_ALL: "C.UTF-8" };
    return { process: { cmd: "/bin/bash", args: ["-i", "-l"], envs }, pty: { size: { cols, rows } } };
  }

  back(place) {
    return { "Wstunnel-Replay-From": String(this.offset), "Wstunnel-Process": place.process };
  }

  opened(headers) {
    const at = Number(headers.get("Wstunnel-Offset"));
    if (at > this.offset && this.offset > 0) {
      this.screen.write(`\r\n[${at - this.offset} bytes of output are no longer kept]\r\n`);
    }
    this.offset = at;
    this.process = headers.get("Wstunnel-Process");
  }

  started(pid) {
    this.pid = pid;
    kept.place = { pid, process: this.process };
    show("");
    this.tellSize();
    this.send();
  }

  // Input goes in order, one call at a time; a call that is repeated has the same key, so that nothing is doubled.
  type(data) {
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
          if (error.code !== "not_found") show(`What was typed could not be sent: ${error.message}`);
          break;
        }
        await pause(delay);
        delay = Math.min(delay * 1.5, LONGEST_DELAY);
      }
    }
    this.sending = false;
  }

  async tellSize() {
    const { cols, rows } = this.screen;
    if (!this.pid || this.ended || this.size === `${cols}x${rows}`) return;
    try {
      await this.client.call("Update", { process: { pid: this.pid }, pty: { size: { cols, rows } } });
      this.size = `${cols}x${rows}`;
    } catch (error) {
      // It is told again with the next change, or when the connection is back.
      if (error.code !== "unavailable" && error.code !== "not_found") show(`The size could not be told: ${error.message}`);
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
      session.tellSize();
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
    kept.place = null;
    show(exitCode < 0 ? `The terminal was ended (${status}).` : `The shell has ended with exit code ${exitCode}.`, {
      again: true,
    });
  } catch (error) {
    session.ended = true;
    const wasThere = kept.place !== null;
    kept.place = null;
    if (error.code === "unauthenticated") {
      closeLast();
      askForToken("This token is not known here.");
    } else {
      show(error.code === "not_found" && wasThere ? "The terminal is gone." : error.message, { again: true });
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
