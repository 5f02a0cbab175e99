// Copying from the screen and pasting into it. Browsers may refuse either, and have the modern API on https only.

// Copies the selection, or the whole screen. Returns a message for the user.
export async function copy(screen) {
  const selection = screen.getSelection();
  const text = selection || shown(screen);
  if (!text) return "There is nothing to copy.";
  if (!(await written(text))) {
    return "The browser refused to copy. Select the text and press Ctrl+Shift+C, or allow the clipboard for this page.";
  }
  return selection ? "Selection copied." : "Nothing was selected, so the whole screen was copied.";
}

// Pastes; returns a message for the user, "" if it worked.
export async function paste(screen) {
  if (!navigator.clipboard?.readText) {
    return "The browser does not let this page read the clipboard. Press Ctrl+Shift+V, or press and hold the terminal and choose Paste.";
  }
  let text;
  try {
    text = await navigator.clipboard.readText();
  } catch {
    return "The browser refused to paste. Allow the clipboard for this page, or press Ctrl+Shift+V.";
  }
  if (!text) return "The clipboard contains no text.";
  screen.paste(text);
  return "";
}

async function written(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Refused, or missing without https: the older API needs no permission, but must be called right after a click.
  }
  let done = false;
  const give = (event) => {
    event.clipboardData.setData("text/plain", text);
    event.preventDefault();
    event.stopImmediatePropagation();
    done = true;
  };
  document.addEventListener("copy", give, { capture: true });
  document.execCommand("copy");
  document.removeEventListener("copy", give, { capture: true });
  return done;
}

function shown(screen) {
  const { active } = screen.buffer;
  let text = "";
  for (let row = 0; row < screen.rows; row++) {
    const line = active.getLine(active.viewportY + row);
    if (!line) break;
    if (row && !line.isWrapped) text += "\n";
    text += line.translateToString(!active.getLine(active.viewportY + row + 1)?.isWrapped);
  }
  return text.trimEnd();
}
