"""A recording as an animated SVG: the frames stand one below the other, and CSS moves them past a window.

A frame refers to its lines, each of which is in the file once. Who wants no animations sees the last frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import pyte

from recordlib.scene import COLUMNS, CONNECTED, CUT, ROWS, Recording

TICK = 0.04  # seconds; what comes within one is one frame
PAUSE = 4.0  # seconds for which the last frame stands, before it begins again
WIDTH, HEIGHT, MARGIN = 8.4, 20, 14  # pixels: of a character, of a line, around the screen
BAR = 30  # pixels: the bar above the screen, which tells what happens to the network
TITLE = "An ssh session whose connection is cut for seconds goes on by itself: no output is missing"
STYLE = """
svg { --screen: #11151b; --bar: #232a33; --text: #e6edf3; --up: #57c27a; --down: #ff7b72 }
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: var(--text) }
.screen { fill: var(--screen); stroke: #3d444d }
.bar { fill: var(--bar) }
.up { fill: var(--up) }
.down { fill: var(--down) }
.cursor { fill: var(--text); opacity: .6 }
"""


@dataclass(frozen=True)
class Frame:
    """What is to be seen from a time on: the lines, the column and row of the cursor, the network's state."""

    at: float
    lines: tuple[str, ...]
    cursor: tuple[int, int]
    state: str


def frames(recording: Recording) -> Iterator[Frame]:
    """Yield the frames, each different from the one before."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    events: list[tuple[float, bytes | str]] = [*recording.output, *recording.network]
    events.sort(key=lambda event: event[0])
    state, last = CONNECTED, None
    for number, (at, what) in enumerate(events, 1):
        if isinstance(what, bytes):
            stream.feed(what)
        else:
            state = what
        if number < len(events) and events[number][0] // TICK == at // TICK:
            continue
        seen = (tuple(line.rstrip() for line in screen.display), (screen.cursor.x, screen.cursor.y), state)
        if seen != last:
            yield Frame(at, *seen)
        last = seen


def svg(recording: Recording) -> str:
    """Return the picture, which plays for ever."""
    film = list(frames(recording))
    width, height = round(COLUMNS * WIDTH + 2 * MARGIN), BAR + ROWS * HEIGHT + 2 * MARGIN
    lines = {line: f"t{n}" for n, line in enumerate(dict.fromkeys(each for frame in film for each in frame.lines))}
    bars = {state: f"b{n}" for n, state in enumerate(dict.fromkeys(frame.state for frame in film))}
    lasts = recording.lasted + PAUSE
    steps = [f"{100 * frame.at / lasts if n else 0:.2f}%{{{_shift(n, height)}}}" for n, frame in enumerate(film)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title"'
        ' xml:space="preserve">',
        f'<title id="title">{TITLE}</title>',
        f"<style>{STYLE}.film {{ animation: film {lasts:.2f}s step-end infinite; {_shift(len(film) - 1, height)} }}",
        "@media (prefers-reduced-motion: reduce) { .film { animation: none } }",
        f"@keyframes film {{ {' '.join(steps)} }}</style>",
        "<defs>",
        *(_line(line, name) for line, name in lines.items() if line),
        *(_bar(state, name, width) for state, name in bars.items()),
        "</defs>",
        f'<rect class="screen" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        f'<svg width="{width}" height="{height}"><g class="film">',
        *(_frame(frame, n * height, lines, bars) for n, frame in enumerate(film)),
        "</g></svg>",
        "</svg>",
        "",
    ]
    return "\n".join(parts)


def _shift(number: int, height: int) -> str:
    return f"transform:translateY({-number * height}px)"


def _line(line: str, name: str) -> str:
    # Its length is told, so that the cursor stands where it should in whatever font there is.
    length = f'textLength="{len(line) * WIDTH:.1f}" lengthAdjust="spacingAndGlyphs"'
    return f'<text id="{name}" {length}>{escape(line, quote=False)}</text>'


def _bar(state: str, name: str, width: int) -> str:
    colour = "down" if state == CUT else "up"
    return (
        f'<g id="{name}"><path class="bar" d="M1 {BAR}V9a8 8 0 0 1 8-8H{width - 9}a8 8 0 0 1 8 8V{BAR}z"/>'
        f'<circle class="{colour}" cx="{MARGIN + 5}" cy="{BAR // 2}" r="5"/>'
        f'<text class="{colour}" x="{MARGIN + 20}" y="{BAR // 2 + 5}">{state}</text></g>'
    )


def _frame(frame: Frame, top: int, lines: dict[str, str], bars: dict[str, str]) -> str:
    first = top + BAR + MARGIN
    column, row = frame.cursor
    left, upper = MARGIN + column * WIDTH, first + row * HEIGHT - 1
    parts = [f'<use href="#{bars[frame.state]}" y="{top}"/>']
    parts += [
        f'<use href="#{lines[line]}" x="{MARGIN}" y="{first + 14 + n * HEIGHT}"/>'
        for n, line in enumerate(frame.lines)
        if line
    ]
    parts.append(f'<rect class="cursor" x="{left:.1f}" y="{upper}" width="{WIDTH}" height="{HEIGHT - 2}"/>')
    return "".join(parts)
