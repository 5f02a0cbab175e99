"""What tunnels were counted to cost, and how much more they may: a step back of a quarter fails, and noise does not.

Whoever makes something cheaper writes the new count here; each test prints what it counts (pytest -rP tests/costs).
"""

from __future__ import annotations

from typing import NamedTuple

SLACK = 1.25


class Transfer(NamedTuple):
    """System calls per MB that one end moves, and bytes that its system calls copy per byte that it moves."""

    calls: float
    copied: float


# By kind of tunnel, direction and end.
TRANSFERS = {
    ("ours", "down", "client"): Transfer(14.3, 2.0),
    ("ours", "down", "bridge"): Transfer(15.5, 2.0),
    ("ours", "up", "client"): Transfer(18.4, 2.0),
    ("ours", "up", "bridge"): Transfer(15.2, 2.0),
    ("ours-plain", "down", "client"): Transfer(14.1, 2.0),
    ("ours-plain", "down", "bridge"): Transfer(13.5, 2.0),
    ("ours-plain", "up", "client"): Transfer(16.8, 2.0),
    ("ours-plain", "up", "bridge"): Transfer(15.5, 2.0),
}
# Calls of functions, Python's and C's, for one byte that goes there and comes back; by kind and end.
TURN_CALLS = {
    ("ours", "client"): 231.0,
    ("ours", "bridge"): 272.0,
    ("ours-plain", "client"): 148.0,
    ("ours-plain", "bridge"): 165.0,
}
# Bytes of new memory for each byte that is moved in bulk; by kind, who sends, and what is done with it.
NEW_MEMORY = {
    ("ours", "client", "sends"): 0.6,
    ("ours", "client", "receives"): 1.01,
    ("ours", "bridge", "sends"): 0.01,
    ("ours", "bridge", "receives"): 0.01,
    ("ours-plain", "client", "sends"): 1.0,
    ("ours-plain", "client", "receives"): 1.01,
    ("ours-plain", "bridge", "sends"): 0.01,
    ("ours-plain", "bridge", "receives"): 0.01,
}
# Bytes of the bridge's memory for each of 500 idle tunnels.
IDLE_TUNNEL = {"ours": 9400.0, "ours-plain": 5800.0}
