"""The rows of the report: the title of each number that a measure gives, its unit, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """One row of the report.

    Attributes:
        scale: What a stored number (seconds, bytes per second, bytes) is divided by to be shown in `unit`.
        higher: Whether more is better.
        against: The peer that ratios are taken to; None for no ratio.
    """

    key: str
    title: str
    unit: str
    scale: float = 1.0
    digits: int = 2
    higher: bool = False
    against: str | None = "direct"


def _apart(key: str, title: str, unit: str, scale: float = 1.0, digits: int = 2, *, higher: bool = False) -> Quantity:
    """A row without ratios."""
    return Quantity(key, title, unit, scale, digits, higher, against=None)


QUANTITIES = (
    Quantity("startup", "`ssh host true`", "ms", 1e-3, 0),
    Quantity("request", "client start until its upgrade request (direct: a bare interpreter)", "ms", 1e-3, 1),
    Quantity("request-cpu", "CPU of the client until then", "ms", 1e-3, 1),
    Quantity("ssh-download", "ssh download", "s"),
    Quantity("ssh-upload", "ssh upload", "s"),
    Quantity("sftp-download", "sftp download", "s"),
    Quantity("sftp-upload", "sftp upload", "s"),
    Quantity("raw-download", "raw TCP download", "MB/s", 1e6, 0, higher=True),
    Quantity("raw-upload", "raw TCP upload", "MB/s", 1e6, 0, higher=True),
    _apart("down-cpu", "CPU of both ends per GB downloaded", "s"),
    _apart("down-cpu-client", "… of the client", "s"),
    _apart("down-cpu-bridge", "… of the bridge", "s"),
    _apart("up-cpu", "CPU of both ends per GB uploaded", "s"),
    _apart("up-cpu-client", "… of the client", "s"),
    _apart("up-cpu-bridge", "… of the bridge", "s"),
    _apart("open", "client start until the target's first byte", "ms", 1e-3, 1),
    _apart("open-cpu", "CPU of the client until then", "ms", 1e-3, 1),
    Quantity("rtt-p50", "round trip of 1 byte, median", "µs", 1e-6, 0),
    Quantity("rtt-p99", "round trip of 1 byte, 99th percentile", "µs", 1e-6, 0),
    _apart("key-alone", "keystroke without other tunnels, 99th percentile", "µs", 1e-6, 0),
    _apart("key-crowded", "keystroke beside 20 saturated tunnels, 99th percentile", "µs", 1e-6, 0),
    _apart("key-ratio", "… ratio of the two", "times", 1, 1),
    _apart("fair-down", "500 downloads: fastest to slowest", "times", 1, 2),
    _apart("busy-down", "… in total", "MB/s", 1e6, 0, higher=True),
    _apart("fair-up", "500 uploads: fastest to slowest", "times", 1, 2),
    _apart("busy-up", "… in total", "MB/s", 1e6, 0, higher=True),
    _apart("idle-client", "memory of an idle client (PSS)", "MB", 1e6, 1),
    _apart("idle-bridge", "memory of the bridge per idle tunnel (PSS)", "KiB", 1024, 1),
    _apart("open-rate", "tunnels opened per second", "1/s", 1, 0, higher=True),
    _apart("open-cpu-bridge", "CPU of the bridge per tunnel opened", "µs", 1e-6, 0),
    Quantity("pty-create", "terminal with E2B's SDK: create", "ms", 1e-3, 2, against="envd"),
    Quantity("pty-echo", "terminal with E2B's SDK: echo", "ms", 1e-3, 2, against="envd"),
    Quantity("pty-output", "terminal with E2B's SDK: 20 MB of output", "s", 1, 2, against="envd"),
    Quantity("pty-create-own", "terminal with this project's client: create", "ms", 1e-3, 2, against="envd"),
    Quantity("pty-echo-own", "terminal with this project's client: echo", "ms", 1e-3, 2, against="envd"),
    Quantity("pty-output-own", "terminal with this project's client: 20 MB of output", "s", 1, 2, against="envd"),
)
ROWS = {quantity.key: quantity for quantity in QUANTITIES}
