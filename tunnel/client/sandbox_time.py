"""Extends the time of a sandbox while a session with it is open, with one thread for each call.

`tunnel.provider.keepalive` decides when. Each call first asks the provider whether the sandbox is running, as extending
the time would also wake it.
"""

from __future__ import annotations

import _thread
import time

from tunnel.client.outage import span
from tunnel.errors import ProviderError
from tunnel.provider.keepalive import KeepAlive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tunnel.client.sandbox import ProvidedSandbox

LOOK = 1.0  # seconds between two checks whether a call has ended
JUMP = 5.0  # seconds that only the wall clock counts: this machine was suspended, and the sandbox was not


class SandboxTime:
    """Extends the time of ``sandbox``; ``notice`` gets lines for the user, ``step`` those for -v."""

    def __init__(
        self, sandbox: ProvidedSandbox, notice: Callable[[str], object], step: Callable[[str, str], object]
    ) -> None:
        self._sandbox = sandbox
        self._notice = notice
        self._step = step
        known = sandbox.cache.load(sandbox.id)
        now, wall = time.monotonic(), time.time()
        left = float(sandbox.timeout) if known is None else max(0.0, known.until - wall)
        self._times = KeepAlive(sandbox.keep_alive, sandbox.timeout, left, now)
        self._lead = wall - now  # of the wall clock
        self._checked = wall  # when the sandbox's time was last heard of
        self._calling = False
        self._outcome: Callable[[float], object] | None = None  # what follows from the last call

    def look(self, now: float, sent: int) -> float:
        """Do what is due at ``now``, with ``sent`` bytes typed or sent so far; return when to call this again."""
        times = self._times
        lead, before = time.time() - now, self._lead
        self._lead = lead
        if lead - before > JUMP:
            times.jumped(lead - before, now)
        times.note_sent(sent, now)
        if self._calling:
            if self._outcome is None:
                return now + LOOK
            outcome, self._outcome, self._calling = self._outcome, None, False
            outcome(now)
        if times.is_due(now):
            self._begin(now)
        if (left := times.announcement(now)) is not None:
            self._notice(
                f"sandbox {self._sandbox.id} ends or is paused in {span(left)}: its time cannot be extended further"
            )
        return now + LOOK if self._calling else times.next_look(now)

    def _begin(self, now: float) -> None:
        self._calling = True
        try:
            _thread.start_new_thread(self._call, (self._times.expected(now),))
        except RuntimeError as exc:  # no thread can be started
            error = ProviderError("api-failed", api=self._sandbox.api.name, problem=exc)
            self._outcome = lambda now: self._failed(error, now)

    def _call(self, expected: float) -> None:
        """Ask, and extend the time if less than ``expected`` is left: the work of the thread."""
        try:
            self._outcome = self._ask(expected)
        except ProviderError as exc:
            error = exc
            self._outcome = lambda now: self._failed(error, now)
        except Exception as exc:  # reported from here, as nobody waits for the thread
            problem = ProviderError("api-failed", api=self._sandbox.api.name, problem=repr(exc))
            self._outcome = lambda now: self._failed(problem, now)

    def _ask(self, expected: float) -> Callable[[float], object]:
        sandbox, times = self._sandbox, self._times
        known, checked = sandbox.cache.load(sandbox.id), self._checked
        self._checked = time.time()
        if known is not None and known.asked > checked and (found := known.until - self._checked) > expected:
            return lambda now: times.lives(found, now)  # another session has extended it
        details = sandbox.api.details(sandbox.id)
        if details.state == "paused":
            return times.sleeps
        if details.left > expected:
            left = details.left
            return lambda now: times.lives(left, now)
        access = sandbox.api.connect(sandbox.id, sandbox.timeout)
        self._checked = time.time()
        sandbox.cache.store(sandbox.id, access)
        left = sandbox.api.details(sandbox.id).left
        self._step("sandbox", f"{sandbox.id}: its time is extended, {left:.0f} s are left")
        return lambda now: times.extended(left, now)

    def _failed(self, error: ProviderError, now: float) -> None:
        self._step("sandbox", str(error))
        if error.code == "sandbox-unknown":
            self._times.is_over()  # the session reports it
        elif line := self._times.failed(error, now):
            self._notice(line)
