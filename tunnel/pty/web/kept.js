// What the page stores. In sessionStorage, which ends with the tab: the token, and the terminal for a reload. In
// localStorage: the appearance of the page. If the browser does not allow this, it is kept until the page is left.

const memory = new Map();

function read(storage, name) {
  try {
    return globalThis[storage].getItem(name);
  } catch {
    return memory.get(name) ?? null;
  }
}

function write(storage, name, value) {
  try {
    if (value === null) globalThis[storage].removeItem(name);
    else globalThis[storage].setItem(name, value);
  } catch {
    memory.set(name, value);
  }
}

export const kept = {
  get token() {
    return read("sessionStorage", "token");
  },
  set token(value) {
    write("sessionStorage", "token", value);
  },
  // {pid, process}, or null.
  get terminal() {
    return JSON.parse(read("sessionStorage", "terminal") ?? "null");
  },
  set terminal(value) {
    write("sessionStorage", "terminal", value && JSON.stringify(value));
  },
  // The tag of a terminal that was requested and has not answered yet, or null.
  get tag() {
    return read("sessionStorage", "tag");
  },
  set tag(value) {
    write("sessionStorage", "tag", value);
  },
  preference(name) {
    return read("localStorage", name);
  },
  setPreference(name, value) {
    write("localStorage", name, value);
  },
};
