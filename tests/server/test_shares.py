"""Fair shares: nobody is refused below the limit; at the limit the source that holds most loses a holder."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunnel.server.shares import Place, Shares


class Holders:
    """Holders of one `Shares`; ``gone`` lists those that were evicted."""

    def __init__(self, limit: int, *, protected: int | None = None) -> None:
        self.shares = Shares(limit, protected=protected)
        self.gone: list[str] = []

    def enter(self, name: str, source: str | None, *, standing: int = 0, weight: int = 1) -> Place | None:
        return self.shares.enter(
            source, lambda: self.gone.append(name), standing=lambda: standing, weight=weight
        )  # fmt: skip


def test_nobody_is_evicted_below_the_limit() -> None:
    holders = Holders(3)
    assert all(holders.enter(f"a{n}", "a") for n in range(3))
    assert holders.gone == []
    assert holders.shares.taken == len(holders.shares) == holders.shares.held_by("a") == 3


def test_the_oldest_holder_of_the_source_that_holds_most_is_evicted() -> None:
    holders = Holders(4)
    for n in range(3):
        holders.enter(f"a{n}", "a")
    holders.enter("b0", "b")
    assert holders.enter("c0", "c")
    assert holders.enter("b1", "b")
    assert holders.gone == ["a0", "a1"]


def test_a_source_that_is_alone_evicts_its_own_holders() -> None:
    holders = Holders(2)
    assert all(holders.enter(f"x{n}", None) for n in range(4))
    assert holders.gone == ["x0", "x1"]


def test_the_lowest_standing_of_a_source_is_evicted_first() -> None:
    holders = Holders(3)
    holders.enter("busy", "a", standing=9)
    holders.enter("idle", "a", standing=1)
    holders.enter("busier", "a", standing=10)
    holders.enter("new", "b")
    assert holders.gone == ["idle"]


def test_a_protected_holder_is_evicted_only_for_a_source_that_holds_less() -> None:
    holders = Holders(4, protected=1)
    for n in range(3):
        holders.enter(f"a{n}", "a", standing=1)
    holders.enter("b0", "b", standing=1)
    assert holders.enter("a3", "a") is None
    assert holders.enter("b1", "b", standing=1)
    assert holders.enter("b2", "b") is None
    assert holders.enter("a4", "a") is None
    assert holders.gone == ["a0"]


def test_no_holder_is_evicted_for_a_source_that_holds_more() -> None:
    holders = Holders(4, protected=1)
    for n in range(3):
        holders.enter(f"a{n}", "a", standing=1)
    holders.enter("b0", "b", standing=0)
    assert holders.enter("a3", "a") is None
    assert holders.gone == []


def test_several_holders_are_evicted_for_a_heavy_one_or_none_at_all() -> None:
    holders = Holders(100)
    holders.enter("a0", "a", weight=30)
    holders.enter("a1", "a", weight=30)
    holders.enter("b0", "b", weight=40)
    assert holders.enter("too heavy", "c", weight=101) is None
    assert holders.gone == []
    assert holders.enter("c0", "c", weight=50) is None
    assert holders.gone == []
    assert holders.enter("c1", "c", weight=35)
    assert holders.gone == ["a0", "b0"]
    assert holders.shares.taken == 65


def test_a_place_that_grows_does_not_evict_itself() -> None:
    holders = Holders(10)
    mine = holders.enter("mine", "a", weight=6)
    holders.enter("other", "a", weight=4)
    assert mine is not None
    assert holders.shares.make_room("a", 3, spared=mine)
    mine.change(9)
    assert holders.gone == ["other"]
    assert holders.shares.taken == 9
    assert not holders.shares.make_room("a", 2, spared=mine)


def test_a_place_may_be_left_twice_and_changed_after_that() -> None:
    holders = Holders(2)
    place = holders.enter("a0", "a")
    assert place is not None
    place.leave()
    place.leave()
    place.change(7)
    place.move("b")
    assert not place.is_held
    assert holders.shares.taken == holders.shares.held_by("a") == holders.shares.held_by("b") == 0


def test_a_place_moves_to_the_source_that_a_proxy_names() -> None:
    holders = Holders(2)
    place = holders.enter("p0", "proxy")
    assert place is not None
    place.move("a")
    assert (holders.shares.held_by("proxy"), holders.shares.held_by("a")) == (0, 1)
    place.leave()
    assert holders.shares.taken == 0


def test_one_holder_can_be_dropped_below_the_limit_unless_all_are_protected() -> None:
    holders = Holders(10, protected=1)
    holders.enter("a0", "a", standing=1)
    holders.enter("a1", "a")
    holders.enter("b0", "b")
    assert holders.shares.drop_one() and holders.shares.drop_one()
    assert not holders.shares.drop_one()
    assert holders.gone == ["a1", "b0"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.integers(0, 2), st.booleans()), max_size=60),
    st.sampled_from([None, 1, 2]),
)
def test_the_sums_are_right_and_the_limit_holds_whoever_comes_and_goes(
    steps: list[tuple[str, int, int, bool]], protected: int | None
) -> None:
    holders = Holders(12, protected=protected)
    held: list[Place] = []
    for source, weight, standing, leaves in steps:
        if leaves and held:
            held.pop(weight % len(held)).leave()
        else:
            place = holders.enter("", source, standing=standing, weight=weight)
            held += [place] if place else []
        held = [place for place in held if place.is_held]
        assert sum(place.weight for place in held) == holders.shares.taken <= 12
        assert len(held) == len(holders.shares)
        for each in "abc":
            assert holders.shares.held_by(each) == sum(place.weight for place in held if place.source == each)
