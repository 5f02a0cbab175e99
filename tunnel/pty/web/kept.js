// What the page keeps. In sessionStorage, which ends with the tab: the token, and the terminal that a reload finds again.
// In localStorage: how the page looks. If the browser lets nothing be stored, it is kept until the page is left.

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
  preference(name) {
    return read("localStorage", name);
  },
  setPreference(name, value) {
    write("localStorage", name, value);
  },
};
