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
# Until the request is sent; from then on the bridge is waited for, so that they cost nothing.
LATER = {"collections", "enum", "functools", "selectors", "signal", "socket", "struct", "warnings"}
BUDGET = 78
BUDGET_UNTIL_REQUEST = 31
BUDGET_WITH_CONFIG = 98
# As the installed command does it; `python -m` imports some more to find the package.
COMMAND = "import sys; from tunnel.cli.main import main; sys.exit(main())"
# The same, but when the request is sent, it tells what has been imported.
TELLING_COMMAND = f"""
import sys
from tunnel.client import tcp
send = tcp.Limit.send
def told(*words):
    print(*sys.modules, file=sys.stderr)
    send(*words)
tcp.Limit.send = told
{COMMAND}
"""


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


def present(bed: Bed, program: str, *arguments: str) -> set[str]:
    """The modules that a Python program, an echo, has imported; it prints them on standard error."""
    finished = bed.check(sys.executable, "-c", program, *arguments, stdin=b"hello")
    assert finished.stdout == (b"hello" if arguments else b"")
    return set(finished.stderr.split())


def banned(modules: set[str]) -> set[str]:
    return {name for name in modules if BANNED & {name, name.partition(".")[0]}}


def test_a_run_over_ws_imports_nothing_that_is_slow(bed: Bed, bridge: str) -> None:
    modules = imported(bed, "-c", COMMAND, bridge)
    assert "tunnel.client.relay" in modules
    assert banned(modules) == set()
    assert len(modules) <= BUDGET, sorted(modules)


def test_until_the_request_is_sent_little_is_imported(bed: Bed, bridge: str) -> None:
    bare = present(bed, "import sys; print(*sys.modules, file=sys.stderr)")
    modules = present(bed, TELLING_COMMAND, bridge) - bare
    assert "tunnel.client.handshake" in modules
    assert banned(modules) == set()
    assert modules & (LATER - bare) == set()
    assert len(modules) <= BUDGET_UNTIL_REQUEST, sorted(modules)


def test_a_config_file_costs_its_reader_only(bed: Bed, bridge: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[hosts.box]\nurl = "{bridge}"\nheaders = {{ X-Key = "k" }}\n')
    modules = imported(bed, "-c", COMMAND, "--config", str(config), "box")
    assert "tomllib" in modules
    assert {name.partition(".")[0] for name in banned(modules)} <= WITH_CONFIG
    assert len(modules) <= BUDGET_WITH_CONFIG, sorted(modules)


def test_importing_the_package_imports_nothing(bed: Bed) -> None:
    assert imported(bed, "-c", "import tunnel") == {"tunnel"}
