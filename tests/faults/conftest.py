"""What the tests of faults share: an echo, bridges behind links, our client as a program."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.bed.processes import Bed, Process
from tests.bed.targets import Target
from tests.bed.tunnels import OURS, Bridge, start_bridge
from tests.conftest import let_splice

StartClient = Callable[..., Process]


@pytest.fixture(scope="module", autouse=True)
def splicing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let both ends splice whatever they can, as that is where they could lose or double something."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.config.getoption("--splice"):
            let_splice(patch, "always")
        yield


@pytest.fixture(scope="module")
def echo_bridge(shared_bed: Bed, echo_target: Target) -> Bridge:
    """A bridge with default options in front of the echo."""
    return start_bridge(shared_bed, "ours", echo_target.port)


@pytest.fixture
def connect(bed: Bed) -> StartClient:
    """Start our client by hand for a URL and options, with an input that stays open."""
    return lambda url, *options: bed.start(*OURS, "connect", *options, url, stdin=subprocess.PIPE)
