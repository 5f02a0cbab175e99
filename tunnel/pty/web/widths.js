// How many columns a character has. xterm.js knows only Unicode 6; today's C libraries, and the programs that use them,
// count an emoji as two columns. Both must agree, or the cursor is in the wrong place.

const WIDE =
  /[\p{Emoji_Presentation}\u1100-\u115f\u2329\u232a\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6b\uff01-\uff60\uffe0-\uffe6\u{16fe0}-\u{1b2fb}\u{1f200}-\u{1f265}\u{20000}-\u{3fffd}]/u;
const NARROW = /[\u303f\p{Regional_Indicator}]/u;
const NONE = /[\p{Mn}\p{Me}\p{Cf}\u1160-\u11ff\ud7b0-\ud7fb]/u;
const SHOWN = /[\u00ad\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u{110bd}\u{110cd}]/u; // formats that have a glyph

const known = new Map();

function measured(code) {
  const character = String.fromCodePoint(code);
  if (NONE.test(character) && !SHOWN.test(character)) return 0;
  return WIDE.test(character) && !NARROW.test(character) ? 2 : 1;
}

export function width(code) {
  if (code < 0x20 || (code >= 0x7f && code < 0xa0)) return 0;
  if (code < 0x300) return 1;
  let found = known.get(code);
  if (found === undefined) known.set(code, (found = measured(code)));
  return found;
}

// The format of xterm.js: bit 0: join the character to the one before; bits 1 and 2: the width.
export const UNICODE = {
  version: "today",
  wcwidth: width,
  charProperties(code, before) {
    const own = width(code);
    const joined = own === 0 ? (before >> 1) & 3 : 0;
    return joined ? (joined << 1) | 1 : own << 1;
  },
};
