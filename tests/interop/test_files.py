"""Copying files: scp, sftp, rsync and git through our two ends and through each of them paired with websocat."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import checksum
from tests.bed.tunnels import Route


def checksums(folder: Path) -> dict[str, str]:
    return {path.name: checksum(path.read_bytes()) for path in folder.iterdir()}


@pytest.mark.parametrize("protocol", ["-s", "-O"], ids=["sftp", "legacy"])
def test_scp_copies_files_of_all_sizes_both_ways(
    bed: Bed, route: Route, samples: list[Path], far: Path, near: Path, protocol: str
) -> None:
    scp = ("scp", "-F", str(route.config), protocol, "-q")
    bed.check(*scp, *map(str, samples), f"box:{far}/")
    assert checksums(far) == checksums(samples[0].parent)
    bed.check(*scp, *(f"box:{far}/{sample.name}" for sample in samples), str(near))
    assert checksums(near) == checksums(samples[0].parent)


def test_sftp_copies_files_of_all_sizes_both_ways(
    bed: Bed, route: Route, samples: list[Path], far: Path, near: Path
) -> None:
    commands = [f"put {sample} {far}/{sample.name}" for sample in samples]
    commands += [f"get {far}/{sample.name} {near}/{sample.name}" for sample in samples]
    bed.check("sftp", "-F", str(route.config), "-b", "-", "box", stdin="\n".join(commands).encode())
    assert checksums(far) == checksums(near) == checksums(samples[0].parent)


def test_rsync_copies_and_then_updates_both_ways(
    bed: Bed, route: Route, samples: list[Path], far: Path, near: Path
) -> None:
    rsync = ("rsync", "--archive", "--checksum", "-e", shlex.join(("ssh", "-F", str(route.config))))
    bed.check(*rsync, f"{samples[0].parent}/", f"box:{far}")
    assert checksums(far) == checksums(samples[0].parent)
    with (far / samples[-1].name).open("r+b") as file:  # the delta algorithm talks both ways at once
        file.seek(50_000_000)
        file.write(b"changed in the middle")
    bed.check(*rsync, f"{samples[0].parent}/", f"box:{far}")
    bed.check(*rsync, f"box:{far}/", str(near))
    assert checksums(near) == checksums(samples[0].parent)


def test_git_clones_and_pushes(bed: Bed, route: Route, samples: list[Path], far: Path, near: Path) -> None:
    def git(folder: Path, *arguments: str) -> str:
        identity = ("-c", "user.name=Bed", "-c", "user.email=bed@localhost", "-c", "gc.auto=0")
        ssh = {"GIT_SSH_COMMAND": shlex.join(("ssh", "-F", str(route.config)))}
        return bed.check("git", "-C", str(folder), *identity, *arguments, env=ssh).text

    def commit(size: int, name: str) -> None:
        (near / "work" / name).write_bytes(samples[-1].read_bytes()[:size])
        git(near / "work", "add", name)
        git(near / "work", "commit", "-q", "-m", f"Add {name}")

    git(far, "init", "-q", "--bare", "-b", "main", "origin")
    git(near, "clone", "-q", f"box:{far}/origin", "work")
    git(near / "work", "checkout", "-q", "-B", "main")
    commit(5_000_000, "large")
    git(near / "work", "push", "-q", "-u", "origin", "main")
    commit(1, "small")
    git(near / "work", "push", "-q")
    git(near, "clone", "-q", f"box:{far}/origin", "again")
    git(near / "again", "fsck", "--strict")
    assert git(near / "again", "rev-parse", "HEAD") == git(near / "work", "rev-parse", "HEAD")
    assert (near / "again" / "large").read_bytes() == (near / "work" / "large").read_bytes()
