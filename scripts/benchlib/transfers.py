"""Bytes in bulk: over ssh, over sftp, and through a bare tunnel with the CPU time that its two ends take.

CPU is that of a process's own clock, user and system, on an open tunnel, so a client's start-up isn't charged to it.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from benchlib import target
from benchlib.lab import Lab, end_group
from benchlib.links import PIECE, cpu_seconds, link, over_ssh, read_exactly, transfer_limit
from benchlib.peers import Peer


def startup(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    return {"startup": over_ssh(lab, lab.ssh(peer, "true"), 0)}


def ssh_download(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    return {"ssh-download": over_ssh(lab, lab.ssh(peer, f"head -c {size} /dev/zero"), size)}


def ssh_upload(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    source = subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE, start_new_session=True)
    assert source.stdout is not None
    try:
        with source.stdout:
            return {"ssh-upload": over_ssh(lab, lab.ssh(peer, "cat >/dev/null"), size, source.stdout.fileno())}
    finally:
        end_group(source)


def sftp_source(lab: Lab, size: int) -> Path:
    """Return a file of ``size`` bytes, without blocks on the disk."""
    path = lab.directory / f"source-{size}"
    path.touch()
    os.truncate(path, size)
    return path


def sftp_download(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    return {"sftp-download": over_ssh(lab, lab.sftp(peer, f"get {sftp_source(lab, size)} /dev/null\n"), size)}


def sftp_upload(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    return {"sftp-upload": over_ssh(lab, lab.sftp(peer, f"put {sftp_source(lab, size)} /dev/null\n"), size)}


def raw_transfer(lab: Lab, peer: Peer, size: int, order: str) -> tuple[float, float, float]:
    """Move ``size`` bytes. Return bytes per second, and CPU seconds per GB of the client and of the bridge."""
    bridge = lab.bridges.get(peer.name)
    with link(lab, peer, transfer_limit(size)) as (tunnel, _):
        client_before, bridge_before = cpu_seconds(tunnel.client), cpu_seconds(bridge)
        started = time.perf_counter()
        tunnel.write(f"{order} {size}\n".encode())
        if order == "source":
            read_exactly(tunnel.reading, size)
        else:
            zeros = memoryview(bytes(PIECE))
            for offset in range(0, size, PIECE):
                tunnel.write(zeros[: size - offset])
            read_exactly(tunnel.reading, len(target.DONE))
        took = time.perf_counter() - started
        client_cpu = cpu_seconds(tunnel.client) - client_before
        bridge_cpu = cpu_seconds(bridge) - bridge_before
    gigabytes = size / 1e9
    return size / took, client_cpu / gigabytes, bridge_cpu / gigabytes


def raw(order: str, direction: str, lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    rate, client_cpu, bridge_cpu = raw_transfer(lab, peer, size, order)
    found = {f"raw-{direction}load": rate}
    if peer.client is not None:
        found[f"{direction}-cpu-client"] = client_cpu
    if peer.bridge is not None:
        found[f"{direction}-cpu-bridge"] = bridge_cpu
    if peer.client is not None and peer.bridge is not None:
        found[f"{direction}-cpu"] = client_cpu + bridge_cpu
    return found


def raw_download(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    return raw("source", "down", lab, peer, size)


def raw_upload(lab: Lab, peer: Peer, size: int) -> dict[str, float]:
    return raw("sink", "up", lab, peer, size)
