"""What the tests of the bridge share: an echo for a target, bridges of their own, and one bridge for many questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target, echo
from tests.bed.tunnels import Bridge, start_bridge

StartBridge = Callable[..., Bridge]


@pytest.fixture(scope="session")
def echo_target() -> Iterator[Target]:
    with Target(echo) as target:
        yield target


@pytest.fixture
def start(bed: Bed, echo_target: Target) -> StartBridge:
    """Start a bridge to the echo with the given options."""
    return lambda *options: start_bridge(bed, "ours", echo_target.port, *options)


@pytest.fixture(scope="module")
def bridge(shared_bed: Bed, echo_target: Target) -> Bridge:
    """A bridge with default options in front of the echo, for tests that only ask."""
    return start_bridge(shared_bed, "ours", echo_target.port)
