"""Files made by the commands, as users make them; and by the same code at another time, where they must be old."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Finished
from tests.bed.tunnels import OURS
from tunnel.pki.authority import Authority, issue_files

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def certs(bed: Bed, *words: str | Path | int) -> Finished:
    """Run ``wstunnel-py certs``."""
    return bed.run(*OURS, "certs", *map(str, words))


@dataclass(frozen=True)
class PKI:
    """A folder with an authority (``ca.pem``, ``ca.key``), a server's files for this machine, and client alice's."""

    folder: Path

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def serve(self) -> tuple[str, ...]:
        """How a bridge is started that knows clients of this authority only."""
        return (*self.serve_alone, "--tls-client-ca", str(self.ca_file))

    @property
    def serve_alone(self) -> tuple[str, ...]:
        """How a bridge is started that knows itself."""
        return ("--tls-cert", f"{self.folder}/localhost.pem", "--tls-key", f"{self.folder}/localhost.key")

    @property
    def trust(self) -> tuple[str, ...]:
        return ("--ca-file", str(self.ca_file))

    def show(self, client: str = "alice") -> tuple[str, ...]:
        """How a client shows its certificate."""
        return ("--client-cert", f"{self.folder}/{client}.pem", "--client-key", f"{self.folder}/{client}.key")


def make_pki(bed: Bed, folder: Path) -> PKI:
    """What ``certs ca``, ``certs server`` and ``certs client`` make."""
    ca = ("--ca", str(folder))
    for words in (
        ("ca", str(folder)),
        ("server", "localhost", "127.0.0.1", "::1", *ca, "--out", f"{folder}/localhost"),
        ("client", "alice", *ca, "--out", f"{folder}/alice"),
    ):
        bed.check(*OURS, "certs", *words)
    return PKI(folder)


@pytest.fixture(scope="session")
def made(shared_bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> PKI:
    """One for all tests that only read it."""
    return make_pki(shared_bed, tmp_path_factory.mktemp("pki") / "pki")


@pytest.fixture
def pki(made: PKI, tmp_path: Path) -> PKI:
    """One for a test that changes it."""
    shutil.copytree(made.folder, tmp_path / "pki")
    return PKI(tmp_path / "pki")


@pytest.fixture
def old(tmp_path: Path) -> PKI:
    """An authority that ends in 10 days; ``localhost`` and ``alice`` have expired, ``bob`` will in 3 days."""
    folder = tmp_path / "old"
    begin = datetime.now(UTC) - 400 * DAY  # not `NOW`, which may be half an hour ago by now
    authority = Authority.make(str(folder), "old authority", 410, begin)
    issue_files(authority.issue_for_server(["localhost", "127.0.0.1"], 399), f"{folder}/localhost")
    issue_files(authority.issue_for_client("alice", 400 - 1 / 24), f"{folder}/alice")
    issue_files(authority.issue_for_client("bob", 403), f"{folder}/bob")
    return PKI(folder)
