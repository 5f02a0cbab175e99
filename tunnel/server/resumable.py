"""The lifecycle of a resumable tunnel at the bridge: a session that outlives its WebSocket connections.

While a client is *attached* bytes flow as in any tunnel. When its connection is lost the session is *detached*: it
keeps the target's connection and what the client has not confirmed, moves nothing, and waits for a client that proves
to be the same one. `tunnel.server.session_registry` decides who may come back, and for how long a session waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from tunnel.errors import ConnectionLost, spelled
from tunnel.net.async_sockets import close_gently
from tunnel.protocol.frames import TARGET_LOST, TARGET_REFUSED_DATA
from tunnel.protocol.keepalive import STALL_LIMIT
from tunnel.server.budget import ATTACHED, DETACHED, UNCONFIRMED
from tunnel.server.http import Refusal
from tunnel.server.log import event
from tunnel.server.relay import FAREWELL_LIMIT, UNHEARD, closed_by_client, gave_way, unsent

if TYPE_CHECKING:
    from tunnel.net.address import Client
    from tunnel.net.channel import Channel
    from tunnel.protocol.control import ResumeRequest, SessionOffer
    from tunnel.protocol.resumable_stream import ResumableStream
    from tunnel.server.relay import Relay
    from tunnel.server.session_registry import SessionRegistry
    from tunnel.server.shares import Place


class ResumableLifecycle:
    """A session; see `tunnel.server.relay.Lifecycle` for what the relay asks of it.

    Its ``offer`` is what the client is told of it. Its ``number`` stands for it in the log, where its id must not go.
    ``client`` is who is, or was last, connected; ``seat`` is the place of an attached session among the tunnels.
    """

    def __init__(
        self, stream: ResumableStream, offer: SessionOffer, *, registry: SessionRegistry, client: Client, seat: Place
    ) -> None:
        self.stream = stream
        self.offer = offer
        self.client = client
        self._registry = registry
        self._seat = seat
        self._epoch = 0  # of the last connection that was accepted
        self._detached_at = 0.0
        self._target_is_closed = False
        self._tail_at: float | None = None  # when the target, once half-closed, spoke last …
        self._tail = (0, False)  # … how much it had said then, and whether it had ended
        self.number = registry.next_number()

    @property
    def attached(self) -> bool:
        """Whether a client is connected."""
        return self.stream.attached

    @property
    def confirmed(self) -> bool:
        """Whether the client has ever said that it knows of this session."""
        return self.stream.session.confirmed

    def standing(self) -> int:
        """As `Relay.standing`."""
        return self._relay.standing()

    def memory_standing(self) -> int:
        """Return what it has to show for its memory: see `tunnel.server.budget`."""
        if not self.confirmed:
            return UNCONFIRMED
        return ATTACHED + self.standing() if self.attached else DETACHED

    def take_over(
        self, request: ResumeRequest, wire: Channel, client: Client, seat: Callable[[ResumableLifecycle], Place],
        answer: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        """Go on over ``wire``, whose client's proof was found right; it is owned from now on.

        ``seat`` takes a seat for a session that has none; ``answer`` makes the 101 from what this end has received.
        Raises Refusal, by ``seat`` too, and then everything is as it was, as it is for any other exception of these
        two. All in one step, so that nothing comes over the old connection any more once it is known how much has come.
        """
        if self._relay.is_over or self.stream.over:
            raise Refusal(HTTPStatus.GONE, "unknown-session", "the session is over")
        if request.epoch <= self._epoch:
            raise Refusal(
                HTTPStatus.CONFLICT,
                "stale-epoch",
                f"attempt {request.epoch} is not above {self._epoch}, which was accepted last",
                {"Wstunnel-Epoch": str(self._epoch)},
            )
        if not self.stream.can_attach(request.received):
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad-offset", f"{request.received} cannot be what was received")
        head = answer(self.stream.session.delivered)
        new_seat: Place | None = None
        with self._registry.coming_back(self):
            try:
                if not (self.stream.attached and self._seat.is_held):
                    new_seat = seat(self)
                self._registry.check_memory(self, client.source, self.stream.session.memory)
            except BaseException:
                if new_seat is not None:
                    new_seat.leave()
                raise
        # From here on nothing can fail but by a bug, which would end the session and not leave it half taken over.
        now = time.monotonic()
        away = 0.0 if self.stream.attached else now - self._detached_at
        if self.stream.attached:
            self._let_go()
        if new_seat is not None:
            self._seat.leave()
            self._seat = new_seat
        self._seat.move(client.source)
        if self._tail_at is not None:
            self._tail_at = now  # while the client was away, the target was not heard
        self._epoch = request.epoch
        self.client = client
        self.stream.attach(request.received, now, head)
        self._relay.take_wire(wire)
        self._registry.attached(self, self.stream.session.memory)
        event(
            logging.INFO, "resumed", client=client.address, session=self.number, epoch=request.epoch, away=away,
            again=self.stream.session.unacknowledged,
        )  # fmt: skip
        self._relay.turn()

    def expire(self, reason: str) -> None:
        """End a detached session, for ``reason``: nobody came in time, or others need the room."""
        if not self._relay.is_over:
            self._relay.stop(reason)

    def give_way(self) -> None:
        """Leave the seat to another client; this one may come back when there is room."""
        self._leave_to_others(gave_way(), self.confirmed)

    def give_memory_way(self) -> None:
        """Leave the memory to another session, but for what must be sent again to a client that is connected."""
        is_attached = self.memory_standing() >= ATTACHED
        how = "gave way to another session" if is_attached else "evicted"
        self._leave_to_others(f"{how}: there is no memory left ({spelled('resume_memory')})", is_attached)

    def _leave_to_others(self, reason: str, may_come_back: bool) -> None:
        if self.stream.over:
            # The client has said that it is done, and will not send again what the target has not taken so far.
            asyncio.get_running_loop().call_later(FAREWELL_LIMIT, self._relay.stop, reason)
        elif may_come_back:
            self._detach(reason)
        else:
            self.expire(reason)

    # ---- as `Relay` asks

    def start(self, relay: Relay) -> None:
        self._pump = relay.pump
        # It refers to this lifecycle: in a circle, the memory of both would not be freed at once.
        self._relay: Relay = weakref.proxy(relay)
        self._registry.add(self)

    @property
    def may_read_target(self) -> bool:
        return self._registry.budget.allows(self.stream.session.memory)

    def advance(self) -> bool:
        stream = self.stream
        self._pass_ends_on()
        self._check_tail()
        self._pump.write_wire()
        if stream.over and self._is_over():
            return False
        if stream.attached and stream.wire_is_over:
            self._detach(self._loss_reason())
        else:
            self._registry.count_memory(self, stream.session.memory)
        return True

    def end(self, code: int, reason: str) -> None:
        self.stream.fail("shutdown", ConnectionLost("going-away", reason=reason), text=reason)

    def stopped(self) -> None:
        self._registry.remove(self)

    async def part(self) -> None:
        stream, pump = self.stream, self._pump
        if stream.failure and stream.attached:
            await close_gently(pump.wire.sock, UNHEARD)
        if stream.over and not stream.failure and not pump.source_is_over:
            await close_gently(self._relay.target.sock)

    def close(self) -> None:
        self._seat.leave()
        self._close_target()

    def _close_target(self) -> None:
        """Close the target's connection; a session that broke off resets it, lest it look finished to the target."""
        if self._target_is_closed:
            return
        pump, stream, target = self._pump, self.stream, self._relay.target
        ended = stream.over and not stream.failure
        if ended or pump.source_is_over or pump.sink_error or stream.wants_sink_write or unsent(target):
            target.close()
        else:
            target.abort()

    def reason(self) -> str:
        stream, pump = self.stream, self._pump
        if pump.source_error:
            return f"target lost: {pump.source_error.strerror or pump.source_error}"
        if stream.failure:
            return str(stream.failure)
        if stream.session.undelivered:
            return f"target refused {stream.session.undelivered} bytes"
        return "target ended" if pump.source_is_over else "client ended"

    # ---- ends

    def _pass_ends_on(self) -> None:
        pump, stream = self._pump, self.stream
        if stream.sink_ended and not stream.session.receiver.fin_delivered:
            self._relay.half_close_target()
            stream.sink_half_closed()
            self._tail_at = time.monotonic()
            self._tail = (pump.to_wire, pump.source_is_over)
        if pump.source_error:
            stream.source_failed(TARGET_LOST, pump.source_error.strerror or "")
        elif pump.source_is_over and stream.session.undelivered:
            stream.source_failed(TARGET_REFUSED_DATA, f"{stream.session.undelivered} bytes")
        elif pump.source_is_over:
            stream.source_ended()
        if stream.session.complete and not self._target_is_closed:
            # From here on only a record is kept, for a client that has not heard yet that all is well.
            self._target_is_closed = True
            self._relay.close_target()

    def _check_tail(self) -> None:
        """End the session when the target, once half-closed, says nothing for too long while it is read."""
        if self._tail_at is None or self.stream.session.complete:
            return
        pump, now = self._pump, time.monotonic()
        tail = (pump.to_wire, pump.source_is_over)
        if tail != self._tail or not (pump.wants_source and self.may_read_target):
            self._tail_at, self._tail = now, tail
        elif now - self._tail_at >= STALL_LIMIT:
            self.stream.fail("no-tail", ConnectionLost("no-tail", seconds=STALL_LIMIT))

    def _is_over(self) -> bool:
        """Return whether nothing is owed to anybody, in a session that has ended."""
        stream = self.stream
        if stream.failure:
            self._relay.limit_farewell(FAREWELL_LIMIT)
            return not stream.wants_wire_write
        # The client has ended the session; what it sent before is still owed to the target.
        self._relay.limit_farewell(STALL_LIMIT)
        return not stream.wants_sink_write or self._pump.sink_error is not None

    # ---- connections

    def _detach(self, reason: str) -> None:
        if self._relay.is_over or not self.stream.attached:
            return
        self._let_go()
        self._seat.leave()
        self._detached_at = time.monotonic()
        self.stream.session.compact()
        event(
            logging.INFO, "detached", client=self.client.address, session=self.number, reason=reason,
            unconfirmed=self.stream.session.unacknowledged,
        )  # fmt: skip
        self._registry.detached(self, self.stream.session.memory)

    def _let_go(self) -> None:
        """Abandon the connection: nothing that still comes over it counts."""
        self.stream.detach()
        self._relay.drop_wire()

    def _loss_reason(self) -> str:
        lost, error = self.stream.connection, self._pump.wire_error
        if error is not None:
            return error.strerror or str(error)
        if lost.violation is not None:
            return str(lost.violation)
        if lost.close_frame is not None:
            return closed_by_client(lost.close_frame.code, lost.close_frame.reason)
        return "client is silent" if lost.is_silent else "client hung up"
