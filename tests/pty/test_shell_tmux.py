"""Full-screen programs under ``shell`` in a real terminal emulator, tmux: what the user sees, also after a resize."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.bed.processes import Bed, program, ticks
from tests.bed.tunnels import OURS
from tests.pty.beds import Service

CURSES = """
import curses

def main(screen):
    curses.curs_set(0)
    while True:
        rows, cols = screen.getmaxyx()
        screen.erase()
        screen.border()
        screen.addstr(rows // 2, 3, f"{rows} rows, {cols} columns, grün")
        screen.refresh()
        key = screen.getch()
        if key == ord("q"):
            return

curses.wrapper(main)
"""


class Tmux:
    """A separate tmux server with one window that runs a command."""

    def __init__(self, bed: Bed, folder: Path, env: Mapping[str, str]) -> None:
        self._bed = bed
        self._env = {"TMUX_TMPDIR": str(folder), "TMUX": "", "LC_ALL": "C.UTF-8", **env}

    def command(self, *words: str) -> str:
        return self._bed.check(program("tmux"), "-f", "/dev/null", *words, env=self._env).text

    def open(self, *argv: str, rows: int = 24, cols: int = 80) -> None:
        self.command("new-session", "-d", "-x", str(cols), "-y", str(rows), "-s", "test", *argv)

    def type(self, *keys: str) -> None:
        self.command("send-keys", "-t", "test", *keys)

    def resize(self, rows: int, cols: int) -> None:
        self.command("resize-window", "-t", "test", "-x", str(cols), "-y", str(rows))

    def screen(self) -> str:
        return self.command("capture-pane", "-p", "-t", "test")

    def see(self, pattern: str) -> str:
        """Wait until the screen shows a text; return the screen."""
        screen = ""
        for _ in ticks(30, pause=0.1):
            screen = self.screen()
            if re.search(pattern, screen, re.MULTILINE):
                return screen
        raise AssertionError(f"no {pattern!r} on the screen:\n{screen}")

    def close(self) -> None:
        self._bed.run(program("tmux"), "kill-server", env=self._env)


@pytest.fixture
def tmux(bed: Bed, service: Service, short_folder: Path) -> Iterator[Tmux]:
    """A tmux window with a prompt in the sandbox."""
    tmux = Tmux(bed, short_folder, {"PYTHONPATH": os.environ["PYTHONPATH"]})
    try:
        # A shell prints the exit status: tmux may leave an ended process a zombie, and its pane alive.
        tmux.open(
            "sh", "-c", '"$@"; echo "[ended with $?]"; read _', "sh",
            *OURS, "shell", service.url, "--cwd", str(bed.folder), "-e", "PS1=box> ", "-e", "LESS=",
            "--", "/bin/bash", "--norc", "--noprofile", "-i",
        )  # fmt: skip
        tmux.see(r"^box>$")
        yield tmux
        tmux.type("exit 7", "Enter")
        tmux.see(r"^\[ended with 7\]$")
    finally:
        tmux.close()


def test_less_pages_and_searches(tmux: Tmux, bed: Bed) -> None:
    (bed.folder / "numbers").write_text("".join(f"line {n}\n" for n in range(1, 1001)))
    tmux.type("less numbers", "Enter")
    # The last line of a screen is drawn last.
    assert tmux.see(r"^line 23$").splitlines()[:23] == [f"line {n}" for n in range(1, 24)]
    tmux.type("Space")
    tmux.see(r"^line 46$")
    tmux.type("/line 500", "Enter")
    tmux.see(r"\Aline 500$")
    tmux.resize(40, 100)
    screen = tmux.see(r"^line 538$")
    assert screen.splitlines()[:39] == [f"line {n}" for n in range(500, 539)]
    tmux.type("q")
    tmux.see(r"^box>$")


def test_vim_edits_and_saves(tmux: Tmux, bed: Bed) -> None:
    tmux.type("vim -u NONE -N text", "Enter")
    tmux.see(r"^~$")
    tmux.type("i", "Hello, grün", "Enter", "second", "Escape")
    tmux.see(r"^Hello, grün$")
    tmux.resize(30, 120)
    tmux.see(r"\AHello, grün\nsecond\n(~\n){26,27}")
    tmux.type("yyp", ":wq", "Enter")
    tmux.see(r"^box>$")
    assert (bed.folder / "text").read_text() == "Hello, grün\nsecond\nsecond\n"


def test_top_refreshes_and_follows_the_size(tmux: Tmux) -> None:
    tmux.type("top -d 0.5", "Enter")
    tmux.see(r"^top - .*load average")
    tmux.see(r"^ *PID USER +PR")
    tmux.resize(40, 120)
    for _ in ticks(20, pause=0.1):
        lines = tmux.screen().rstrip("\n").splitlines()
        has_first = any(line.split()[:2] == ["1", "root"] for line in lines)
        if len(lines) > 24 and has_first:
            break
    assert len(lines) > 24 and has_first
    tmux.type("q")
    tmux.see(r"^box>$")


def test_a_curses_program_fills_the_screen_before_and_after_a_resize(tmux: Tmux, bed: Bed) -> None:
    (bed.folder / "full.py").write_text(CURSES)
    tmux.type(f"{sys.executable} full.py", "Enter")
    for rows, cols in ((24, 80), (40, 120), (15, 50)):
        tmux.resize(rows, cols)
        below = rows - rows // 2 - 1  # lines, each with the border at its end
        screen = tmux.see(rf"{rows} rows, {cols} columns, grün.*\n(?:.{{{cols}}}\n){{{below}}}\Z").splitlines()
        assert len(screen) == rows
        assert all(len(line) == cols for line in screen)
        assert all(line[0] == line[-1] for line in screen[1:-1])  # the border
    tmux.type("q")
    tmux.see(r"^box>$")
