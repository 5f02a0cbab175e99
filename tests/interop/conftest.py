"""SSH servers that clients other than OpenSSH's meet behind our two ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OWN_PAIR, Bridge, Route, start_bridge, start_embedded


def make_route(bed: Bed, sshd: Sshd, bridge: Bridge, name: str) -> Route:
    return Route(sshd.write_client_config(bed.folder / name, OWN_PAIR.command(bridge.url)), bridge)


@pytest.fixture(scope="session")
def sshd_route(shared_bed: Bed, sshd: Sshd) -> Route:
    """The way to an sshd behind our bridge."""
    return make_route(shared_bed, sshd, start_bridge(shared_bed, "ours", sshd.port), "ssh_config.clients-sshd")


@pytest.fixture(scope="session")
def embedded_route(shared_bed: Bed, sshd: Sshd) -> Route:
    """The way to the SSH server that is in our bridge."""
    return make_route(shared_bed, sshd, start_embedded(shared_bed, sshd), "ssh_config.clients-embedded")


@pytest.fixture(scope="session", params=("sshd", "embedded"))
def server(request: pytest.FixtureRequest) -> Route:
    """Both SSH servers, in turn."""
    route = request.getfixturevalue(f"{request.param}_route")
    assert isinstance(route, Route)
    return route


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
