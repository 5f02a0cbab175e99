"""Fixtures for all tests: a bed that ends what was started, a real sshd, bridges, and routes of ssh through them."""

from __future__ import annotations

import os
import random
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.bed.built import Built, build_once, folder_of_run
from tests.bed.processes import Bed, open_beds
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, echo
from tests.bed.tunnels import EMBEDDED_PAIR, OWN_PAIR, PAIRS, Bridge, Pair, Route, start_bridge, start_embedded
from tunnel import errors

SIZES = (0, 1, 65535, 65536, 65537)  # around the buffers and frames of both programs …
LARGEST, LARGEST_IN_FULL = 20_000_001, 100_000_001  # … and much more
StartBridge = Callable[..., Bridge]
SPLICE_LEAST = {"always": 1, "never": 1 << 62}  # bytes of payload; see `tunnel.net.splice`
LOG_TAIL = 4000  # characters of each program's log that a failing test shows
MADE_ONCE = {
    "built",
    "windows",
}  # fixtures that the first test to ask for them has to wait for, and each worker with it

# How long an example takes says more about the machine than about the code.
settings.register_profile(
    "unhurried", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # fmt: skip
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the long forms of the tests, too")
    parser.addoption(
        "--splice", choices=SPLICE_LEAST, help="let our programs splice everything, or nothing (default: their choice)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the tests marked ``full``, unless they are asked for; give others the time that their fixtures take."""
    for item in items:
        if MADE_ONCE.intersection(getattr(item, "fixturenames", ())) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(400))
    if not config.getoption("--full"):
        long = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


def let_splice(patch: pytest.MonkeyPatch, how: str) -> None:
    """Let the programs that are started from now on splice as ``--splice`` says."""
    root = Path(__file__).parents[1]
    patch.setenv("PYTHONPATH", f"{root / 'tests' / 'bed' / 'splicing'}{os.pathsep}{root}")
    patch.setenv("TEST_SPLICE_LEAST", str(SPLICE_LEAST[how]))


@pytest.fixture(scope="session", autouse=True)
def plain_environment(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep the developer's own settings and proxies away from the programs under test, and let those find `tunnel`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("WSTUNNEL_PY_", "XDG_", "E2B_")) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        patch.setenv("HISTFILE", str(home / "history"))  # of shells whose HOME is that of the account
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        if how := request.config.getoption("--splice"):
            let_splice(patch, how)
        # Terminals and embedded SSH sessions read the account's own profile. If that is pyenv's, each shell takes a
        # lock, and one that is killed meanwhile makes all others wait for a minute.
        no_rehash = home / "no-rehash"
        no_rehash.write_text('[ "${0##*/}" != pyenv-rehash ] || exit 0\n')
        patch.setenv("BASH_ENV", str(no_rehash))
        # Under nohup, or in a script's background, the programs under test would leave these alone.
        for number in (getattr(signal, name, None) for name in ("SIGHUP", "SIGINT", "SIGQUIT")):
            if number is not None and signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        yield


@pytest.fixture(autouse=True)
def forgotten_secrets() -> Iterator[None]:
    """Keep what one test calls a secret out of the messages that others expect."""
    before = dict(errors._secrets)
    yield
    errors._secrets.clear()
    errors._secrets.update(before)


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    """Programs of one test."""
    folder = tmp_path / "bed"
    folder.mkdir()
    with Bed(folder) as bed:
        yield bed


@pytest.fixture(scope="session")
def shared_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Programs that stay for the whole run."""
    with Bed(tmp_path_factory.mktemp("shared")) as bed:
        yield bed


@pytest.fixture(scope="session")
def sshd(shared_bed: Bed) -> Sshd:
    return Sshd(shared_bed, shared_bed.folder / "sshd")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist, the wheel and the single file of this repository."""
    return build_once(folder_of_run(tmp_path_factory.getbasetemp()) / "built")


def make_route(bed: Bed, sshd: Sshd, pair: Pair) -> Route:
    bridge = start_embedded(bed, sshd) if pair == EMBEDDED_PAIR else start_bridge(bed, pair.bridge, sshd.port)
    port = bridge.url.rpartition(":")[2]  # there may be several routes of a pair
    config = sshd.write_client_config(bed.folder / f"ssh_config.{pair}.{port}", pair.command(bridge.url))
    return Route(config, bridge)


@pytest.fixture(scope="session", params=(*PAIRS, EMBEDDED_PAIR), ids=str)
def route(request: pytest.FixtureRequest, shared_bed: Bed, sshd: Sshd) -> Route:
    """Ways to an SSH server: our client and our bridge, each of them with websocat at the other end, and no sshd."""
    return make_route(shared_bed, sshd, request.param)


@pytest.fixture(scope="session")
def own_route(shared_bed: Bed, sshd: Sshd) -> Route:
    """The way to the sshd through our client and our bridge."""
    return make_route(shared_bed, sshd, OWN_PAIR)


@pytest.fixture(scope="session")
def echo_target() -> Iterator[Target]:
    with Target(echo) as target:
        yield target


@pytest.fixture
def start(bed: Bed, echo_target: Target) -> StartBridge:
    """Start a bridge to the echo with the given options."""
    return lambda *options: start_bridge(bed, "ours", echo_target.port, *options)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[Path]:
    """Files of the `SIZES`, and a large one, with the same random content in every run."""
    folder = tmp_path_factory.mktemp("samples")
    source = random.Random("samples")
    paths = []
    for size in (*SIZES, LARGEST_IN_FULL if request.config.getoption("--full") else LARGEST):
        path = folder / str(size)
        path.write_bytes(source.randbytes(size))
        paths.append(path)
    return paths


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a path that leaves room for the name of a Unix socket (108 bytes in all)."""
    with tempfile.TemporaryDirectory(prefix="bed-") as folder:
        yield Path(folder)


def printable(log: str) -> str:
    """A log that may be the very data that went through a tunnel, without what would upset a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "·" for c in log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of the programs that run while a test fails."""
    report = yield
    if report.failed:
        for process in (process for bed in open_beds for process in bed.processes):
            title = f"{process.err.stem} (pid {process.pid}, exit status {process.status})"
            report.sections.append((title, printable(process.log())[-LOG_TAIL:]))
    return report
