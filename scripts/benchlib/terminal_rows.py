"""The rows about terminals: our service and E2B's daemon, each by E2B's SDK and by our own client."""

from __future__ import annotations

import gc
import os
import signal
import statistics

from benchlib.lab import BenchError, Lab
from benchlib.links import deadline
from benchlib.peers import Peer, program
from benchlib.terminals import CLIENTS, create, e2b_service, echo, our_service, output

LIMIT = 180.0  # seconds


def terminals(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    """Start a service and use it with each client; medians, in seconds."""
    with our_service(lab.bed) if peer.bridge else e2b_service(lab.bed, program("envd") or "envd") as url:
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
