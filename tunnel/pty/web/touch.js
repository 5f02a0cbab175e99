// A finger on the terminal scrolls it, as a wheel does: through the scrollback, or in the program that is shown.
// xterm.js leaves touches alone.

const SLACK = 8; // px that a finger may move in a tap

// Returns what ends it.
export function scrollByTouch(element) {
  let last = null;
  let moved = false;
  const ending = new AbortController();
  const listen = (name, listener) => element.addEventListener(name, listener, { signal: ending.signal, passive: false });
  listen("touchstart", (event) => {
    last = event.touches.length === 1 ? event.touches[0] : null;
    moved = false;
  });
  listen("touchmove", (event) => {
    if (!last || event.touches.length !== 1) return; // two fingers zoom the page
    const touch = event.touches[0];
    const deltaY = last.clientY - touch.clientY;
    if (!moved && Math.abs(deltaY) < SLACK) return;
    moved = true;
    last = touch;
    event.preventDefault();
    const { clientX, clientY } = touch;
    const wheel = new WheelEvent("wheel", { deltaY, clientX, clientY, bubbles: true, cancelable: true });
    event.target.dispatchEvent(wheel);
  });
  return () => ending.abort();
}
