// A replay without its queries, which the screen that shows it must not answer again. This is
// tunnel/pty/client/replay.py for browsers, which has the reasons; a test compares them. Bytes are handled as a string
// with one character for each.

const SEQUENCE_LIMIT = 4096; // bytes of a sequence that is held back

// Text: ASCII, and complete characters in UTF-8, whose bytes could look like controls. 05 queries the answerback.
const CHARACTER =
  "\\xc2[\\x80-\\x8f\\x91-\\x97\\x99\\xa0-\\xbf]|[\\xc3-\\xdf][\\x80-\\xbf]|[\\xe0-\\xef][\\x80-\\xbf]{2}|" +
  "[\\xf0-\\xf4][\\x80-\\xbf]{3}|[\\x80-\\x8f\\x91-\\x97\\x99\\xa0-\\xc1\\xf5-\\xff]";
const TEXT = new RegExp(`(?:[\\x00-\\x04\\x06-\\x1a\\x1c-\\x7f]+|[\\x98\\x9c\\x9e\\x9f]|\\xc2\\x9c|${CHARACTER})+`, "y");
const OSC_TEXT = new RegExp(`(?:[\\x00-\\x06\\x08-\\x17\\x19\\x1c-\\x7f]+|${CHARACTER})*`, "y");
const STRING_TEXT = new RegExp(`(?:[\\x00-\\x17\\x19\\x1c-\\x7f]+|${CHARACTER})*`, "y");
const HALF = /(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2}|\x1b)$/y;
const ESCAPE_CONTROLS = /[\x00-\x17\x19\x1c-\x1f\x7f]*/y;
const ESCAPE_BODY = /[\x00-\x17\x19\x1c-/\x7f]*/y;
const CSI_BODY = /[^\x18\x1a\x1b@-~\x90\x98\x9a\x9b\x9d-\x9f]*/y;
const STRING_END = /\x07|\x1b\\|\xc2?\x9c/y;
const CONTROLS = /[\x00-\x04\x06-\x1a\x1c-\x1f]+/g;
const ANSWERBACK = /\x05/g;
const CSI = /^([?><=]?)([0-9;:]*)([ -/]*)$/;

