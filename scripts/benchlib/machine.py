"""The machine of a run: its hardware, the versions of programs, and how quiet it was."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchlib.peers import RIVALS, program
from benchlib.quantities import QUANTITIES
from benchlib.results import Results

QUIET_SPREAD, QUIET_LOAD, QUIET_STEAL = 0.05, 0.5, 0.01


def told_by(argv: list[str]) -> str:
    """The first line that a program prints (on either stream) when asked for its version."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({type(error).__name__})"
    return ((done.stdout + done.stderr).decode(errors="replace").splitlines() or ["unknown"])[0].strip()


def processor() -> str:
    """The processor's own name where the kernel tells it, else the machine's architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def facts(*, tls: bool) -> dict[str, str]:
    """What of this machine influences the figures. Versions and numbers only, no paths."""
    try:
        release = version("wstunnel-py")
    except PackageNotFoundError:
        release = "this checkout"
    found = {
        "cores": f"{len(os.sched_getaffinity(0))} ({processor()})",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "OpenSSH": told_by(["ssh", "-V"]).partition(",")[0],
        "ours": release,
    }
    for name in RIVALS:
        path = program(name)
        found[name] = told_by([path, "--version"]).rpartition(" ")[2] if path else "not on the PATH, so left out"
    found["websockets"] = version("websockets")
    found["load before"] = load()
    if tls:
        found["TLS edge"] = told_by(["nginx", "-v"])
    return found


def processor_time() -> tuple[int, int]:
    """Return the clock ticks of all processors since the machine started, and those that its host took away."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    ticks = [int(word) for word in line.split()[1:9]]  # user nice system idle iowait irq softirq steal
    return sum(ticks), ticks[7]


def stolen(before: tuple[int, int]) -> float:
    """Return the share of the processors' time that the machine's host took away since ``before``."""
    total, steal = processor_time()
    return (steal - before[1]) / max(1, total - before[0])


def noise(results: Results, stolen_share: float, load_before: str) -> str:
    """Return how noisy the machine was, in a sentence: spread of direct's rounds, load before the run, steal."""
    spreads = [
        (spread, quantity.title.replace("`", ""))
        for quantity in QUANTITIES
        if (spread := results.spread(quantity, "direct")) is not None and not quantity.key.endswith("p99")
    ]
    worst, title = max(spreads, default=(0.0, ""))
    busy = float(load_before.split()[0])
    said = [f"the interquartile range of direct's rounds is at most {worst:.0%} ({title})"] if spreads else []
    said += [f"the load before the run was {busy:.2f}", f"the host took {stolen_share:.1%} of the processor time"]
    is_quiet = worst <= QUIET_SPREAD and busy <= QUIET_LOAD and stolen_share <= QUIET_STEAL
    return ("quiet: " if is_quiet and spreads else "noisy: ") + ", ".join(said)
