// Tells at once when a part of the page does not arrive. This script is no module: a proxy that changes the Host header
// makes modules fail, because browsers send an Origin for them, which then seems to be a foreign one.

addEventListener(
  "error",
  ({ target }) => {
    if (target instanceof HTMLScriptElement) document.documentElement.classList.add("broken");
  },
  true,
);
