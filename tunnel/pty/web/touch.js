// A finger scrolls the terminal line by line: the scrollback, or a program that fills the screen or uses the mouse, which
// gets wheel events. xterm.js does not handle touches.

const SLACK = 8; // px that a finger may move in a tap

// Returns a function that ends it.
export function scrollByTouch(element, screen) {
  let from = null; // where the finger was when the last line was scrolled
  let moved = false;
  const ending = new AbortController();
  const listen = (name, listener) => element.addEventListener(name, listener, { signal: ending.signal, passive: false });
  listen("touchstart", ({ touches }) => {
    from = touches.length === 1 ? touches[0].clientY : null;
    moved = false;
  });
  listen("touchmove", (event) => {
    if (from === null || event.touches.length !== 1) return; // two fingers zoom the page
    const { clientX, clientY } = event.touches[0];
    if (!moved && Math.abs(from - clientY) < SLACK) return;
    moved = true;
    event.preventDefault();
    const height = element.querySelector(".xterm-screen").clientHeight / screen.rows;
    const lines = Math.trunc((from - clientY) / height);
    from -= lines * height;
    if (screen.buffer.active.type === "normal" && screen.modes.mouseTrackingMode === "none") {
      screen.scrollLines(lines);
      return;
    }
    const wheel = { deltaY: Math.sign(lines), deltaMode: WheelEvent.DOM_DELTA_LINE, clientX, clientY };
    for (let line = 0; line < Math.abs(lines); line++) {
      event.target.dispatchEvent(new WheelEvent("wheel", { ...wheel, bubbles: true, cancelable: true }));
    }
  });
  return () => ending.abort();
}
