// The row of keys that touch screens lack. Control and Alt stick: once for the next key, twice until they are tapped again.

const FIRST_REPEAT = 400;
const REPEAT = 70; // milliseconds between repeats of a key that is held down
const NAMED = { escape: "\x1b", tab: "\t" };
const ARROWS = { up: "A", down: "B", right: "C", left: "D" };

// Returns the byte for Control and a character, or the character if there is none.
export function control(character) {
  if (character === " ") return "\0";
  if (character === "?") return "\x7f";
  const code = character.toUpperCase().charCodeAt(0);
  return character.length === 1 && code >= 0x40 && code < 0x60 ? String.fromCharCode(code & 0x1f) : character;
}

export class Keys {
  // `type` gets the text for the keys, `isApplication` says whether the program has set application cursor keys, and
  // `actions` has functions for the other buttons by their data-action.
  constructor(row, { type, isApplication, actions }) {
    this.type = type;
    this.isApplication = isApplication;
    this.held = { ctrl: "off", alt: "off" };
    this.buttons = {};
    row.addEventListener("mousedown", (event) => event.preventDefault()); // the keyboard stays as it is
    for (const button of row.querySelectorAll("button")) {
      const { key, modifier, action } = button.dataset;
      if (modifier) {
        this.buttons[modifier] = button;
        button.addEventListener("click", () => this.stick(modifier));
      } else if (action) button.addEventListener("click", actions[action]);
      else if (key in ARROWS) repeat(button, () => this.arrow(key));
      else button.addEventListener("click", () => this.type(this.applied(NAMED[key] ?? key)));
    }
  }

  stick(modifier) {
    this.set(modifier, { off: "next", next: "locked", locked: "off" }[this.held[modifier]]);
  }

  set(modifier, state) {
    this.held[modifier] = state;
    this.buttons[modifier].dataset.held = state;
    this.buttons[modifier].setAttribute("aria-pressed", { off: "false", next: "mixed", locked: "true" }[state]);
  }

  // Returns text from any keyboard, changed by the keys that stick.
  applied(text) {
    const [first] = text; // a whole character
    if (this.held.ctrl === "off" && this.held.alt === "off") return text;
    if (!first || (first === "\x1b" && text.length > 1)) return text; // a key with a sequence, or the screen's answer
    let typed = this.held.ctrl === "off" ? first : control(first);
    if (this.held.alt !== "off") typed = `\x1b${typed}`;
    this.release();
    return typed + text.slice(first.length);
  }

  arrow(key) {
    const modifiers = 1 + (this.held.alt === "off" ? 0 : 2) + (this.held.ctrl === "off" ? 0 : 4);
    const application = modifiers === 1 && this.isApplication();
    this.type(`\x1b${application ? "O" : "["}${modifiers > 1 ? `1;${modifiers}` : ""}${ARROWS[key]}`);
    this.release();
  }

  release() {
    for (const modifier of ["ctrl", "alt"]) if (this.held[modifier] === "next") this.set(modifier, "off");
  }
}

function repeat(button, act) {
  let timer;
  const stop = () => clearTimeout(timer);
  const again = () => {
    act();
    timer = setTimeout(again, REPEAT);
  };
  button.addEventListener("pointerdown", () => {
    stop();
    act();
    timer = setTimeout(again, FIRST_REPEAT);
  });
  for (const name of ["pointerup", "pointercancel", "pointerleave", "contextmenu"]) button.addEventListener(name, stop);
  button.addEventListener("click", (event) => {
    if (event.detail === 0) act(); // by a keyboard or a screen reader
  });
}
