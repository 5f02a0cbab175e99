// Reports at once if a part of the page does not load. This script is not a module: if a proxy changes the Host header,
// modules fail, because browsers send an Origin for them, which then differs from the host.

addEventListener(
  "error",
  ({ target }) => {
    if (target instanceof HTMLScriptElement) document.documentElement.classList.add("broken");
  },
  true,
);
