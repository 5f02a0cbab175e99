"""The measured costs of tunnels, and how much they may grow: a regression of a quarter fails, noise does not.

When you make something cheaper, write the new count here; each test prints its count (pytest -rP tests/costs).
"""

from __future__ import annotations

from typing import NamedTuple

SLACK = 1.25


class Transfer(NamedTuple):
    """System calls per MB that one end moves, and bytes that its system calls copy per byte that it moves."""

    calls: float
    copied: float


# By kind of tunnel, direction and end. What the ends may copy of a download is far more than they do on an idle machine
# (0.1): a client does not splice frames that have come in part only, and a bridge splices only while its target is
# busy. Without splicing it would be 2.
TRANSFERS = {
    ("ours", "down", "client"): Transfer(18.6, 1.0),
    ("ours", "down", "bridge"): Transfer(17.5, 0.5),
    ("ours", "up", "client"): Transfer(18.4, 2.0),
    ("ours", "up", "bridge"): Transfer(15.2, 2.0),
    ("ours-plain", "down", "client"): Transfer(16.0, 1.0),
    ("ours-plain", "down", "bridge"): Transfer(13.5, 0.5),
    ("ours-plain", "up", "client"): Transfer(16.8, 2.0),
    ("ours-plain", "up", "bridge"): Transfer(15.5, 2.0),
}
# Calls of functions, Python's and C's, for one byte that goes there and comes back; by kind and end.
TURN_CALLS = {
    ("ours", "client"): 148.0,
    ("ours", "bridge"): 179.0,
    ("ours-plain", "client"): 108.0,
    ("ours-plain", "bridge"): 137.0,
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
IDLE_TUNNEL = {"ours": 7000.0, "ours-plain": 5200.0}
# Calls of the system for one frame of 64 KiB, acks included; these do not vary.
FRAME_CALLS = {
    ("ours", "down", "client"): 4.25,
    ("ours", "down", "bridge"): 4.25,
    ("ours", "up", "client"): 3.125,
    ("ours", "up", "bridge"): 2.125,
    ("ours-plain", "down", "client"): 4.0,
    ("ours-plain", "down", "bridge"): 3.0,
    ("ours-plain", "up", "client"): 3.0,
    ("ours-plain", "up", "bridge"): 2.0,
}
