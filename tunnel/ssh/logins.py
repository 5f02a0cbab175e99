"""Pending logins: connections to the embedded SSH server that have not logged in yet, and their limit.

Each is a process here, and costs the client nothing. Below the limit, nobody is refused. At or near the limit, a
connection of the source with the most of them is evicted: the one with the least progress, then the oldest. So a new
client always gets in; one address cannot lock out others, nor can many silent clients lock out those that log in.
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
MAX_PROCESSES = 120  # including those that were evicted and are about to end
# Like sshd's MaxStartups: from this number on, a new client evicts another with a probability from the rate to 1.
DROP_FROM = 30
DROP_RATE = 0.3
# Seconds for a client to send something, and to make further progress. Machines can be busy, so below the limit
# clients are evicted only after the longer times.
_GRACE = 2.0
_SILENCE_LIMIT = 10.0
_PROGRESS_LIMIT = 20.0
_EARLY = 2  # from this standing on, a login is not evicted below the limit

_BUSY = "too many clients are logging in at the same time"


class Login:
    """A pending login. ``id`` is the connection's id in events, 0 while it waits for a process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.id = 0
        self.place: Place | None = None
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_sent = False
        self.has_begun = False  # keys were exchanged
        self._clock = clock
        self._since = clock()
        # The session's own socket object: a duplicate would keep the connection open. Once the session has closed it,
        # its descriptor is -1, so a reused descriptor cannot be meant.
        self._sock: socket.socket | None = None

    def check(self) -> None:
        """Raise DialError if it was evicted before it had a process."""
        if self.place is None or not self.place.is_held:
            raise DialError("tcp", address=EMBEDDED, reason=_BUSY)

    def connect(self, number: int, sock: socket.socket) -> None:
        """Note that it has a process now, behind ``sock``."""
        self.id = number
        self._sock = sock

    def standing(self) -> int:
        """Return its standing, for `Shares`."""
        if self._sock is not None and self._sock.fileno() < 0:
            return 0  # the session is over, and its process about to end
        age = self._clock() - self._since
        if self.has_begun:
            return 4 if age < _PROGRESS_LIMIT else 2
        if self.has_sent or self._has_data_waiting():
            return 3 if age < _PROGRESS_LIMIT else 1
        if age < _GRACE:
            return 3  # it is new; that others were faster is not a reason to drop it
        return 2 if age < _SILENCE_LIMIT else 0

    def give_way(self) -> None:
        """Close the connection, or stop waiting for a process."""
        if self._sock is not None:
            with contextlib.suppress(OSError):  # closed by the session or the process
                self._sock.shutdown(socket.SHUT_RDWR)
        elif not self.turn.done():
            self.turn.set_exception(DialError("tcp", address=EMBEDDED, reason=_BUSY))

    def _has_data_waiting(self) -> bool:
        """Return whether the client has sent data that the process has not read yet."""
        if self._sock is None or self._sock.fileno() < 0 or sys.platform != "linux":
            return False
        try:
            return fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0") != b"\0\0\0\0"
        except OSError:
            return False


class Logins:
    """All pending logins. ``chance`` returns random numbers in [0, 1), ``clock`` the time in seconds."""

    def __init__(
        self, *, chance: Callable[[], float] = random.random, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._chance = chance
        self._clock = clock
        self._shares = Shares(MAX_LOGINS)
        self._processes: set[Login] = set()
        self._waiting: list[Login] = []
        self._numbered: dict[int, Login] = {}
        self.gave_way = 0  # number of connections so far

    def __len__(self) -> int:
        """Return their number."""
        return len(self._shares)

    @property
    def processes(self) -> int:
        """The number of processes, including those that are about to end."""
        return len(self._processes)

    async def enter(self, source: Source) -> Login:
        """Wait until a new connection may have a process, and return its login; raises DialError if it is evicted.

        The caller must call `started` or `abandon` then.
        """
        self._drop_early()
        login = Login(self._clock)
        login.place = self._shares.enter(source, lambda: self._give_way(login), standing=login.standing)
        login.check()  # never fails, because nobody is protected
        self._waiting.append(login)
        self._let_start()
        try:
            await login.turn
        except BaseException:
            self.abandon(login)
            raise
        return login

    def started(self, login: Login, number: int, sock: socket.socket) -> None:
        """Note that the login has a process: ``number`` in events, behind ``sock``."""
        login.connect(number, sock)
        self._numbered[number] = login

    def abandon(self, login: Login) -> None:
        """Remove a login: it gets no process, or has ended or logged in. May be called twice."""
        if login.place is not None:
            login.place.leave()
        self._numbered.pop(login.id, None)
        self._processes.discard(login)
        if login in self._waiting:
            self._waiting.remove(login)
        self._let_start()

    def heard(self, number: int, *, begun: bool) -> None:
        """Note that the client ``number`` has sent data; ``begun``: it has exchanged keys."""
        login = self._numbered.get(number)
        if login is not None:
            login.has_sent = True
            login.has_begun |= begun

    def over(self, number: int) -> None:
        """Note that the client ``number`` has logged in, or its process has ended."""
        login = self._numbered.get(number)
        if login is not None:
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
            login = min(self._waiting, key=self._held_with)  # the first among equals
            self._waiting.remove(login)
            if not login.turn.done():
                self._processes.add(login)
                login.turn.set_result(None)

    def _held_with(self, login: Login) -> int:
        return 0 if login.place is None else self._shares.held_by(login.place.source)
