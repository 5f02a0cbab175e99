"""A picture of a run: for each quantity that is compared with another peer, one bar per peer, as an SVG."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchlib.quantities import QUANTITIES
from benchlib.results import Results

WIDTH, LABEL, BAR, GAP, TITLE = 760, 120, 14, 3, 26  # pixels
COLOURS = {"direct": "#9a9a9a", "envd": "#9a9a9a"}
OURS, THEIRS = "#2b6cb0", "#c9803c"
FULL = 4.0  # the ratio at which a bar is cut off


def svg(results: Results, peers: Sequence[str]) -> str:
    """Return the picture; bars are ratios of medians, cut off at 4, with whiskers from the best to the worst round."""
    parts: list[str] = []
    y = 10
    scale = (WIDTH - LABEL - 80) / FULL
    for quantity in QUANTITIES:
        base = results.median(quantity, quantity.against) if quantity.against else None
        names = [name for name in dict.fromkeys((*peers, "envd")) if results.values(quantity, name)]
        if not base or len(names) < 2:
            continue
        y += TITLE
        title = f"{quantity.title.replace('`', '')}: times {quantity.against}'s (shorter is better)"
        parts.append(f'<text x="4" y="{y - 8}" font-weight="bold">{escape(title)}</text>')
        for name in names:
            values = results.values(quantity, name)
            ratios = sorted(base / value if quantity.higher else value / base for value in values if value)
            middle = results.ratio(quantity, name, str(quantity.against)) or 0.0
            length = min(middle, FULL) * scale
            colour = COLOURS.get(name, OURS if name.startswith(("ours", "embedded")) else THEIRS)
            low, high = (LABEL + min(value, FULL) * scale for value in (ratios[0], ratios[-1]))
            parts += [
                f'<text x="{LABEL - 6}" y="{y + BAR - 3}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>',
                f'<path d="M{low:.1f} {y + BAR / 2}H{high:.1f}" stroke="#222"/>',
                f'<text x="{max(LABEL + length, high) + 5:.1f}" y="{y + BAR - 3}">{middle:.2f}</text>',
            ]
            y += BAR + GAP
    paper = '<rect width="100%" height="100%" fill="#fff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="11">', paper, *parts, "</svg>", ""])
