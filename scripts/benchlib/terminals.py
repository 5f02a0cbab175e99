"""Terminals: our service and E2B's own daemon (``envd``, if it is on the PATH), by E2B's Python SDK and by our client.

    python -m benchlib.terminals --rounds 7            # from scripts/; --against DIR adds our service as it is in DIR

Services take turns within each round, so noise hits them alike. One round of a pair creates `CREATES` terminals, sends
`TRIPS` single bytes through ``cat`` on a raw terminal, and reads `OUTPUT` bytes that a program prints at once.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from benchlib.lab import BenchError
from benchlib.peers import ROOT, ours, program
from tests.bed.processes import Bed, free_port, wait_for_port

CREATES = 20
TRIPS = 200
OUTPUT = 20_000_000  # bytes
READY_LIMIT = 15.0  # seconds
_READY, _END = b"<ready>", b"<end>"
# The markers are spelled with \074, so that the echo of the command line is no marker.
_RAW = rb"PS1=; stty raw -echo; printf '\074ready>'; exec cat" + b"\n"
_PRINT = b"PS1=; stty raw -echo; yes 0123456789 | head -c %d; printf '\\074end>'\n" % OUTPUT
# No home, so that no shell runs the start-up files of whoever measures.
_ENVIRONMENT = {"HOME": "/dev/null"}
_PAUSE = 0.05  # seconds for a shell to start, or to end, before the next thing is timed


class Terminal(Protocol):
    """A terminal with bash, as one of the clients shows it."""

    def send(self, data: bytes) -> None: ...

    def read(self) -> bytes: ...

    def kill(self) -> None: ...


class Client(Protocol):
    """A client of one service."""

    def create(self) -> Terminal: ...


# --- Services


@contextmanager
def our_service(bed: Bed, checkout: Path | None = None) -> Iterator[str]:
    """Run our service, from another ``checkout`` if one is given; yield its URL."""
    command = [*ours(), "serve", "--listen", "none", "--pty", "127.0.0.1:0"]
    env = {}
    if checkout is not None:
        command[: len(ours())] = [sys.executable, "-P", "-m", "tunnel"]
        env = {"PYTHONPATH": str(checkout)}
    process = bed.start(*command, env=env)
    try:
        yield process.wait_for_line(r"(http://127\.0\.0\.1:\d+)", READY_LIMIT)[1]
    except AssertionError as error:
        raise BenchError(f"our terminal service: {error}") from error
    finally:
        process.end()


@contextmanager
def e2b_service(bed: Bed, envd: str) -> Iterator[str]:
    """Run E2B's daemon; yield its URL."""
    port = free_port()
    process = bed.start(envd, "-isnotfc", "-no-cgroups", "-port", str(port))
    try:
        wait_for_port(port, process, READY_LIMIT)
        yield f"http://127.0.0.1:{port}"
    except AssertionError as error:
        raise BenchError(f"E2B's daemon: {error}") from error
    finally:
        process.end()


# --- Clients


class _SdkTerminal:
    def __init__(self, sandbox: Any, handle: Any) -> None:
        self._sandbox, self._handle = sandbox, handle
        self._events = iter(handle)

    def send(self, data: bytes) -> None:
        self._sandbox.pty.send_stdin(self._handle.pid, data)

    def read(self) -> bytes:
        data: bytes = next(self._events)[2] or b""
        return data

    def kill(self) -> None:
        self._handle.kill()
        self._handle.disconnect()


