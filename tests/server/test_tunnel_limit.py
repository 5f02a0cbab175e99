"""How many tunnels the limit of open files allows."""

from __future__ import annotations

import pytest

from tunnel.server.state import farewell_limit, handshake_limit, tunnel_limit

MANY = 1_000_000


@pytest.mark.parametrize("waiting", [0, 100, 1000, MANY])
@pytest.mark.parametrize("descriptors", [1024, 4096, 20_000, 1 << 20])
def test_descriptors_are_left_for_whatever_else_may_be_open(descriptors: int, waiting: int) -> None:
    left = descriptors - handshake_limit(descriptors) - farewell_limit(descriptors)
    left -= 2 * tunnel_limit(MANY, descriptors, waiting)
    assert left >= min(waiting, descriptors // 5)


def test_nine_thousand_tunnels_fit_into_twenty_thousand_descriptors_if_few_sessions_wait() -> None:
    assert tunnel_limit(9000, 20_000, 100) == 9000
    assert tunnel_limit(9000, 20_000, 1000) < 9000


def test_there_are_never_more_tunnels_than_wanted_nor_none() -> None:
    assert tunnel_limit(5, 20_000, 1000) == 5
    assert tunnel_limit(1000, 10, 1000) == 1


def test_the_default_of_1000_tunnels_needs_4096_descriptors_and_1024_are_enough_for_256() -> None:
    assert tunnel_limit(1000, 4096, 1000) == 1000
    assert tunnel_limit(1000, 1024, 1000) == 256
