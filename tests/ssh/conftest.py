"""Fixtures with an embedded SSH server, and routes to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.tunnels import EMBEDDED_PAIR, Bridge, Route, start_embedded

StartEmbedded = Callable[..., Route]


@pytest.fixture
def embedded(bed: Bed, sshd: Sshd) -> StartEmbedded:
    """Start an embedded SSH server for one test, with further options of ``serve``."""

    def start(*options: str, client_options: tuple[str, ...] = ()) -> Route:
        return route_to(bed, sshd, start_embedded(bed, sshd, *options), *client_options)

    return start


@pytest.fixture(scope="session")
def shared_embedded(shared_bed: Bed, sshd: Sshd) -> Route:
    return route_to(shared_bed, sshd, start_embedded(shared_bed, sshd))


def route_to(bed: Bed, sshd: Sshd, bridge: Bridge, *client_options: str) -> Route:
    command = EMBEDDED_PAIR.command(bridge.url)
    name = f"ssh_config.{bridge.url.rpartition(':')[2]}"
    return Route(sshd.write_client_config(bed.folder / name, (*command[:-1], *client_options, command[-1])), bridge)


def write_keys(path: Path, *lines: str, mode: int = 0o600) -> Path:
    """Write a file of authorized keys."""
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(mode)
    return path
