// The terminal's screen: xterm.js with our font, theme and widths, fitted to its element.

import { look, fontFamily } from "./look.js";
import { scrollByTouch } from "./touch.js";
import { UNICODE } from "./widths.js";

const SETTLE = 50; // milliseconds without a change before the screen takes a new size

// Makes a screen in `element`. `resized` is called when it has taken the size of its element, `copy` for Ctrl+Shift+C.
// Returns {screen, close}.
export function makeScreen(element, { resized, copy }) {
  element.replaceChildren();
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const screen = new Terminal({
    allowProposedApi: true, // for the widths of characters
    cursorBlink: !calm,
    fontFamily: fontFamily(),
    macOptionIsMeta: true,
    minimumContrastRatio: 4.5, // of text that a program has coloured for another background
    scrollback: 10000,
    ...look.options,
  });
  screen.unicode.register(UNICODE);
  screen.unicode.activeVersion = UNICODE.version;
  const fit = new FitAddon.FitAddon();
  screen.loadAddon(fit);
  screen.attachCustomKeyEventHandler((event) => {
    const copies = event.type === "keydown" && event.ctrlKey && event.shiftKey && event.code === "KeyC";
    if (copies) {
      event.preventDefault(); // else it opens the browser's tools
      copy();
    }
    // Keys that leave the terminal, as Tab does not.
    return !copies && !(event.ctrlKey && event.key === "F6");
  });
  screen.open(element);
  screen.textarea.setAttribute("aria-label", "Terminal. Control F6 leaves it for the menu.");
  fit.fit();

  let settling;
  const adjust = () => {
    clearTimeout(settling);
    settling = setTimeout(() => {
      fit.fit();
      resized();
    }, SETTLE);
  };
  const observer = new ResizeObserver(adjust);
  observer.observe(element);
  const forget = look.onChange(() => {
    Object.assign(screen.options, look.options);
    adjust();
  });
  const stopScrolling = scrollByTouch(element, screen);
  return {
    screen,
    close() {
      clearTimeout(settling);
      observer.disconnect();
      forget();
      stopScrolling();
      screen.dispose();
    },
  };
}
