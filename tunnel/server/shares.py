"""Fair shares of a limited resource: which holder is evicted when it is exhausted.

Behind an edge or an ingress all clients may have the same address, so with a fixed limit per address one client could
lock out all others. Below the limit, shares refuse nobody. At the limit, the source that holds the most loses a
holder: the one with the lowest standing, and among equals the oldest.

Each resource that clients can exhaust has its own `Shares`: handshakes, tunnels, detached sessions, memory of sessions,
connections to the terminal service, pending logins at the embedded SSH server, and others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable

Source = str | None  # a client's address or network, as in `tunnel.net.address.Client`; None is a source as well


def _no_standing() -> int:
    return 0


def _nothing() -> None:
    return


class Place:
    """A slot: the units that one holder has, until it leaves or is evicted; ``is_held``: whether it still has them."""

    __slots__ = ("_give_way", "_shares", "_standing", "is_held", "source", "weight")

    def __init__(
        self, shares: Shares, source: Source, weight: int, give_way: Callable[[], None], standing: Callable[[], int]
    ) -> None:
        self._shares = shares
        self._give_way = give_way
        self._standing = standing
        self.source = source
        self.weight = weight
        self.is_held = False

    def leave(self) -> None:
        """Give the slot back; does nothing if it was given back already."""
        self._shares._remove(self)
        self._forget()

    def _forget(self) -> None:
        """Break the reference cycle with the holder, so that both are freed at once."""
        self._give_way = _nothing
        self._standing = _no_standing

    def change(self, weight: int) -> None:
        """Change the number of units, even beyond the limit: see `Shares.make_room`."""
        if self.is_held:
            self._shares._count(self.source, weight - self.weight)
        self.weight = weight

    def move(self, source: Source) -> None:
        """Count for another source from now on, as reported by a trusted proxy."""
        if self.is_held:
            self._shares._remove(self)
            self._shares._add(self, source)


class Shares:
    """``limit`` units of a resource, distributed among holders.

    A holder whose standing is ``protected`` or higher is evicted only for a source that holds less than its own (None:
    no holder is protected). No holder is evicted for a source that holds more.
    """

    def __init__(self, limit: int, *, protected: int | None = None) -> None:
        self.limit = limit
        self.taken = 0  # units
        self._protected = protected
        self._places: dict[Source, dict[Place, None]] = {}  # by source, oldest first
        self._held: Counter[Source] = Counter()  # units

    def __len__(self) -> int:
        """Return the number of holders."""
        return sum(map(len, self._places.values()))

    def held_by(self, source: Source) -> int:
        """Return how many units a source holds."""
        return self._held[source]

    def enter(
        self,
        source: Source,
        give_way: Callable[[], None],
        *,
        standing: Callable[[], int] = _no_standing,
        weight: int = 1,
    ) -> Place | None:
        """Return a slot for a holder from ``source``; None if the limit is reached and no holder can be evicted.

        ``give_way`` is called at most once, when the holder is evicted; it must not raise. ``standing`` returns the
        holder's standing, of which 0 is the lowest.
        """
        if not self.make_room(source, weight):
            return None
        return self.overdraw(source, give_way, standing=standing, weight=weight)

    def overdraw(
        self, source: Source, give_way: Callable[[], None], *, standing: Callable[[], int], weight: int
    ) -> Place:
        """Return a slot, even beyond the limit, for an existing holder that must be counted."""
        place = Place(self, source, weight, give_way, standing)
        self._add(place, source)
        return place

    def make_room(
        self, source: Source, weight: int, *, spared: Place | None = None, protected: int | None = None
    ) -> bool:
        """Evict holders until the limit allows ``weight`` more units for ``source``; return whether it does.

        If that is impossible, no holder is evicted. ``spared`` is the slot that grows, which must not be evicted for
        itself. ``protected`` overrides that of these shares.
        """
        if self.taken + weight <= self.limit:
            return True
        victims = self._victims(source, weight, spared, self._protected if protected is None else protected)
        for victim in victims:
            self._dismiss(victim)
        return bool(victims)

    def drop_one(self, *, spared: Place | None = None, protected: int | None = None) -> bool:
        """Evict one holder, even below the limit, because another resource is exhausted; return whether there was one.

        Protected holders and ``spared`` are never evicted. ``protected`` overrides that of these shares.
        """
        for source in sorted(self._places, key=lambda source: -self._held[source]):
            candidates = (place for place in self._places[source] if place is not spared)
            place = self._lowest(candidates, self._protected if protected is None else protected)
            if place is not None:
                self._dismiss(place)
                return True
        return False

    def _victims(self, source: Source, weight: int, spared: Place | None, protected: int | None) -> list[Place]:
        """Return the slots to evict so that ``source`` gets ``weight`` more units; none if that is impossible."""
        victims: list[Place] = []
        needed = self.taken + weight - self.limit
        held = Counter(self._held)
        held[source] += weight
        passed = {spared}
        while needed > 0:
            place = self._next_victim(source, held, passed, protected)
            if place is None:
                return []
            passed.add(place)
            victims.append(place)
            held[place.source] -= place.weight
            needed -= place.weight
        return victims

    def _next_victim(
        self, source: Source, held: Counter[Source], passed: Container[Place | None], protected: int | None
    ) -> Place | None:
        mine = held[source]
        rivals = [each for each in self._places if held[each] >= mine]
        for rival in sorted(rivals, key=lambda each: -held[each]):
            candidates = (place for place in self._places[rival] if place.weight and place not in passed)
            place = self._lowest(candidates, None if held[rival] > mine else protected)
            if place is not None:
                return place
        return None

    @staticmethod
    def _lowest(places: Iterable[Place], protected: int | None) -> Place | None:
        """Return the slot with the lowest standing, the oldest among equals; None if all are protected."""
        lowest, found = protected, None
        for place in places:
            standing = place._standing()
            if lowest is None or standing < lowest:
                lowest, found = standing, place
                if standing <= 0:
                    break
        return found

    def _add(self, place: Place, source: Source) -> None:
        place.source = source
        place.is_held = True
        self._places.setdefault(source, {})[place] = None
        self._count(source, place.weight)

    def _dismiss(self, place: Place) -> None:
        self._remove(place)
        give_way = place._give_way
        place._forget()
        give_way()

    def _remove(self, place: Place) -> None:
        if place.is_held:
            place.is_held = False
            mine = self._places[place.source]
            del mine[place]
            if not mine:
                del self._places[place.source]
            self._count(place.source, -place.weight)

    def _count(self, source: Source, weight: int) -> None:
        self.taken += weight
        self._held[source] += weight
        if not self._held[source]:
            del self._held[source]
