"""Connections to the embedded SSH server that are not logged in yet: how many there may be, and who gives way.

Each of them is a process, and costs the client nothing. As long as there is room nobody is refused; when there is
none, or little of it, one of the source that holds most gives way, the least confirmed and then the oldest first. So a
newcomer always gets in, and one address cannot lock out the others, nor a crowd of silent clients those who log in.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import random
import socket
import sys
import termios
import time
from collections.abc import Callable

from tunnel.errors import DialError
from tunnel.server.settings import EMBEDDED
from tunnel.server.shares import Place, Shares, Source

MAX_LOGINS = 100
MAX_PROCESSES = 120  # of those that log in, and of those that have given way and are about to end
# As sshd's MaxStartups: from this many on a newcomer lets one give way with a chance that grows from the rate to 1.
DROP_FROM = 30
DROP_RATE = 0.3
# Seconds that a client has until it should have sent something, and until it should have got further. Busy machines
# take a while: only after the greater limits do clients give way though there is room.
_GRACE = 2.0
_SILENCE_LIMIT = 10.0
_PROGRESS_LIMIT = 20.0
_EARLY = 2  # the standing from which nobody gives way as long as there is room

_BUSY = "there are too many clients about to log in"


class Login:
    """One connection that is not logged in yet. ``id`` is its number in events of the server, 0 while it waits."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.id = 0
        self.place: Place | None = None
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_sent = False
        self.has_begun = False  # keys are exchanged
        self._clock = clock
        self._since = clock()
        # The session's own socket, not a second one that would keep the connection open. Once the session has closed
        # it, it leads to nothing, whoever has its number by then.
        self._sock: socket.socket | None = None

    def check(self) -> None:
        """Raise DialError when it had to give way while its process was not there yet."""
        if self.place is None or not self.place.is_held:
            raise DialError("tcp", address=EMBEDDED, reason=_BUSY)

    def connect(self, number: int, sock: socket.socket) -> None:
        """There is a process now, behind ``sock``."""
        self.id = number
        self._sock = sock

    def standing(self) -> int:
        """Return how much there is to show for a place, for `Shares`."""
        if self._sock is not None and self._sock.fileno() < 0:
            return 0  # the session is over; its process is about to notice
        age = self._clock() - self._since
        if self.has_begun:
            return 4 if age < _PROGRESS_LIMIT else 2
        if self.has_sent or self._has_data_waiting():
            return 3 if age < _PROGRESS_LIMIT else 1
        if age < _GRACE:
            return 3  # it has come just now; others may be quicker only because they have not been honest
        return 2 if age < _SILENCE_LIMIT else 0

    def give_way(self) -> None:
        """End the connection, or the wait for it."""
        if self._sock is not None:
            with contextlib.suppress(OSError):  # closed by its session, or by the process
                self._sock.shutdown(socket.SHUT_RDWR)
        elif not self.turn.done():
            self.turn.set_exception(DialError("tcp", address=EMBEDDED, reason=_BUSY))

    def _has_data_waiting(self) -> bool:
        """Return whether the client has sent something that the process has not read yet."""
        if self._sock is None or self._sock.fileno() < 0 or sys.platform != "linux":
            return False
        try:
            return fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0") != b"\0\0\0\0"
        except OSError:
            return False


class Logins:
    """All of them. ``chance`` returns random numbers of [0, 1), ``clock`` seconds."""

    def __init__(
        self, *, chance: Callable[[], float] = random.random, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._chance = chance
        self._clock = clock
        self._shares = Shares(MAX_LOGINS)
        self._processes: set[Login] = set()
        self._waiting: list[Login] = []
        self._numbered: dict[int, Login] = {}
        self.gave_way = 0  # so far

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._shares)

    @property
    def processes(self) -> int:
        """How many processes they have, with those that are about to end."""
        return len(self._processes)

    async def enter(self, source: Source) -> Login:
        """Return a newcomer's login, when there may be a process for it; raises DialError if it gives way meanwhile.

        Whoever is given one has to call `started` or `abandon`.
        """
        self._drop_early()
        login = Login(self._clock)
        login.place = self._shares.enter(source, lambda: self._give_way(login), standing=login.standing)
        login.check()  # always, as nobody is protected
        self._waiting.append(login)
        self._let_start()
        try:
            await login.turn
        except BaseException:
            self.abandon(login)
            raise
        return login

    def started(self, login: Login, number: int, sock: socket.socket) -> None:
        """The login has a process now: ``number`` in its events, behind ``sock``."""
        login.connect(number, sock)
        self._numbered[number] = login

    def abandon(self, login: Login) -> None:
        """There will be no process for it, or it has ended or logged in. It may be told twice."""
        if login.place is not None:
            login.place.leave()
        self._numbered.pop(login.id, None)
        self._processes.discard(login)
        if login in self._waiting:
            self._waiting.remove(login)
        self._let_start()

    def heard(self, number: int, *, begun: bool) -> None:
        """The client ``number`` has sent something; ``begun``: it has exchanged keys."""
        login = self._numbered.get(number)
        if login is not None:
            login.has_sent = True
            login.has_begun |= begun

    def over(self, number: int) -> None:
        """The client ``number`` has logged in, or its process has ended."""
        login = self._numbered.get(number)
        if login is not None:
            self.abandon(login)

    def forget(self) -> None:
        """The server has ended: nothing will be heard of those that it served."""
        for login in list(self._numbered.values()):
            self.abandon(login)

    def _drop_early(self) -> None:
        taken = self._shares.taken
        if DROP_FROM <= taken < MAX_LOGINS:
            chance = DROP_RATE + (1 - DROP_RATE) * (taken - DROP_FROM) / (MAX_LOGINS - DROP_FROM)
            if self._chance() < chance:
                self._shares.drop_one(protected=_EARLY)

    def _give_way(self, login: Login) -> None:
        self.gave_way += 1
        login.give_way()

    def _let_start(self) -> None:
        while self._waiting and len(self._processes) < MAX_PROCESSES:
            login = min(self._waiting, key=self._held_with)  # the first one of those that are equal
            self._waiting.remove(login)
            if not login.turn.done():
                self._processes.add(login)
                login.turn.set_result(None)

    def _held_with(self, login: Login) -> int:
        return 0 if login.place is None else self._shares.held_by(login.place.source)
