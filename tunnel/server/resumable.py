"""A resumable tunnel at the bridge: a session that outlives its WebSocket connections.

While a client is *attached* bytes flow as in any session. When its connection is lost the session is *detached*: it
keeps the target's connection and what the client has not confirmed, moves nothing, and waits for a client that proves
to be the same one. Who may come back, and for how long a session waits, is decided by `tunnel.server.sessions`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from tunnel.errors import ConnectionLost, spelled
from tunnel.net.async_sockets import close_gently
from tunnel.protocol.frames import TARGET_LOST, TARGET_REFUSED_DATA
from tunnel.protocol.keepalive import STALL_LIMIT
from tunnel.protocol.message_size import LARGEST_MESSAGE
from tunnel.protocol.resume import ResumableStream
from tunnel.server.budget import ATTACHED, DETACHED, UNCONFIRMED
from tunnel.server.http import Refusal
from tunnel.server.log import event
from tunnel.server.session import FAREWELL_LIMIT, GAVE_WAY, UNHEARD, Session, closed_by_client, unsent

if TYPE_CHECKING:
    from tunnel.net.address import Client
    from tunnel.net.channel import Channel
    from tunnel.protocol.control import ResumeRequest, SessionOffer
    from tunnel.protocol.stream import ReadBuffers
    from tunnel.server.session import Ending
    from tunnel.server.sessions import Sessions
    from tunnel.server.shares import Place


class ResumableSession(Session):
    """A tunnel on Wire 2; see `Session` for ``wire`` and ``target``.

    ``offer`` is what the client is told of it, behind ``answer``, the 101. Its ``number`` stands for it in the log,
    where its id must not go. ``client`` is who is, or was last, connected; ``seat`` is the place of an attached session
    among the tunnels.
    """

    def __init__(
        self,
        wire: Channel,
        target: Channel,
        *,
        sessions: Sessions,
        offer: SessionOffer,
        client: Client,
        seat: Place,
        buffers: ReadBuffers,
        ping_interval: float,
        ping_timeout: float,
        answer: bytes = b"",
        max_message: int = LARGEST_MESSAGE,
    ) -> None:
        self._stream = ResumableStream(
            client=False,
            buffers=buffers,
            now=time.monotonic(),
            offer=offer,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            preamble=answer,
            max_message=max_message,
        )
        super().__init__(wire, target, self._stream)
        self._sessions = sessions
        self._seat = seat
        self._epoch = 0
        self._detached_at = 0.0
        self._target_is_closed = False
        self._tail_at: float | None = None  # when the target, once half-closed, spoke last
        self.number = sessions.next_number()
        self.offer = offer
        self.client = client
        sessions.add(self)

    @property
    def attached(self) -> bool:
        """Whether a client is connected."""
        return self._stream.attached

    @property
    def confirmed(self) -> bool:
        """Whether the client has ever said that it knows of this session."""
        return self._stream.confirmed

    def memory_standing(self) -> int:
        """Return what it has to show for its memory: see `tunnel.server.budget`."""
        if not self.confirmed:
            return UNCONFIRMED
        return ATTACHED + self.standing() if self.attached else DETACHED

    async def run(self) -> Ending:
        """As `Session.run`, but for a session that waits detached it takes as long as that."""
        try:
            return await super().run()
        finally:
            self._sessions.remove(self)
            self._seat.leave()

    def take_over(
        self, request: ResumeRequest, wire: Channel, client: Client, seat: Callable[[ResumableSession], Place],
        answer: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        """Go on over ``wire``, whose client's proof was found right; it is owned from now on.

        ``seat`` takes a seat for a session that has none; ``answer`` makes the 101 from what this end has received.
        Raises Refusal, by ``seat`` too, and then everything is as it was, as it is for any other exception of these
        two. All in one step, so that nothing comes over the old connection any more once it is known how much has come.
        """
        if self._over.done() or self._stream.over:
            raise Refusal(HTTPStatus.GONE, "unknown-session", "the session is over")
        if request.epoch <= self._epoch:
            raise Refusal(
                HTTPStatus.CONFLICT,
                "stale-epoch",
                f"attempt {request.epoch} is not above {self._epoch}, which was accepted last",
                {"Wstunnel-Epoch": str(self._epoch)},
            )
        if not self._stream.can_attach(request.received):
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad-offset", f"{request.received} cannot be what was received")
        head = answer(self._stream.delivered)
        new_seat: Place | None = None
        with self._sessions.coming_back(self):
            try:
                if not (self._stream.attached and self._seat.is_held):
                    new_seat = seat(self)
                self._sessions.check_memory(self, client.source, self._stream.replay.memory)
            except BaseException:
                if new_seat is not None:
                    new_seat.leave()
                raise
        # From here on nothing can fail but by a bug, which would end the session and not leave it half taken over.
        now = time.monotonic()
        away = 0.0 if self._stream.attached else now - self._detached_at
        if self._stream.attached:
            self._let_go()
        if new_seat is not None:
            self._seat.leave()
            self._seat = new_seat
        self._seat.move(client.source)
        self._epoch = request.epoch
        self.client = client
        self._stream.attach(request.received, now, head)
        self._pump.wire = wire
        self._pump.wire_error = None
        self._sessions.attached(self, self._stream.replay.memory)
        event(
            logging.INFO, "resumed", client=client.address, session=self.number, epoch=request.epoch, away=away,
            again=self._stream.unacknowledged,
        )  # fmt: skip
        self._turn(lambda: None)

    def expire(self, reason: str) -> None:
        """End a detached session, for ``reason``: nobody came in time, or others need the room."""
        if not self._over.done():
            self._asked_to_end = reason
            self._finish()

    def give_way(self) -> None:
        """Leave the seat to another client; this one may come back when there is room."""
        self._leave_to_others(GAVE_WAY, self.confirmed)

    def give_memory_way(self) -> None:
        """Leave the memory to another session, but for what must be sent again to a client that is connected."""
        is_attached = self.memory_standing() >= ATTACHED
        gave_way = "gave way to another session" if is_attached else "evicted"
        self._leave_to_others(f"{gave_way}: there is no memory left ({spelled('resume_memory')})", is_attached)

    def _leave_to_others(self, reason: str, may_come_back: bool) -> None:
        if self._stream.over:
            # The client has said that it is done, and will not send again what the target has not taken so far.
            self._loop.call_later(FAREWELL_LIMIT, self.expire, reason)
        elif may_come_back:
            self._detach(reason)
        else:
            self.expire(reason)

    # ---- as `Session` asks

    def _finish(self) -> None:
        super()._finish()
        self._sessions.remove(self)

    async def _part(self) -> None:
        if self._stream.failure and self._stream.attached:
            await close_gently(self._pump.wire.sock, UNHEARD)
        if self._stream.over and not self._stream.failure and not self._pump.source_is_over:
            await close_gently(self._target.sock)

    def _end(self, code: int, reason: str) -> None:
        self._stream.fail("shutdown", ConnectionLost("going-away", reason=reason), text=reason)

    def _pass_ends_on(self) -> None:
        pump, stream = self._pump, self._stream
        if stream.sink_ended and not stream.fin_delivered:
            self._half_close_target()
            stream.sink_half_closed()
            self._tail_at = time.monotonic()
        if pump.source_error:
            stream.source_failed(TARGET_LOST, pump.source_error.strerror or "")
        elif pump.source_is_over and stream.undelivered:
            stream.source_failed(TARGET_REFUSED_DATA, f"{stream.undelivered} bytes")
        elif pump.source_is_over:
            stream.source_ended()
        if stream.complete and not self._target_is_closed:
            # From here on only a record is kept, for a client that has not heard yet that all is well.
            self._watch(set())
            self._target_is_closed = True
            self._target.close()

    def _is_over(self) -> bool:
        stream = self._stream
        if not stream.over:
            return False
        if stream.failure:
            self._limit_farewell(FAREWELL_LIMIT)
            return not stream.wants_wire_write
        # The client has ended the session; what it sent before is still owed to the target.
        self._limit_farewell(STALL_LIMIT)
        return not stream.wants_sink_write or self._pump.sink_error is not None

    @property
    def _may_read_target(self) -> bool:
        return self._pump.wants_source and self._sessions.budget.allows(self._stream.replay.memory)

    def _read_target(self) -> None:
        if self._tail_at is not None:
            self._tail_at = time.monotonic()
        super()._read_target()

    def _tick(self) -> None:
        if self._tail_at is not None and time.monotonic() - self._tail_at >= STALL_LIMIT and not self._stream.complete:
            self._stream.fail("no-tail", ConnectionLost("no-tail", seconds=STALL_LIMIT))
        super()._tick()

    def _step(self) -> None:
        super()._step()
        if self._over.done():
            return
        if self._stream.attached and self._stream.wire_is_over:
            self._detach(self._wire_reason())
        else:
            self._sessions.count_memory(self, self._stream.replay.memory)

    def _detach(self, reason: str) -> None:
        if self._over.done() or not self._stream.attached:
            return
        self._let_go()
        self._seat.leave()
        self._detached_at = time.monotonic()
        self._stream.replay.compact()
        event(
            logging.INFO, "detached", client=self.client.address, session=self.number, reason=reason,
            unconfirmed=self._stream.unacknowledged,
        )  # fmt: skip
        self._sessions.detached(self, self._stream.replay.memory)

    def _let_go(self) -> None:
        """Abandon the connection without a word: nothing that still comes over it counts."""
        self._watch(set())
        self._stream.detach()
        self._pump.wire.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if not self._stream.wire_is_over:
            super()._set_timer()

    def _close_target(self) -> None:
        """Close the target's connection; a session that broke off resets it, lest it look finished to the target."""
        if self._target_is_closed:
            return
        pump, stream = self._pump, self._stream
        ended = stream.over and not stream.failure
        if ended or pump.source_is_over or pump.sink_error or stream.wants_sink_write or unsent(self._target):
            self._target.close()
        else:
            self._target.abort()

    def _wire_reason(self) -> str:
        error = self._pump.wire_error
        if error is not None:
            return error.strerror or str(error)
        if self._stream.violation is not None:
            return str(self._stream.violation)
        if self._stream.close is not None:
            return closed_by_client(self._stream.close.code, self._stream.close.reason)
        return "client is silent" if self._stream.is_silent else "client hung up"

    def _reason(self) -> str:
        stream = self._stream
        if self._asked_to_end:
            return self._asked_to_end
        if self._pump.source_error:
            return f"target lost: {self._pump.source_error.strerror or self._pump.source_error}"
        if stream.failure:
            return str(stream.failure)
        if stream.undelivered:
            return f"target refused {stream.undelivered} bytes"
        return "target ended" if self._pump.source_is_over else "client ended"
