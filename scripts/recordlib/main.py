"""Records an ssh session whose connection is cut and resumed, as an animated SVG.

    scripts/record [FILE]

FILE is docs/pictures/cut.svg by default. The run is real: ssh in a terminal, our client as its ProxyCommand, a TCP
proxy that cuts, our bridge, and an sshd with throw-away keys, all on this machine; nothing is left behind. It takes
half a minute, and needs ssh, sshd and .venv, which scripts/test installs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from recordlib.film import svg
from recordlib.scene import record

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    words = sys.argv[1:]
    if len(words) > 1 or any(word.startswith("-") for word in words):
        print((__doc__ or "").strip(), file=sys.stderr)
        return 0 if words in (["--help"], ["-h"]) else 2
    file = Path(*words) if words else ROOT / "docs" / "pictures" / "cut.svg"
    with tempfile.TemporaryDirectory(prefix="record-") as folder:
        recording = record(Path(folder))
    file.write_text(svg(recording))
    return 0
