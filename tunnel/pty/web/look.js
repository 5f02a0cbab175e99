// The appearance of the page: theme and font size, which are stored for later visits; and the font.

import { kept } from "./kept.js";

const SMALLEST = 8;
const LARGEST = 32; // px
const THEMES = ["system", "dark", "light"];

const dark = {
  background: "#0f1318",
  foreground: "#e3e8ee",
  cursor: "#7fd1ff",
  cursorAccent: "#0f1318",
  selectionBackground: "#2f5b86",
  black: "#1c232b",
  red: "#ff7b72",
  green: "#5fd38d",
  yellow: "#e3c05c",
  blue: "#7ab2ff",
  magenta: "#d79cf7",
  cyan: "#5fd3d3",
  white: "#c5ced8",
  brightBlack: "#7d8a97",
  brightRed: "#ffa59e",
  brightGreen: "#8ee8b0",
  brightYellow: "#f5d98b",
  brightBlue: "#a9cfff",
  brightMagenta: "#e7c2ff",
  brightCyan: "#93ecec",
  brightWhite: "#ffffff",
};
const light = {
  background: "#fcfcfa",
  foreground: "#20262d",
  cursor: "#0b63b5",
  cursorAccent: "#fcfcfa",
  selectionBackground: "#b9d7f5",
  black: "#20262d",
  red: "#b3261e",
  green: "#1a7038",
  yellow: "#7d5700",
  blue: "#1a56b8",
  magenta: "#8a2fb0",
  cyan: "#0c6b75",
  white: "#66707b",
  brightBlack: "#5a646f",
  brightRed: "#c93a31",
  brightGreen: "#207f41",
  brightYellow: "#8f6400",
  brightBlue: "#2a68d0",
  brightMagenta: "#9b3fc2",
  brightCyan: "#107985",
  brightWhite: "#4a535d",
};

// Latin letters come from a monospaced font. Missing characters come from the next ones: Chinese, Japanese and Korean
// share code points but not shapes, so the user's language comes first.
const LATIN = '"SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace';
const EAST_ASIAN = {
  ja: '"Noto Sans Mono CJK JP", "Hiragino Sans", "Yu Gothic", "BIZ UDGothic", "Noto Sans CJK JP"',
  ko: '"Noto Sans Mono CJK KR", "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans CJK KR"',
  "zh-Hant": '"Noto Sans Mono CJK TC", "PingFang TC", "Microsoft JhengHei", "Noto Sans CJK TC"',
  "zh-Hans": '"Noto Sans Mono CJK SC", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "WenQuanYi Zen Hei Mono"',
};
const EMOJI = '"Apple Color Emoji", "Segoe UI Emoji", "Noto Color Emoji"';

export function fontFamily(languages = navigator.languages) {
  const wanted = languages.map(eastAsian).filter(Boolean);
  const order = new Set([...wanted, "zh-Hans", "ja", "ko", "zh-Hant"]);
  return [LATIN, ...[...order].map((name) => EAST_ASIAN[name]), EMOJI].join(", ");
}

function eastAsian(language) {
  if (/^zh-(hant|tw|hk|mo)/i.test(language)) return "zh-Hant";
  if (/^zh\b/i.test(language)) return "zh-Hans";
  const base = language.slice(0, 2).toLowerCase();
  return base in EAST_ASIAN ? base : null;
}

const lightWanted = matchMedia("(prefers-color-scheme: light)");
const listeners = new Set();

export const look = {
  get theme() {
    const chosen = kept.preference("theme");
    return THEMES.includes(chosen) ? chosen : "system";
  },
  set theme(value) {
    kept.setPreference("theme", value);
    changed();
  },
  get fontSize() {
    const usual = matchMedia("(max-width: 500px)").matches ? 13 : 15;
    return bounded(Number(kept.preference("fontSize"))) || usual;
  },
  set fontSize(value) {
    kept.setPreference("fontSize", String(bounded(value)));
    changed();
  },
  get screenReader() {
    return kept.preference("screenReader") === "yes";
  },
  set screenReader(value) {
    kept.setPreference("screenReader", value ? "yes" : null);
    changed();
  },
  // The options for a Terminal of xterm.js.
  get options() {
    return {
      fontSize: this.fontSize,
      theme: isLight() ? light : dark,
      screenReaderMode: this.screenReader,
    };
  },
  // Calls `listener` after each change; returns a function that ends this.
  onChange(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
};

function bounded(size) {
  return size ? Math.min(Math.max(Math.round(size), SMALLEST), LARGEST) : 0;
}

function isLight() {
  return look.theme === "system" ? lightWanted.matches : look.theme === "light";
}

function changed() {
  document.documentElement.dataset.theme = isLight() ? "light" : "dark";
  document.querySelector("meta[name=theme-color]").content = (isLight() ? light : dark).background;
  for (const listener of listeners) listener();
}

lightWanted.addEventListener("change", changed);
changed();
