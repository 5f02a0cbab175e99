"""Runs the command with every call of a function counted, and leaves the number in a file when it ends.

profiled.py FILE ARGUMENT…
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType


def main() -> None:
    from tunnel.cli.main import main as command

    path = Path(sys.argv.pop(1))
    calls = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")
        if event == "c_call" and argument is os._exit:
            path.write_text(str(calls))

    sys.setprofile(note)
    try:
        status = command()
    finally:
        sys.setprofile(None)
        path.write_text(str(calls))
    sys.exit(status)


if __name__ == "__main__":
    main()
