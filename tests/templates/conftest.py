"""Fixtures for the tests of templates: three sandboxes, each with its own sshd and bridge, and gateways."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS, Bridge, start_bridge
from tests.server.clients import port_of
from tests.templates.gateways import GATEWAYS, Certificates, Gateway

IDS = ("one", "two", "three")
StartGateway = Callable[..., Gateway]


@pytest.fixture(autouse=True)
def shells_of_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that shells under test read first is not there in a container or another root."""
    monkeypatch.delenv("BASH_ENV", raising=False)


@dataclass(frozen=True)
class Sandbox:
    """A sandbox as a gateway sees it: an sshd, and the bridge that leads to it."""

    id: str
    sshd: Sshd
    bridge: Bridge

    @property
    def address(self) -> str:
        """Where its bridge listens."""
        return f"127.0.0.1:{port_of(self.bridge.url)}"

    def ssh_config(self, bed: Bed, gateway: Gateway) -> Path:
        """Write an ssh_config with which ``ssh ID`` leads through the gateway, and to this sandbox's sshd only."""
        return self.sshd.write_client_config(bed.folder / f"ssh_config.{self.id}", (*client(gateway), "%h"))


def client(gateway: Gateway, *options: str) -> tuple[str, ...]:
    """Our client, for names of sandboxes behind the gateway."""
    return (*OURS, "connect", "--url", gateway.url, "--ca-file", str(gateway.certificates.ca_file), *options)


@pytest.fixture(scope="module")
def sandboxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Sandbox]]:
    folder = tmp_path_factory.mktemp("sandboxes")
    with Bed(folder) as bed:
        sshds = [Sshd(bed, folder / name) for name in IDS]
        yield [Sandbox(sshd.folder.name, sshd, start_bridge(bed, "ours", sshd.port)) for sshd in sshds]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates") / "authority")


@pytest.fixture(params=GATEWAYS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each gateway's name."""
    name: str = request.param
    return name


@pytest.fixture
def start_gateway(kind: str, bed: Bed, short_folder: Path, certificates: Certificates) -> StartGateway:
    """Start a gateway of this kind; takes what `Gateway` takes from ``upstreams`` on."""
    numbers = itertools.count()

    def start(upstreams: dict[str, str], **options: Any) -> Gateway:
        folder = short_folder / str(next(numbers))
        folder.mkdir()
        return GATEWAYS[kind](bed, folder, certificates, upstreams, **options)

    return start


@pytest.fixture
def gateway(start_gateway: StartGateway, sandboxes: list[Sandbox]) -> Gateway:
    """A gateway in front of the three sandboxes."""
    return start_gateway({f"8081-{sandbox.id}": sandbox.address for sandbox in sandboxes})