class _Sdk:
    def __init__(self, url: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the SDK's own dependencies say while they are imported
            import e2b
        self._size = e2b.PtySize(rows=24, cols=80)
        self._sandbox = e2b.Sandbox.create(debug=True, sandbox_url=url)

    def create(self) -> Terminal:
        return _SdkTerminal(self._sandbox, self._sandbox.pty.create(self._size, timeout=0, envs=_ENVIRONMENT))


class _OurTerminal:
    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal
        self._output = iter(terminal)

    def send(self, data: bytes) -> None:
        self._terminal.send_stdin(data)

    def read(self) -> bytes:
        data: bytes = next(self._output)
        return data

    def kill(self) -> None:
        self._terminal.kill()
        self._terminal.disconnect()


class _Ours:
    def __init__(self, url: str) -> None:
        import tunnel

        self._sandbox = tunnel.Sandbox(url)

    def create(self) -> Terminal:
        return _OurTerminal(self._sandbox.pty.create(cols=80, rows=24, timeout=0, envs=_ENVIRONMENT))


CLIENTS: dict[str, Callable[[str], Client]] = {"e2b": _Sdk, "ours": _Ours}


# --- Measures: each returns samples in seconds


def _wait_for(terminal: Terminal, marker: bytes) -> None:
    seen = b""
    while marker not in seen:
        seen = seen[-len(marker) :] + terminal.read()


def create(client: Client, count: int = CREATES) -> list[float]:
    """From the call until the service has told the pid."""
    samples = []
    for _ in range(count):
        started = time.perf_counter()
        terminal = client.create()
        samples.append(time.perf_counter() - started)
        time.sleep(_PAUSE)
        terminal.kill()
        time.sleep(_PAUSE)
    return samples


def echo(client: Client, count: int = TRIPS) -> list[float]:
    """From sending a byte until it has come back, and the call that sent it has been answered."""
    terminal = client.create()
    samples = []
    try:
        terminal.send(_RAW)
        _wait_for(terminal, _READY)
        time.sleep(_PAUSE)
        for _ in range(count):
            started = time.perf_counter()
            terminal.send(b"x")
            if terminal.read() != b"x":
                raise BenchError("the echo is not what was sent")
            samples.append(time.perf_counter() - started)
    finally:
        terminal.kill()
    return samples


def output(client: Client) -> list[float]:
    """From sending the command until all of its output has come."""
    terminal = client.create()
    try:
        time.sleep(4 * _PAUSE)  # for bash's prompt
        started = time.perf_counter()
        terminal.send(_PRINT)
        _wait_for(terminal, _END)
        return [time.perf_counter() - started]
    finally:
        terminal.kill()


MEASURES: dict[str, Callable[[Client], list[float]]] = {"create": create, "echo": echo, "output": output}
Samples = dict[str, dict[str, dict[str, list[float]]]]  # measure -> client -> service -> seconds


def measure(services: dict[str, str], clients: list[str], measures: list[str], rounds: int) -> Samples:
    """Run everything ``rounds`` times, with services in turns; ``services`` are names and URLs."""
    samples: Samples = {
        name: {client: {service: [] for service in services} for client in clients} for name in measures
    }
    open_clients = {(kind, name): CLIENTS[kind](url) for kind in clients for name, url in services.items()}
    order = list(services)
    for turn in range(-1, rounds):  # the first turn, uncounted, warms up
        for name in measures:
            for kind in clients:
                for service in order:
                    gc.collect()
                    found = MEASURES[name](open_clients[kind, service])
                    if turn >= 0:
                        samples[name][kind][service] += found
        order = order[1:] + order[:1]
    return samples


def lines(samples: Samples, base: str) -> list[str]:
    """A table: medians and 99th percentiles in ms, and both as multiples of the service ``base``'s."""
    rows = [f"{'ms':24}{'median':>9}{'p99':>9}{'n':>6}{'ratio':>8}{'of p99':>8}"]
    for name, by_client in samples.items():
        for client, by_service in by_client.items():
            for service, values in by_service.items():
                values, compared = sorted(values), sorted(by_service.get(base, values))
                median, p99 = statistics.median(values), values[len(values) * 99 // 100]
                ratios = (median / statistics.median(compared), p99 / compared[len(compared) * 99 // 100])
                rows.append(
                    f"{name + ' by ' + client + ', ' + service:24}{median * 1e3:9.2f}{p99 * 1e3:9.2f}{len(values):6}"
                    + "".join(f"{ratio:8.2f}" for ratio in ratios)
                )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=MEASURES, help="this measure only (repeatable)")
    parser.add_argument("--client", action="append", choices=CLIENTS, help="this client only (repeatable)")
    parser.add_argument("--envd", help="E2B's daemon (default: from the PATH)")
    parser.add_argument("--against", type=Path, metavar="DIR", help="also our service as it is in this checkout")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    envd = options.envd or program("envd")
    clients, measures = options.client or list(CLIENTS), options.only or list(MEASURES)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Bed(Path(folder)) as bed, ExitStack() as stack:
        endpoints: dict[str, AbstractContextManager[str]] = {"ours": our_service(bed, ROOT)}
        if options.against:
            endpoints["other"] = our_service(bed, options.against)
        if envd:
            endpoints["envd"] = e2b_service(bed, envd)
        services = {name: stack.enter_context(endpoint) for name, endpoint in endpoints.items()}
        samples = measure(services, clients, measures, options.rounds)
    print("\n".join(lines(samples, "envd" if envd else "other")))
    if options.json:
        options.json.write_text(json.dumps(samples) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
