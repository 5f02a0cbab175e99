"""What the tests of the bridge share: an echo for a target, bridges of their own, and one bridge for many questions."""

from __future__ import annotations

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.bed.tunnels import Bridge, start_bridge


@pytest.fixture(scope="module")
def bridge(shared_bed: Bed, echo_target: Target) -> Bridge:
    """A bridge with default options in front of the echo, for tests that only ask."""
    return start_bridge(shared_bed, "ours", echo_target.port)
