"""Repeated log lines: the first ones are written, the others are counted, and one line reports the count.

Anyone on the network can cause refusals, as often as they like. So all lines are limited except those that only the
operator or an admitted client can cause. Lines are equal if they differ only in the client's port and in numbers.

There are three limits: for equal lines, for lines of one client and one error code that differ in their texts, and for
all lines of one event. A line above a limit is counted in the narrowest of these groups.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections import Counter
from dataclasses import dataclass, field

Fields = dict[str, "str | int | float"]
Key = tuple[tuple[str, "str | int | float"], ...]
Count = tuple[int, str, Fields]  # the level, event and fields of a line with a count

WINDOW = 60.0  # seconds from the first line until the count is logged
EQUAL_LIMIT = 5  # equal lines in a window
GROUP_LIMIT = 20  # lines of one client and one error code in a window
RATE_LIMIT = 50  # lines of one event per second
_GROUPS = 500  # groups of one event at a time; further ones are counted together
_SESSIONS = 10_000  # the same for events of sessions, which only admitted clients have
OTHERS = "others"  # the client in lines about the further ones

# Events that are always logged.
_NEVER_COUNTED = frozenset(
    {
        "draining", "failed", "log-dropped", "log-failed", "notify-failed", "process", "ready",
        "reload-failed", "reloaded", "restart", "restart-failed", "restarted", "ssh-login", "terminals-ready", "tunnel",
        "warning",
    }
)  # fmt: skip
_OF_SESSIONS = frozenset({"detached", "resumed"})
# Fields that distinguish groups, besides ``client``. Nobody on the network can choose their values freely.
_TELLING = frozenset({"status", "session", "listener", "logger", "what"})
_CODE = re.compile(r"[a-z-]{1,40}")
_IGNORED = frozenset({"forwarded", "traceback"})


@dataclass(slots=True)
class _Equal:
    """Equal lines in this window: how many were written, and how many were only counted."""

    fields: Fields
    written: int = 0
    counted: int = 0


@dataclass(slots=True)
class _Group:
    """The lines of one client about one thing in this window."""

    level: int
    due: float
    fields: Fields
    written: int = 0
    counted: int = 0
    lines: dict[Key, _Equal] = field(default_factory=dict)


class Repeats:
    """Decides which lines to write, and counts the others. All times are in seconds, of the same clock."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, Key], _Group] = {}  # in the order in which they are due
        self._sizes: Counter[str] = Counter()  # groups of each event
        self._rates: dict[
            str, tuple[float, float]
        ] = {}  # for each event: the number of lines it may write, and as of when

    def admit(self, level: int, name: str, fields: Fields, now: float) -> bool:
        """Return whether to write a line; otherwise count it."""
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
        """Return a line for each count that is due, and reset these counts."""
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
        """When the next count is due; None if nothing is counted."""
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
            return True  # an outage ends the connections of all sessions at the same time
        left, since = self._rates.get(name, (RATE_LIMIT, now))
        left = min(RATE_LIMIT, left + (now - since) * RATE_LIMIT)
        has_room = left >= 1
        self._rates[name] = left - has_room, now
        return has_room


def _parted(fields: Fields) -> tuple[Fields, Fields]:
    """Return the fields that identify the group of a line, and its text fields within the group."""
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
    """Return the address of ``client``; for IPv6 its /64 network, because one client can use all addresses in it."""
    host = client.rpartition(":")[0]
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Network((host[1:-1].partition("%")[0], 64), strict=False))
        except ValueError:
            pass
    return host or client
