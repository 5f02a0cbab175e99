"""Log lines that say the same again: the first ones are written, the others counted, and one line tells how many.

Anybody on the network can be refused, as often as they like. So all lines are counted but those that only the operator
or a client that was let in can cause. Lines are equal when they differ in nothing but the client's port and numbers.

Three bounds keep what strangers can write small: lines that are equal, lines of one client that differ in their words
only, and lines of one event by whomever. What is above a bound is counted with the narrowest of these.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections import Counter
from dataclasses import dataclass, field

Fields = dict[str, "str | int | float"]
Key = tuple[tuple[str, "str | int | float"], ...]
Count = tuple[int, str, Fields]  # the level, event and fields of a line that tells a count

WINDOW = 60.0  # seconds after the first line until the count is told
EQUAL_LIMIT = 5  # lines that are equal, in a window
GROUP_LIMIT = 20  # lines of one client and one error code that differ in their words, in a window
RATE_LIMIT = 50  # lines of one event, in a second
_GROUPS = 500  # of one event, at once; further ones are counted together …
_SESSIONS = 10_000  # … and for events of sessions, of which there are as many as clients were let in
OTHERS = "others"  # who those are, as the client

# Each of these is worth a line of its own.
_NEVER_COUNTED = frozenset(
    {
        "draining", "failed", "log-dropped", "log-failed", "notify-failed", "process", "ready",
        "reload-failed", "reloaded", "ssh-login", "terminals-ready", "tunnel", "warning",
    }
)  # fmt: skip
_OF_SESSIONS = frozenset({"detached", "resumed"})
# What tells lines apart that nobody on the network can choose freely, but for ``client``.
_TELLING = frozenset({"status", "session", "listener", "logger", "what"})
_CODE = re.compile(r"[a-z-]{1,40}")
_IGNORED = frozenset({"forwarded", "traceback"})


@dataclass(slots=True)
class _Equal:
    """Equal lines: how many were written, and how many only counted, in this window."""

    fields: Fields
    written: int = 0
    counted: int = 0


@dataclass(slots=True)
class _Group:
    """The lines of one client about one thing, in this window."""

    level: int
    due: float
    fields: Fields
    written: int = 0
    counted: int = 0
    lines: dict[Key, _Equal] = field(default_factory=dict)


class Repeats:
    """Says which lines are to be written, and counts the others. Times are those of one clock, in seconds."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, Key], _Group] = {}  # the first is the first that is due
        self._sizes: Counter[str] = Counter()  # groups of each event
        self._rates: dict[str, tuple[float, float]] = {}  # of each event: lines that may be written, as of when

    def admit(self, level: int, name: str, fields: Fields, now: float) -> bool:
        """Return whether a line is to be written; if not, it is counted."""
        if name in _NEVER_COUNTED:
            return True
        common, words = _parted(fields)
        group = self._group(level, name, common, now)
        key = tuple(words.items())
        line = group.lines.get(key)
        if (line is None or line.written < EQUAL_LIMIT) and group.written < GROUP_LIMIT and self._has_room(name, now):
            if line is None:
                line = group.lines[key] = _Equal({**common, **words})
            line.written += 1
            group.written += 1
            return True
        if line is None:
            group.counted += 1
        else:
            line.counted += 1
        return False

    def take_counts(self, now: float) -> list[Count]:
        """Return the lines for all counts that are due, and begin anew with those."""
        counts: list[Count] = []
        for key, group in list(itertools.takewhile(lambda item: item[1].due <= now, self._groups.items())):
            name = key[0]
            del self._groups[key]
            self._sizes[name] -= 1
            told = [(line.fields, line.counted) for line in group.lines.values()] + [(group.fields, group.counted)]
            counts += [(group.level, name, {**fields, "repeated": count}) for fields, count in told if count]
        return counts

    @property
    def next_count(self) -> float | None:
        """When the next count will be due; None when there is nothing to count."""
        return next((group.due for group in self._groups.values()), None)

    def _group(self, level: int, name: str, common: Fields, now: float) -> _Group:
        key = name, tuple(common.items())
        group = self._groups.get(key)
        if group is None and self._sizes[name] >= (_SESSIONS if name in _OF_SESSIONS else _GROUPS):
            common = {"client": OTHERS}
            key = name, tuple(common.items())
            group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(level, now + WINDOW, common)
            self._sizes[name] += 1
        return group

    def _has_room(self, name: str, now: float) -> bool:
        if name in _OF_SESSIONS:
            return True  # an outage ends the connections of all sessions at once
        left, since = self._rates.get(name, (RATE_LIMIT, now))
        left = min(RATE_LIMIT, left + (now - since) * RATE_LIMIT)
        has_room = left >= 1
        self._rates[name] = left - has_room, now
        return has_room


def _parted(fields: Fields) -> tuple[Fields, Fields]:
    """Return the fields that tell lines of one group from others, and the words within the group."""
    common: Fields = {}
    words: Fields = {}
    for key, value in fields.items():
        if key == "client":
            common[key] = without_port(str(value))
        elif key in _TELLING or (key == "error" and isinstance(value, str) and _CODE.fullmatch(value)):
            common[key] = value
        elif isinstance(value, str) and key not in _IGNORED:
            words[key] = value
    return common, words


def without_port(client: str) -> str:
    """Return the address of ``client`` alone; of an IPv6 address its network, within which addresses cost nothing."""
    host = client.rpartition(":")[0]
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Network((host[1:-1].partition("%")[0], 64), strict=False))
        except ValueError:
            pass
    return host or client
