"""The rows about terminals: our service and E2B's daemon, each by E2B's SDK and by our own client."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import statistics
from contextlib import ExitStack
from pathlib import Path

from benchlib.lab import BenchError, Lab
from benchlib.links import deadline
from benchlib.peers import Peer, program
from benchlib.terminals import CLIENTS, create, e2b_service, echo, our_service, output

LIMIT = 180.0  # seconds
E2B_FILES = Path("/run/e2b")  # what E2B's daemon leaves behind


def terminals(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    """Start a service and use it with each client; medians, in seconds."""
    with ExitStack() as life:
        if peer.bridge:
            url = life.enter_context(our_service(lab.bed))
        else:
            if not E2B_FILES.exists():
                life.callback(shutil.rmtree, E2B_FILES, ignore_errors=True)
            url = life.enter_context(e2b_service(lab.bed, program("envd") or "envd"))
        service = lab.bed.processes[-1]
        with deadline(LIMIT, lambda: os.killpg(service.pid, signal.SIGKILL)):
            try:
                return _found(url)
            except Exception as error:  # whatever the SDK and what it depends on raise
                raise BenchError(f"{type(error).__name__}: {error}") from error


def _found(url: str) -> dict[str, float]:
    found = {}
    for kind, ending in (("e2b", ""), ("ours", "-own")):
        client = CLIENTS[kind](url)
        create(client, 1)  # warms up
        gc.collect()
        for name, measured in (("create", create), ("echo", echo), ("output", output)):
            found[f"pty-{name}{ending}"] = statistics.median(measured(client))
    return found
