"""Admission by share: who gives way when something that all clients share has run out.

Behind an edge or an ingress all clients have one address, so a fixed limit for each address would let one of them lock
out all the others. A share refuses nobody while there is room. When there is none, the source that holds most gives
way, and of its holders the one with the lowest standing, then the one that has been there for longest.

Everything that clients can use up is handed out by a `Shares` of its own: handshakes, tunnels, sessions that wait for
their clients, the memory of sessions, connections to the terminal service, logins at the embedded SSH server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable

Source = str | None  # a client's address or network, as in `tunnel.net.address.Client`; None is one source, too


def _no_standing() -> int:
    return 0


def _nothing() -> None:
    return


class Place:
    """What one holder has of the shares, until it leaves or has to give way."""

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
        """Whether the holder still has it."""
        return self in self._shares._places.get(self.source, ())

    def leave(self) -> None:
        """Give the place back. It may be given back already."""
        self._shares._remove(self)
        self._forget()

    def _forget(self) -> None:
        """Let go of the holder, which refers to this place, so that neither would be freed soon."""
        self._give_way = _nothing
        self._standing = _no_standing

    def change(self, weight: int) -> None:
        """Hold another weight from now on, whether or not there is room for it: see `Shares.make_room`."""
        if self.is_held:
            self._shares._count(self.source, weight - self.weight)
        self.weight = weight

    def move(self, source: Source) -> None:
        """Count for another source from now on: a proxy that is trusted has told it."""
        if self.is_held:
            self._shares._remove(self)
            self._shares._add(self, source)


class Shares:
    """``limit`` units of something, handed out to holders.

    A holder whose standing is ``protected`` or more gives way only to a source that holds less than its own does
    (None: no holder is protected). Nobody gives way to a source that holds more.
    """

    def __init__(self, limit: int, *, protected: int | None = None) -> None:
        self.limit = limit
        self.taken = 0  # units
        self._protected = protected
        self._places: dict[Source, dict[Place, None]] = {}  # of each source, in the order in which they were entered
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
        """Return a place for a holder from ``source``; None when there is no room and nobody has to give way to it.

        ``give_way`` is called when the holder loses its place to another one, at most once; it must not raise, and the
        place is given back by then. ``standing`` says how much a holder has to show for its place: 0 for nothing yet.
        """
        if not self.make_room(source, weight):
            return None
        return self.overdraw(source, give_way, standing=standing, weight=weight)

    def overdraw(
        self, source: Source, give_way: Callable[[], None], *, standing: Callable[[], int], weight: int
    ) -> Place:
        """As `enter`, but whether or not there is room: for what is there already, and only has to be counted."""
        place = Place(self, source, weight, give_way, standing)
        self._add(place, source)
        return place

    def make_room(
        self, source: Source, weight: int, *, spared: Place | None = None, protected: int | None = None
    ) -> bool:
        """Let holders give way until there is room for ``weight`` units more of ``source``; return whether there is.

        When there cannot be, nobody gives way. ``spared`` is the place that is to grow, which does not give way to
        itself. ``protected`` is for this once instead of that of these shares.
        """
        if self.taken + weight <= self.limit:
            return True
        victims = self._victims(source, weight, spared, self._protected if protected is None else protected)
        for victim in victims:
            self._dismiss(victim)
        return bool(victims)

    def drop_one(self, *, spared: Place | None = None, protected: int | None = None) -> bool:
        """Let one holder give way though there is room, as something else has run out; return whether one did.

        Only one that is not protected does, nor ``spared``, which is that of whoever needs it; ``protected`` is for
        this once instead of that of these shares.
        """
        for source in sorted(self._places, key=lambda source: -self._held[source]):
            candidates = (place for place in self._places[source] if place is not spared)
            place = self._lowest(candidates, self._protected if protected is None else protected)
            if place is not None:
                self._dismiss(place)
                return True
        return False

    def _victims(self, source: Source, weight: int, spared: Place | None, protected: int | None) -> list[Place]:
        """Return who gives way so that ``source`` can have ``weight`` units more; nobody when that is not possible."""
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
        """Return the place of the lowest standing, and of those the oldest; None when all are protected."""
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
