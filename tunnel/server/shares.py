"""Fair shares of a limited resource: who gives way when it is exhausted.

Behind an edge or an ingress all clients may have the same address, so with a fixed limit per address one client could
lock out all others. Shares refuse nobody while there is room. Beyond the limit, the source that holds most gives way:
its holder with the lowest standing, and among equals the oldest.

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
    """The units that one holder has, until it leaves or gives way."""

    __slots__ = ("_give_way", "_shares", "_standing", "source", "weight")

    def __init__(
        self, shares: Shares, source: Source, weight: int, give_way: Callable[[], None], standing: Callable[[], int]
    ) -> None:
        self._shares = shares
        self._give_way = give_way
        self._standing = standing
        self.source = source
        self.weight = weight

    @property
    def is_held(self) -> bool:
        """Whether the holder still has this place."""
        return self in self._shares._places.get(self.source, ())

    def leave(self) -> None:
        """Give the place back; does nothing if it was given back already."""
        self._shares._remove(self)
        self._forget()

    def _forget(self) -> None:
        """Break the reference cycle with the holder, so that both are freed at once."""
        self._give_way = _nothing
        self._standing = _no_standing

    def change(self, weight: int) -> None:
        """Change the number of units, whether or not there is room: see `Shares.make_room`."""
        if self.is_held:
            self._shares._count(self.source, weight - self.weight)
        self.weight = weight

    def move(self, source: Source) -> None:
        """Count for another source from now on, which a trusted proxy has named."""
        if self.is_held:
            self._shares._remove(self)
            self._shares._add(self, source)


class Shares:
    """``limit`` units of a resource, distributed among holders.

    A holder whose standing is ``protected`` or higher gives way only to a source that holds less than its own (None: no
    holder is protected). Nobody gives way to a source that holds more.
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
        """Return a place for a holder from ``source``; None if there is no room and nobody gives way.

        ``give_way`` is called at most once, when the holder has lost its place to another; it must not raise.
        ``standing`` returns how much the holder deserves its place; the lowest standing is 0.
        """
        if not self.make_room(source, weight):
            return None
        return self.overdraw(source, give_way, standing=standing, weight=weight)

    def overdraw(
        self, source: Source, give_way: Callable[[], None], *, standing: Callable[[], int], weight: int
    ) -> Place:
        """Return a place, whether or not there is room, for a holder that exists already and must be counted."""
        place = Place(self, source, weight, give_way, standing)
        self._add(place, source)
        return place

    def make_room(
        self, source: Source, weight: int, *, spared: Place | None = None, protected: int | None = None
    ) -> bool:
        """Make holders give way until there is room for ``weight`` more units of ``source``; return whether there is.

        If that is impossible, nobody gives way. ``spared`` is the place that is to grow, which must not give way to
        itself. ``protected`` overrides that of these shares.
        """
        if self.taken + weight <= self.limit:
            return True
        victims = self._victims(source, weight, spared, self._protected if protected is None else protected)
        for victim in victims:
            self._dismiss(victim)
        return bool(victims)

    def drop_one(self, *, spared: Place | None = None, protected: int | None = None) -> bool:
        """Make one holder give way although there is room, because something else is exhausted; return whether one did.

        Protected holders and ``spared`` never do. ``protected`` overrides that of these shares.
        """
        for source in sorted(self._places, key=lambda source: -self._held[source]):
            candidates = (place for place in self._places[source] if place is not spared)
            place = self._lowest(candidates, self._protected if protected is None else protected)
            if place is not None:
                self._dismiss(place)
                return True
        return False

    def _victims(self, source: Source, weight: int, spared: Place | None, protected: int | None) -> list[Place]:
        """Return who gives way so that ``source`` gets ``weight`` more units; nobody if that is impossible."""
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
        """Return the place with the lowest standing, the oldest among equals; None if all are protected."""
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
        self._places.setdefault(source, {})[place] = None
        self._count(source, place.weight)

    def _dismiss(self, place: Place) -> None:
        self._remove(place)
        give_way = place._give_way
        place._forget()
        give_way()

    def _remove(self, place: Place) -> None:
        mine = self._places.get(place.source, {})
        if place in mine:
            del mine[place]
            if not mine:
                del self._places[place.source]
            self._count(place.source, -place.weight)

    def _count(self, source: Source, weight: int) -> None:
        self.taken += weight
        self._held[source] += weight
        if not self._held[source]:
            del self._held[source]
