"""Which modules are mutated, and the tests that have to notice: those of the module and of what it is a part of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib.interpreter import ROOT

PATHS = ("tunnel/protocol", "tunnel/net", "tunnel/server/session_registry.py")

# Only restarts of a real bridge, in processes of their own, test it: tests/restart.
_LEFT_OUT = {"tunnel/protocol/capture.py"}
_TESTS = { # beside test_NAME.py of the module's package
    "protocol/beginning": ("protocol/test_plain_directions",),
    "protocol/codec": ("protocol/test_plain_directions",),
    "protocol/control": ("protocol/test_numbers", "protocol/test_resumable_stream"),
    "protocol/frames": ("net/test_splice",),
    "protocol/keepalive": ("protocol/test_plain_directions", "protocol/test_stream"),
    "protocol/liveness": ("protocol/test_resumable_stream",),
    "protocol/masked_replay": ("protocol/test_sender",),
    "protocol/outbox": ("protocol/test_plain_directions", "protocol/test_masked_replay"),
    "protocol/plain_stream": (
        "protocol/test_plain_directions", "protocol/test_stream", "protocol/test_beginning",
        "protocol/test_frame_budget", "protocol/test_stream_contract", "net/test_splice",
    ),
    "protocol/read_buffers": ("protocol/test_stream",),
    "protocol/receiver": ("protocol/test_resumable_stream", "net/test_splice"),
    "protocol/replay": ("protocol/test_replay_chunks", "protocol/test_message_size", "protocol/test_sender"),
    "protocol/resumable_stream": (
        "protocol/test_frame_budget", "protocol/test_stream_contract", "protocol/test_replay",
        "protocol/test_message_size", "net/test_splice",
    ),
    "protocol/sender": ("protocol/test_resumable_stream",),
    "protocol/session_connection": ("protocol/test_resumable_stream", "protocol/test_frame_budget"),
    "protocol/session_state": ("protocol/test_resumable_stream", "protocol/test_frame_budget"),
    "protocol/upgrade": ("protocol/test_numbers",),
    "server/session_registry": ("server/test_session_waits",),
    "net/async_sockets": ("net/test_time_limit",),
    "net/channel": ("net/test_channel_contract",),
    "net/tls": ("net/test_channel_contract", "net/test_channel"),
}  # fmt: skip


def modules_of(paths: Sequence[str]) -> list[str]:
    """Return the modules that ``paths`` are or have, relative to the repository.

    Raises ValueError for a path that is none of ``tunnel``, or has no module to change.
    """
    modules: list[str] = []
    for path in paths:
        full = (ROOT / path).resolve()
        files: list[Path] = []
        if full.is_relative_to(ROOT / "tunnel"):
            files = sorted(full.rglob("*.py")) if full.is_dir() else [full]
        found = [
            str(file.relative_to(ROOT))
            for file in files
            if file.is_file() and file.suffix == ".py" and file.name != "__init__.py"
        ]
        chosen = [module for module in found if module not in _LEFT_OUT]
        if not chosen:
            raise ValueError(f"{path}: no module of tunnel that can be changed is there")
        modules += chosen
    return modules


def files_with_tests(module: str) -> list[str]:
    """Return the files with the tests of ``module``."""
    package, _, name = module.removeprefix("tunnel/").removesuffix(".py").rpartition("/")
    names = [f"{package}/test_{name}", *_TESTS.get(f"{package}/{name}", ())]
    return [path for each in names if (ROOT / (path := f"tests/{each}.py")).exists()]
