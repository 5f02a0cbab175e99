"""SSH servers behind our client and bridge, for clients other than OpenSSH's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.bed.earlier import BEFORE_EDGES, unpack
from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.tunnels import EMBEDDED_PAIR, OWN_PAIR, Route
from tests.conftest import make_route


@pytest.fixture(scope="session")
def embedded_route(shared_bed: Bed, sshd: Sshd) -> Route:
    """The way to the SSH server that is in our bridge."""
    return make_route(shared_bed, sshd, EMBEDDED_PAIR)


@pytest.fixture(scope="session", params=("own_route", "embedded_route"), ids=("sshd", "embedded"))
def server(request: pytest.FixtureRequest) -> Route:
    """Both SSH servers, in turn."""
    route = request.getfixturevalue(request.param)
    assert isinstance(route, Route)
    return route


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """The command that starts our program as it was before it supported edges that terminate the WebSocket."""
    return unpack(BEFORE_EDGES, tmp_path_factory.mktemp("earlier"))


@pytest.fixture
def far(tmp_path: Path) -> Path:
    """Where files of the other side are: a folder on the same machine, which ssh sees as a remote one."""
    folder = tmp_path / "far"
    folder.mkdir()
    return folder


@pytest.fixture
def near(tmp_path: Path) -> Path:
    folder = tmp_path / "near"
    folder.mkdir()
    return folder


@pytest.fixture
def proxy_command(server: Route) -> tuple[str, ...]:
    """What an SSH client starts to get to ``server``."""
    return OWN_PAIR.command(server.bridge.url)


@pytest.fixture
def edge(bed: Bed) -> Callable[..., str]:
    """Start an edge in front of a bridge; returns its URL."""

    def start_edge(bridge: str, *options: str) -> str:
        _, port = bed.start_on_free_port(
            lambda port: (sys.executable, "-m", "tests.bed.websocket_edge", bridge, str(port), *options)
        )
        return f"ws://127.0.0.1:{port}"

    return start_edge
