// What went wrong, in plain words: each with what to do next.

const SERVICE = "wstunnel-py serve";

// Returns {what, next} for a CallError; `host` is the name in the address bar, `had` whether there was a terminal.
export function words(error, host, had) {
  if (error.place === "network" && navigator.onLine === false) {
    return told("This device is offline.", "Connect it to the network.");
  }
  switch (error.place) {
    case "network":
      return told(`${host} does not answer.`, `Check that the machine is on and that ${SERVICE} runs there.`);
    case "silence":
      return told(`${host} has gone silent.`, "Check the network, and that the machine is on and not suspended.");
    case "proxy":
      return fromProxy(error.status, host);
    case "service":
      return fromService(error, host, had);
    default: // no CallError: a bug of this page
      return told(`This page has failed: ${error.message}.`, "Reload it. If it fails again, please report that.");
  }
}

function told(what, next) {
  return { what, next };
}

function fromProxy(status, host) {
  switch (status) {
    case 0:
      return told(`A proxy in front of ${host} requires you to sign in.`, "Reload this page and sign in.");
    case 200:
      return told(
        `Something other than the terminal service answered at ${host}.`,
        "Reload this page: perhaps a proxy requires you to sign in.",
      );
    case 401:
    case 403:
    case 407:
      return told(
        `A proxy in front of ${host} refused the request (HTTP ${status}).`,
        "Reload this page to sign in there, or ask whoever runs the proxy to let POST requests to /process.Process/ through.",
      );
    case 404:
    case 410:
      return told(
        `The proxy in front of ${host} does not know this machine (HTTP ${status}).`,
        "It may be stopped, or its address may have changed.",
      );
    case 413:
      return told(
        `A proxy in front of ${host} does not accept requests of this size (HTTP 413).`,
        "Paste less at once, or raise the proxy's limit for request bodies.",
      );
    case 429:
      return told(`The proxy in front of ${host} is receiving too many requests (HTTP 429).`, "Wait a minute.");
    case 502:
    case 503:
    case 504:
      return told(
        `A proxy answers for ${host}, but the terminal service behind it does not (HTTP ${status}).`,
        `Check that the machine is on and that ${SERVICE} runs there.`,
      );
    default:
      return told(`A proxy in front of ${host} answered HTTP ${status}.`, "Its log may say why.");
  }
}

function fromService({ code, message }, host, had) {
  switch (code) {
    case "unauthenticated":
      return had
        ? told(`${host} no longer accepts this token.`, "Enter the new one.")
        : told(`${host} does not accept this token.`, "");
    case "permission_denied":
      return /origin/.test(message)
        ? told(
            "The service considers this page to be from another site.",
            "A proxy in front of it must pass on the Host header unchanged (nginx: proxy_set_header Host $http_host).",
          )
        : told(
            `The service refused: ${message}.`,
            `If it does not know the name ${host}, start it with --pty-host ${host}.`,
          );
    case "not_found":
      return told(
        "This terminal no longer exists.",
        "It ended while this page was away, the service was restarted, or no page showed it for 10 minutes.",
      );
    case "resource_exhausted":
      return had
        ? told(`This page was too slow, or too many others show this terminal (${message}).`, "Close some of them.")
        : told(
            `${host} has reached its limit of terminals.`,
            "End some (wstunnel-py pty ps, wstunnel-py pty kill), or start the service with a higher --pty-max-processes.",
          );
    case "unavailable":
      return told(`The service on ${host} is stopping.`, "Try again once it has been started again.");
    case "deadline_exceeded":
      return told("The terminal has reached its time limit.", "Open a new one.");
    default:
      return told(`The service reports: ${message}.`, "Its log may have details.");
  }
}

// Returns {what, next} for the `end` event of a terminal.
export function ending({ exitCode = 0, status = "" }) {
  const signal = /^signal: (.*)$/.exec(status)?.[1];
  if (exitCode >= 0) {
    const failed = exitCode === 127 ? "If it never started, /bin/bash may be missing on the machine." : "";
    return told(exitCode ? `The shell ended with exit code ${exitCode}.` : "The shell ended.", failed);
  }
  switch (signal) {
    case "hangup":
      return told("The terminal was hung up.", "This happens when the service stops or is restarted.");
    case "killed":
      return told(
        "The terminal was killed.",
        "Somebody killed it (wstunnel-py pty kill), or the machine was short of memory.",
      );
    default:
      return told(`The terminal was ended by a signal (${signal ?? status}).`, "");
  }
}

export const TROUBLE = {
  full: "Too much input is waiting to be sent. What you typed or pasted last was dropped: send it again later, in pieces.",
  input: "What you typed could not be sent.",
  size: "The terminal could not be resized to the window. Change the window's size a little to try again.",
};
