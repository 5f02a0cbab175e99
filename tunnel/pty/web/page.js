// The page: its states, and what is shown in each. One terminal, which keeps running when the page is left.

import { takeToken } from "./address.js";
import { copy, paste } from "./clipboard.js";
import { Client } from "./connect.js";
import { kept } from "./kept.js";
import { Keys } from "./keys.js";
import { look } from "./look.js";
import { makeScreen } from "./screen.js";
import { Session } from "./terminal.js";
import { followKeyboard } from "./viewport.js";
import { TROUBLE, ending, words } from "./words.js";

const PRODUCT = "wstunnel-py";
const HOST = location.host;
const TOKEN = /^[A-Za-z0-9._~+/-]+=*$/; // as the service's files have them
const PATIENCE = 4000; // milliseconds of an outage after which the page shows what to check
const HINT = 6000; // milliseconds that a hint is shown
const TITLE_LIMIT = 100; // characters of a title that a program sets
const STATES = { connecting: "Connecting", connected: "Connected", lost: "Disconnected", over: "" };

const $ = (id) => document.getElementById(id);
const encoder = new TextEncoder();

let session = null; // the Session that is shown, or was last
let screen = null;
let close = () => {}; // ends both
let title = ""; // what the program in the terminal calls itself

// ---- what is shown

// loading, login, connecting, connected, lost, or over.
function enter(state) {
  document.body.dataset.state = state;
  $("state").textContent = STATES[state] ?? "";
  $("loading").hidden = state !== "loading" && state !== "connecting";
  $("loading-what").textContent = `Connecting to ${HOST} …`;
  $("login").hidden = state !== "login";
  $("over").hidden = state !== "over";
  if (state !== "lost") $("lost").hidden = true;
  $("keys").hidden = !["connecting", "connected", "lost"].includes(state) || !matchMedia("(pointer: coarse)").matches;
  entitle();
}

function entitle() {
  const state = document.body.dataset.state;
  const before = { lost: "Connection lost", over: $("state").textContent }[state];
  document.title = [before, state === "login" ? "" : title, HOST, PRODUCT].filter(Boolean).join(" – ");
}

function askForToken(problem = "") {
  enter("login");
  $("problem").textContent = problem;
  $("token").setAttribute("aria-invalid", String(Boolean(problem)));
  $("token").value = "";
  $("token").focus();
}

let hiding;
function hint(text) {
  clearTimeout(hiding);
  $("hint").textContent = text;
  $("hint").hidden = !text;
  hiding = setTimeout(() => hint(""), HINT);
}

function showOver({ what, next }, { retry = false, again = false }) {
  enter("over");
  $("state").textContent = retry ? "Not connected" : "Ended";
  entitle();
  $("over-what").textContent = what;
  $("over-next").textContent = next;
  $("retry").hidden = !retry;
  $("again").hidden = !again;
  (again ? $("again") : $("retry")).focus();
}

let counting;
function showLost(error, milliseconds, since) {
  enter("lost");
  const { what, next } = words(error, HOST, true);
  const long = performance.now() - since > PATIENCE;
  $("lost-next").textContent = long ? `${what} ${next}` : "Trying again.";
  $("lost").hidden = false;
  const due = performance.now() + milliseconds;
  const count = () => {
    const seconds = Math.ceil((due - performance.now()) / 1000);
    $("lost-when").textContent = seconds > 1 ? `Next attempt in ${seconds} s.` : "";
  };
  clearInterval(counting);
  counting = setInterval(count, 500);
  count();
}

// ---- the terminal

async function open() {
  close();
  if (!TOKEN.test(kept.token)) {
    askForToken("That is not a token: tokens contain only letters, digits and - . _ ~ + / =, without spaces.");
    return;
  }
  title = "";
  enter("connecting");
  const made = makeScreen($("terminal"), { resized: () => own.sendSize(), copy: actions.copy });
  screen = made.screen;
  let since = null; // when the connection was lost
  const own = (session = new Session(screen, new Client(kept.token), {
    connecting: () => $("lost").hidden || ($("lost-when").textContent = "Trying …"),
    connected() {
      since = null;
      clearInterval(counting);
      const first = document.body.dataset.state === "connecting";
      enter("connected");
      if (first) screen.focus();
    },
    lost: (error, milliseconds) => showLost(error, milliseconds, (since ??= performance.now())),
    trouble: (what, error) => hint(error ? `${TROUBLE[what]} ${words(error, HOST, true).what}` : TROUBLE[what]),
  }));
  close = () => {
    clearInterval(counting);
    own.stop();
    made.close();
  };
  screen.onData((text) => own.type(encoder.encode(keys.applied(text))));
  screen.onBinary((text) => own.type(Uint8Array.from(text, (c) => c.charCodeAt(0))));
  screen.onTitleChange((text) => {
    title = text.replace(/[\p{Cc}\p{Cf}]/gu, "").trim().slice(0, TITLE_LIMIT);
    entitle();
  });
  const had = kept.terminal !== null;
  try {
    const end = await own.run();
    kept.terminal = null;
    showOver(ending(end), { again: true });
  } catch (error) {
    if (own === session && !own.stopped.signal.aborted) showFailure(error, had || kept.terminal !== null);
  } finally {
    own.ended = true;
    clearInterval(counting);
  }
}

function showFailure(error, had) {
  const told = words(error, HOST, had);
  if (error.code === "unauthenticated") {
    kept.token = null;
    askForToken(`${told.what} ${told.next}`);
  } else if (error.code === "not_found") {
    kept.terminal = null;
    showOver(told, { again: true });
  } else {
    showOver(told, { retry: true, again: had });
  }
}

const actions = {
  copy: async () => hint(await copy(screen)),
  async paste() {
    hint(await paste(screen));
    screen.focus();
  },
  leave() {
    close();
    kept.token = null;
    askForToken(
      "The token has been forgotten. The terminal keeps running for 10 minutes: enter the token in this tab to get it back.",
    );
  },
};

// ---- what the user does

const keys = new Keys($("keys"), {
  type(text) {
    session.type(encoder.encode(text));
    screen.scrollToBottom();
  },
  isApplication: () => screen.modes.applicationCursorKeysMode,
  actions,
});

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  kept.token = $("token").value.trim();
  open();
});
$("again").addEventListener("click", () => {
  kept.terminal = null;
  open();
});
$("retry").addEventListener("click", open);
$("now").addEventListener("click", () => {
  session.tryNow();
  screen.focus();
});
for (const button of $("menu").querySelectorAll("[data-action]")) {
  button.addEventListener("click", () => {
    $("menu").hidePopover();
    actions[button.dataset.action]();
  });
}
for (const radio of document.querySelectorAll("[name=theme]")) {
  radio.checked = radio.value === look.theme;
  radio.addEventListener("change", () => (look.theme = radio.value));
}
$("smaller").addEventListener("click", () => (look.fontSize -= 1));
$("larger").addEventListener("click", () => (look.fontSize += 1));
$("reader").checked = look.screenReader;
$("reader").addEventListener("change", () => (look.screenReader = $("reader").checked));
const showSize = () => ($("size").textContent = look.fontSize);
look.onChange(showSize);
showSize();

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey && event.key === "F6") $("menu-button").focus();
});
addEventListener("hashchange", () => takeToken() && open());
// Try at once when the network returns or the page becomes visible again.
addEventListener("online", () => session?.tryNow());
document.addEventListener("visibilitychange", () => document.hidden || session?.tryNow());

for (const place of document.querySelectorAll(".host")) place.textContent = HOST;
$("plain").hidden = isSecureContext;
followKeyboard();
if (kept.token) open();
else askForToken();
