"""Draws docs/pictures/packages.svg: the packages of tunnel/, and which may import which.

It shows what the table of docs/architecture.md says. What nearly all packages import stands at the bottom, and has a
letter instead of arrows.
"""

from __future__ import annotations

import re
import sys

WIDTH, HEIGHT, TOP, ROW, BOX = 800, 496, 74, 84, 34  # pixels: the picture, its first row, from row to row, a box
LETTER = 16  # pixels that a letter takes
SLOT = 24  # pixels between two arrows at a box
TITLE = "The packages of tunnel/, and which of them may import which"
ROOTS = "run.py, cli/, __init__.py"
LETTERS = {"protocol": "p", "net": "n", "children": "c"}
PLACES = {  # the middle of a box, half its width, its row from the top
    "pty.shell": (124, 108, 0), "websocat": (320, 62, 0), "ssh": (480, 80, 0), "pty.web": (705, 46, 0),
    "pty.client": (104, 59, 1), "pty.server": (705, 70, 1),
    "client": (205, 48, 2), "pty.protocol": (326, 60, 2), "ssh.server": (481, 68, 2), "server": (612, 52, 2),
    "provider": (75, 53, 3), "pki": (412, 46, 3), "restart": (738, 50, 3),
    "protocol": (150, 46, 4), "net": (400, 46, 4), "children": (650, 50, 4),
}  # fmt: skip
STYLE = """
svg { --paper: #ffffff; --frame: #d0d7de; --box: #f3f5f7; --text: #1f2328; --dim: #59636e; --line: #6e7781;
      --p: #0b57a4; --n: #1a6b3c; --c: #8f4a00; --on: #ffffff }
@media (prefers-color-scheme: dark) {
  svg { --paper: #11151b; --frame: #3d444d; --box: #1f2630; --text: #e6edf3; --dim: #9aa4af; --line: #8b949e;
        --p: #79b8ff; --n: #6fd08c; --c: #f0a860; --on: #11151b }
}
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: var(--text);
       text-anchor: middle }
.code { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
.dim { fill: var(--dim) }
.paper { fill: var(--paper); stroke: var(--frame) }
.box { fill: var(--box); stroke: var(--line) }
.arrow { fill: none; stroke: var(--line); stroke-width: 1.2 }
.tip { fill: var(--line) }
.p { fill: var(--p) } .n { fill: var(--n) } .c { fill: var(--c) }
.letter { font-size: 10.5px; font-weight: 600; fill: var(--on) }
"""


def allowed(page: str) -> dict[str, list[str]]:
    """Return what each package may import besides `errors`, as docs/architecture.md says."""
    table = re.findall(r"^\| `([a-z.]+)` \|[^|]*\| ?([^|]*?) ?\|$", page, re.MULTILINE)
    return {name: re.findall(r"`([^`]+)`", others) for name, others in table if name != "errors"}


def svg(page: str) -> str:
    """Return the picture for this text of docs/architecture.md. Exits with a line about a package that has no place."""
    packages = allowed(page)
    if placeless := packages.keys() - PLACES.keys():
        sys.exit(f"make-docs: {', '.join(sorted(placeless))}: needs a place in scripts/docslib/packages.py")
    arrows = [
        (name, other) for name, others in packages.items() for other in others if not {name, other} & LETTERS.keys()
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title">',
        f'<title id="title">{TITLE}</title>',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
        f'<rect class="box" x="24" y="14" width="{WIDTH - 48}" height="{BOX}" rx="4"/>',
        f'<text x="{WIDTH // 2}" y="36"><tspan class="code">{ROOTS}</tspan> may import everything</text>',
        *(_arrow(name, other, arrows) for name, other in arrows),
        *(_box(name, others) for name, others in packages.items()),
        f'<text class="dim" x="{WIDTH // 2}" y="{HEIGHT - 16}">An arrow or a letter means: may import. '
        'All may import <tspan class="code">errors</tspan>.</text>',
        "</svg>",
        "",
    ]
    return "\n".join(parts)


def _box(name: str, others: list[str]) -> str:
    x, half, row = PLACES[name]
    y = TOP + row * ROW
    letters = [LETTERS[other] for other in others if other in LETTERS]
    parts = [
        f'<rect class="box" x="{x - half}" y="{y}" width="{2 * half}" height="{BOX}" rx="4"/>',
        f'<text class="code" x="{x - LETTER // 2 * len(letters)}" y="{y + 21}">{name}</text>',
        *(_letter(each, x + half - 12 - LETTER * n, y + BOX // 2) for n, each in enumerate(letters)),
    ]
    if name in LETTERS:
        parts.append(_letter(LETTERS[name], x - half, y + BOX // 2))
    return "".join(parts)


def _letter(letter: str, x: int, y: int) -> str:
    return f'<circle class="{letter}" cx="{x}" cy="{y}" r="7"/><text class="letter" x="{x}" y="{y + 4}">{letter}</text>'


def _arrow(name: str, other: str, arrows: list[tuple[str, str]]) -> str:
    """An arrow from the lower side of a box to the upper side of another."""
    x1 = _slot(name, other, [end for start, end in arrows if start == name])
    x2 = _slot(other, name, [start for start, end in arrows if end == other])
    y1, y2 = TOP + PLACES[name][2] * ROW + BOX, TOP + PLACES[other][2] * ROW
    bend = (y1 + y2) // 2
    return (
        f'<path class="arrow" d="M{x1} {y1}C{x1} {bend} {x2} {bend} {x2} {y2 - 7}"/>'
        f'<path class="tip" d="M{x2} {y2}l-4-8h8z"/>'
    )


def _slot(name: str, other: str, others: list[str]) -> int:
    """Return where at a box the arrow to or from another is: those at one side are in the order of the other boxes."""
    x, half, _ = PLACES[name]
    if len(others) == 1:
        return x
    spread = min(half - 12, SLOT * (len(others) - 1) // 2) if half < 80 else half - 12
    number = sorted(others, key=lambda each: PLACES[each][0]).index(other)
    return x - spread + 2 * spread * number // (len(others) - 1)
