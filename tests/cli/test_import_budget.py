"""What a ProxyCommand imports: ssh starts one for every connection, and waits for it.

Counted in modules over those of the bare interpreter, because time differs from machine to machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target, echo
from tests.bed.tunnels import start_bridge

# What costs a millisecond or more and what the fast path does without.
BANNED = {
    "argparse", "asyncio", "asyncssh", "base64", "click", "concurrent", "cryptography", "dataclasses", "email",
    "encodings.idna", "http", "inspect", "ipaddress", "json", "logging", "paramiko", "pathlib", "random", "re",
    "shutil", "ssl", "subprocess", "tempfile", "threading", "tomllib", "traceback", "typing", "urllib", "uuid",
    "websockets",
}  # fmt: skip
WITH_CONFIG = {"tomllib", "typing", "re"}  # TOML's reader needs the other two
BUDGET = 73
BUDGET_WITH_CONFIG = 93
# As the installed command does it; `python -m` imports some more to find the package.
COMMAND = "import sys; from tunnel.cli.main import main; sys.exit(main())"


@pytest.fixture(scope="module")
def bridge(shared_bed: Bed) -> Iterator[str]:
    """The URL of a bridge to an echo target."""
    with Target(echo) as target:
        yield start_bridge(shared_bed, "ours", target.port).url


def imported(bed: Bed, *arguments: str) -> set[str]:
    """The modules that a Python program imports, without those that every program imports here."""

    def modules(*words: str) -> set[str]:
        finished = bed.check(sys.executable, "-X", "importtime", *words, stdin=b"hello")
        lines = [line for line in finished.stderr.splitlines() if line.startswith("import time:")]
        return {line.rpartition("|")[2].strip() for line in lines}

    return modules(*arguments) - modules("-c", "pass")


def banned(modules: set[str]) -> set[str]:
    return {name for name in modules if BANNED & {name, name.partition(".")[0]}}


def test_a_run_over_ws_imports_nothing_that_is_slow(bed: Bed, bridge: str) -> None:
    modules = imported(bed, "-c", COMMAND, bridge)
    assert "tunnel.client.relay" in modules
    assert banned(modules) == set()
    assert len(modules) <= BUDGET, sorted(modules)


def test_a_config_file_costs_its_reader_only(bed: Bed, bridge: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[hosts.box]\nurl = "{bridge}"\nheaders = {{ X-Key = "k" }}\n')
    modules = imported(bed, "-c", COMMAND, "--config", str(config), "box")
    assert "tomllib" in modules
    assert {name.partition(".")[0] for name in banned(modules)} <= WITH_CONFIG
    assert len(modules) <= BUDGET_WITH_CONFIG, sorted(modules)


def test_importing_the_package_imports_nothing(bed: Bed) -> None:
    assert imported(bed, "-c", "import tunnel") == {"tunnel", "tunnel._version"}
