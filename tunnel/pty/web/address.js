// The token of a link, https://box.example.org/#token=…: browsers do not send the part after # to any server. It is
// removed from the address bar before anything else is loaded, so that it is not copied, bookmarked or photographed.

import { kept } from "./kept.js";

// Keeps the token of the address, if there is one. Returns whether there was one.
export function takeToken() {
  const found = /^#token=(.*)$/.exec(location.hash);
  if (!found) return false;
  history.replaceState(null, "", location.pathname + location.search);
  kept.token = decoded(found[1]).trim();
  return true;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

takeToken();