// The sequences that pass. CSI: what is before and after the numbers, and the final bytes.
const CSI_PASSING = new Set(
  Object.entries({
    "/": "@ABCDEFGHIJKLMPSTUVXZ`abdefghjklmqrsu",
    "?/": "hlrsJKW",
    ">/": "fmnpstTu",
    "</": "u",
    "=/": "u",
    "/ ": "@APqtu",
    "/!": "p",
    '/"': "pq",
    "/#": "PQpqy{}",
    "/$": "rtvxz{|}~",
    "/'": "z{}~",
    "/*": "x|",
  }).flatMap(([around, finals]) => [...finals].map((final) => around + final)),
);
const TITLE_STACK = ["22", "23"]; // of CSI t; others ask, or move the window
const OSC_PASSING = [0, 1, 2, 7, 8, 66, 104, 105, 106, 110, 111, 112, 113, 114, 115, 116, 117, 118, 119, 133, 633];
const OSC_STACKS = [30001, 30101];
const OSC_UNLESS_ASKING = [4, 5, 6, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22]; // they ask with a question mark
const DCS_PASSING = /^(?:[0-9;:]*[q{]|=[12]s)/; // pictures, characters, synchronized updates
const ALTERNATE = ["47", "1047", "1049"];
const REPORTED_AT_ONCE = ["1004", "2031", "2048"]; // focus, light or dark, size
const UNKNOWN_STRING = { "": "", "]": "\x1b]99999;", P: "\x1bP~", X: "\x1bX-", "^": "\x1b^-", _: "\x1b_-" };

// The first `size` bytes of output are a replay. `alternate`: whether the alternate screen is shown.
export class Replay {
  constructor(size) {
    this.alternate = false;
    this.left = size;
    this.held = ""; // a sequence or character that has begun
    this.string = ""; // the kind of a long string that has begun
    this.passes = false; // that string
    this.reported = new Set(); // modes to set behind the replay
  }

  get running() {
    return this.left > 0;
  }

  // Returns what to show of the bytes of a `restore` event, which precedes the output: the replay, and what follows it,
  // if that is already there.
  restore(bytes) {
    return this.#shown(toText(bytes), "");
  }

  // Returns the same of the next output.
  feed(bytes) {
    const text = toText(bytes);
    const replayed = text.slice(0, this.left);
    this.left -= replayed.length;
    return this.#shown(replayed, text.slice(replayed.length));
  }

  #shown(replayed, live) {
    const shown = this.#filter(replayed);
    return [toBytes(shown), toBytes(this.running ? "" : this.#end() + live)];
  }

  #end() {
    const modes = [...this.reported].map((mode) => `\x1b[?${mode}h`).join("");
    const cut = UNKNOWN_STRING[this.string];
    if (this.passes) return modes ? `\x1b\\${modes}${cut}${this.held}` : this.held;
    return modes + cut + this.held;
  }

  #filter(text) {
    const data = this.held + text;
    this.held = "";
    const out = [];
    let at = 0;
    while (at < data.length) {
      let after = this.string ? at : endOf(TEXT, data, at);
      if (after > at) out.push(data.slice(at, after));
      else after = this.string ? this.#longString(data, at, out) : this.#control(data, at, out);
      if (after < 0) {
        this.held = data.slice(at);
        break;
      }
      at = after;
    }
    return out.join("");
  }

  // Processes a control or sequence; returns where it ends, -1 to wait for more.
  #control(data, at, out) {
    const first = data.charCodeAt(at);
    if (first === 0x1b) {
      const end = endOf(ESCAPE_CONTROLS, data, at + 1);
      if (end === data.length && end - at <= SEQUENCE_LIMIT) return -1;
      if (end === data.length || !/[ -~]/.test(data[end])) {
        out.push(controls(data.slice(at, end)));
        return end;
      }
      return this.#sequence(data[end], data, at, end + 1, out);
    }
    if (first >= 0xc2) {
      if (begins(HALF, data, at)) return -1;
      if (first === 0xc2 && /[\x90\x98\x9a\x9b\x9d-\x9f]/.test(data[at + 1])) {
        return this.#sequence(String.fromCharCode(data.charCodeAt(at + 1) - 0x40), data, at, at + 2, out);
      }
      out.push(data[at]);
    } else if (/[\x90\x9a\x9b\x9d]/.test(data[at])) {
      return this.#sequence(String.fromCharCode(first - 0x40), data, at, at + 1, out);
    }
    return at + 1;
  }

  // `kind` is the second byte of the sequence, in seven bits.
  #sequence(kind, data, at, body, out) {
    if (kind === "[") return this.#csi(data, at, body, out);
    if ("]PX^_".includes(kind)) return this.#begunString(kind, data, at, body, out);
    if (kind < "0") {
      const end = endOf(ESCAPE_BODY, data, body);
      if (end === data.length && end - at <= SEQUENCE_LIMIT) return -1;
      if (end === data.length || !/[0-~]/.test(data[end])) {
        out.push(controls(data.slice(at, end)));
        return end;
      }
      out.push(quiet(data.slice(at, end + 1)));
      return end + 1;
    }
    if (kind === "Z") {
      out.push(controls(data.slice(at, body)));
      return body;
    }
    if (kind === "c") {
      this.alternate = false;
      this.reported.clear();
    }
    out.push(quiet(data.slice(at, body)));
    return body;
  }

  #csi(data, at, body, out) {
    const end = endOf(CSI_BODY, data, body);
    if (end === data.length) return end - at <= SEQUENCE_LIMIT ? -1 : end;
    const final = data[end];
    if (!/[@-~]/.test(final)) {
      out.push(controls(data.slice(at, end))); // it was broken off
      return end;
    }
    const [, before, numbers, behind] = CSI.exec(data.slice(body, end).replace(/[^ -?]+/g, "")) ?? [];
    if (end - at > SEQUENCE_LIMIT || numbers === undefined || !passesCsi(before, numbers, behind, final)) {
      out.push(controls(data.slice(at, end)));
    } else {
      const whole = quiet(data.slice(at, end + 1));
      out.push(before === "?" && "hlr".includes(final) ? this.#modes(whole, numbers, final) : whole);
    }
    return end + 1;
  }

  // Notes the modes that are set or reset; returns what passes.
  #modes(whole, text, final) {
    const numbers = text.split(";").map((each) => each.replace(/^0+/, ""));
    if (numbers.some((each) => ALTERNATE.includes(each))) this.alternate = final === "h";
    const reported = REPORTED_AT_ONCE.filter((each) => numbers.includes(each));
    if (!reported.length) return whole;
    if (final === "l") {
      for (const each of reported) this.reported.delete(each);
      return whole;
    }
    if (final === "h") for (const each of reported) this.reported.add(each);
    const rest = numbers.filter((each) => !reported.includes(each));
    return rest.length ? `\x1b[?${rest.join(";")}${final}` : "";
  }

  #begunString(kind, data, at, body, out) {
    const end = endOf(kind === "]" ? OSC_TEXT : STRING_TEXT, data, body);
    const text = data.slice(body, end).replace(ANSWERBACK, "").replace(CONTROLS, "");
    if (end === data.length || begins(HALF, data, end)) {
      if (end - at <= SEQUENCE_LIMIT) return -1;
      this.string = kind;
      this.passes = passesString(kind, text, false);
      if (this.passes) out.push(quiet(data.slice(at, end)));
      return end;
    }
    const terminated = endOf(STRING_END, data, end);
    if (terminated > end && passesString(kind, text, end - at <= SEQUENCE_LIMIT)) {
      out.push(quiet(data.slice(at, terminated)));
    }
    return terminated; // where it ended, or was broken off
  }

  #longString(data, at, out) {
    let end = endOf(this.string === "]" ? OSC_TEXT : STRING_TEXT, data, at);
    if (end === at && begins(HALF, data, end)) return -1;
    let kept = data.slice(at, end);
    const passes = this.passes;
    if (end < data.length && !begins(HALF, data, end)) {
      const terminated = endOf(STRING_END, data, end);
      kept += terminated > end ? data.slice(end, terminated) : "\x1b\\";
      end = terminated;
      this.string = "";
      this.passes = false;
    }
    if (passes) out.push(quiet(kept));
    return end;
  }
}

function passesCsi(before, numbers, behind, final) {
  if (final === "t" && !before && !behind) return TITLE_STACK.includes(numbers.split(";")[0]);
  return CSI_PASSING.has(`${before}/${behind}${final}`);
}

function passesString(kind, text, whole) {
  if (kind === "P") return DCS_PASSING.test(text);
  const [, digits, rest] = /^([0-9]{1,5})(?:;([^]*))?$/.exec(text) ?? [];
  if (kind !== "]" || digits === undefined) return false;
  const number = Number(digits);
  if (OSC_PASSING.includes(number) || OSC_STACKS.includes(number)) return true;
  return OSC_UNLESS_ASKING.includes(number) && whole && !rest?.includes("?");
}

// The end of the match of `pattern` at `at`.
function endOf(pattern, data, at) {
  pattern.lastIndex = at;
  return pattern.test(data) ? pattern.lastIndex : at;
}

function begins(pattern, data, at) {
  pattern.lastIndex = at;
  return pattern.test(data);
}

const controls = (data) => (data.match(CONTROLS) ?? []).join("");
const quiet = (data) => data.replace(ANSWERBACK, "");

function toText(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return text;
}

function toBytes(text) {
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}
