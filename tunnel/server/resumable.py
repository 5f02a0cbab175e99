"""The lifecycle of a session at the bridge, which survives the loss of its WebSocket connections.

While a client is *attached*, bytes are relayed as in any tunnel. When its connection is lost, the session is
*detached*: it keeps the target's connection and the bytes that the client has not acknowledged, and waits for a client
with the right proof. `tunnel.server.session_registry` decides which client may resume, and how long a session waits.
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
from tunnel.protocol.capture import capture_resumable, restore_resumable
from tunnel.protocol.frames import TARGET_LOST, TARGET_REFUSED_DATA
from tunnel.protocol.keepalive import STALL_LIMIT
from tunnel.protocol.sender import RESERVED
from tunnel.server.budget import ATTACHED, DETACHED, UNCONFIRMED
from tunnel.server.http import Refusal
from tunnel.server.log import event
from tunnel.server.relay import FAREWELL_LIMIT, UNHEARD, closed_by_client, gave_way, unsent

if TYPE_CHECKING:
    from tunnel.net.address import Client
    from tunnel.net.channel import Channel
    from tunnel.protocol.control import ResumeRequest, SessionOffer
    from tunnel.protocol.resumable_stream import ResumableStream
    from tunnel.restart.state import Kept, Tree
    from tunnel.server.relay import Relay
    from tunnel.server.session_registry import SessionRegistry
    from tunnel.server.shares import Place


class ResumableLifecycle:
    """A session; see `tunnel.server.relay.Lifecycle` for its interface to the relay.

    ``offer`` is sent to the client. ``number`` identifies the session in the log, as its id is a secret. ``client`` is
    the client that is, or was last, connected; ``seat`` is the slot of an attached session among the tunnels.
    """

    def __init__(
        self, stream: ResumableStream, offer: SessionOffer, *, registry: SessionRegistry, client: Client, seat: Place
    ) -> None:
        self.stream = stream
        self.offer = offer
        self.client = client
        self._registry = registry
        self._budget = registry.budget
        self._seat = seat
        self._epoch = 0  # of the last accepted connection
        self._detached_at = 0.0
        self._target_is_closed = False
        self._tail_at: float | None = None  # when the half-closed target sent something last …
        self._tail = (0, False)  # … how much it had sent by then, and whether it had ended
        self._counted = -1  # bytes of the replay buffer that are counted in the registry, -1 if it has given way
        self.number = registry.next_number()

    @property
    def attached(self) -> bool:
        """Whether a client is connected."""
        return self.stream.attached

    @property
    def confirmed(self) -> bool:
        """Whether the client has ever sent anything in this session."""
        return self.stream.session.confirmed

    @property
    def _is_expected(self) -> bool:
        return self._registry.expects(self)

    def standing(self) -> int:
        """As `Relay.standing`."""
        return self._relay.standing()

    def memory_standing(self) -> int:
        """Return its standing for its memory: see `tunnel.server.budget`."""
        if not self.confirmed:
            return UNCONFIRMED
        return ATTACHED + self.standing() if self.attached or self._is_expected else DETACHED

    def take_over(
        self, request: ResumeRequest, wire: Channel, client: Client, seat: Callable[[ResumableLifecycle], Place],
        answer: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        """Continue over ``wire``, whose client has sent a valid proof, and take it over.

        ``seat`` takes a slot for a session that has none; ``answer`` makes the 101 from the number of bytes received.
        Raises Refusal, also from ``seat``; after any exception nothing has changed. All of this is one step, so that
        nothing can arrive on the old connection after the received bytes were counted.
        """
        if self._relay.is_over or self.stream.over:
            raise Refusal(HTTPStatus.GONE, "unknown-session", "the session is over")
        if request.epoch <= self._epoch:
            raise Refusal(
                HTTPStatus.CONFLICT,
                "stale-epoch",
                f"attempt {request.epoch} is not above {self._epoch}, the last accepted one",
                {"Wstunnel-Epoch": str(self._epoch)},
            )
        if not self.stream.can_attach(request.received):
            problem = f"the client cannot have received {request.received} bytes"
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad-offset", problem)
        head = answer(self.stream.session.delivered)
        new_seat: Place | None = None
        with self._registry.coming_back(self):
            try:
                if not self._seat.is_held:
                    new_seat = seat(self)
                self._registry.check_memory(self, client.source, self.stream.session.memory)
            except BaseException:
                if new_seat is not None:
                    new_seat.leave()
                raise
        # From here on only a bug can fail; it would end the session, not leave it half resumed.
        now = time.monotonic()
        away = 0.0 if self.stream.attached else now - self._detached_at
        if self.stream.attached:
            self._let_go()
        if new_seat is not None:
            self._seat.leave()
            self._seat = new_seat
        self._seat.move(client.source)
        if self._tail_at is not None:
            self._tail_at = now  # while the session was detached, the target was not read
        self._epoch = request.epoch
        self.client = client
        self.stream.attach(request.received, now, head)
        self._relay.take_wire(wire)
        self._counted = self.stream.session.memory
        self._registry.attached(self, self._counted)
        event(
            logging.INFO, "resumed", client=client.address, session=self.number, epoch=request.epoch, away=away,
            again=self.stream.session.unacknowledged,
        )  # fmt: skip
        self._relay.turn()

    def expire(self, reason: str) -> None:
        """End a detached session, for ``reason``: no client resumed it in time, or its slot is needed."""
        if not self._relay.is_over:
            self._relay.stop(reason)

    def give_way(self) -> None:
        """Give up the slot for another client; this client may resume when a slot is free."""
        self._leave_to_others(gave_way(), self.confirmed)

    def give_memory_way(self) -> None:
        """Give up the memory for another session, except for data that a connected client must get again."""
        self._counted = -1
        is_attached = self.memory_standing() >= ATTACHED
        self._leave_to_others(f"evicted: there is no memory left ({spelled('resume_memory')})", is_attached)

    def _leave_to_others(self, reason: str, may_come_back: bool) -> None:
        if self.stream.over:
            # The client has ended the session, and will not send again what the target has not read so far.
            asyncio.get_running_loop().call_later(FAREWELL_LIMIT, self._relay.stop, reason)
        elif may_come_back:
            self._detach(reason)
        else:
            self.expire(reason)

    def given_up(self) -> None:
        """Note that the client, which a restart of the bridge has cut off, has not reconnected at once."""
        self._detach("the client has not reconnected since the restart")

    # ---- for `Relay`

    def start(self, relay: Relay) -> None:
        self._pump = relay.pump
        # It refers to this lifecycle: a reference cycle would keep the memory of both longer than needed.
        self._relay: Relay = weakref.proxy(relay)
        self._registry.add(self)

    @property
    def may_read_target(self) -> bool:
        replay, budget = self.stream.session.sender.replay, self._budget
        if budget.allows(replay.memory):
            return True
        if replay.base < replay.end or self._pump.splice is not None:
            return False
        replay.trim()  # what is only kept for reuse must not keep it waiting until the next look at the clock
        return budget.allows(replay.memory)

    @property
    def may_splice(self) -> bool:
        return self._budget.has_room(RESERVED)

    def advance(self) -> bool:
        pump, stream, session = self._pump, self.stream, self.stream.session
        if pump.source_is_over or session.receiver.has_ended:
            self._pass_ends_on()
        if self._tail_at is not None:
            self._check_tail(self._tail_at)
        pump.write_wire()
        if session.over and self._is_over():
            return False
        if stream.attached and stream.connection.is_over:
            self._detach(self._loss_reason())
        elif session.sender.replay.memory != self._counted:
            self._counted = session.sender.replay.memory
            self._registry.count_memory(self, self._counted)
        return True

    def end(self, code: int, reason: str) -> None:
        self.stream.fail("shutdown", ConnectionLost("going-away", reason=reason), text=reason)

    def stopped(self) -> None:
        self._registry.remove(self)

    def capture(self, kept: Kept) -> Tree | None:
        if self.stream.failure:
            return None  # it is over
        return {
            "stream": capture_resumable(self.stream),
            "number": self.number,
            "epoch": self._epoch,
            "has_seat": self._seat.is_held,
            "detached_at": time.monotonic() if self.stream.attached else self._detached_at,
            "target_is_closed": self._target_is_closed,
            "tail_at": self._tail_at,
            "tail": list(self._tail),
            "waits": self._registry.capture_wait(self),
        }

    def restore(self, tree: Tree) -> None:
        """Restore the captured state of a session that is in the registry already; it is detached."""
        restore_resumable(self.stream, tree["stream"])
        self.number, self._epoch = tree["number"], tree["epoch"]
        self._detached_at, self._target_is_closed = tree["detached_at"], tree["target_is_closed"]
        self._tail_at, self._tail = tree["tail_at"], tuple(tree["tail"])
        self._registry.restore_wait(self, tree["waits"], self.stream.session.memory)

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
        """Close the target's connection; after an incomplete session with a reset, so that the target notices."""
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
            # From here on only a record is kept, for a client that has not yet received the final acks.
            self._target_is_closed = True
            self._relay.close_target()

    def _check_tail(self, since: float) -> None:
        """End the session if the half-closed target, silent ``since`` then, is silent for too long while it is read."""
        if self.stream.session.complete:
            return
        pump, now = self._pump, time.monotonic()
        tail = (pump.to_wire, pump.source_is_over)
        if tail != self._tail or not (pump.wants_source and self.may_read_target):
            self._tail_at, self._tail = now, tail
        elif now - since >= STALL_LIMIT:
            self.stream.fail("no-tail", ConnectionLost("no-tail", seconds=STALL_LIMIT))

    def _is_over(self) -> bool:
        """Return whether the session has ended and everything is delivered."""
        stream = self.stream
        if stream.failure:
            self._relay.limit_farewell(FAREWELL_LIMIT)
            return not stream.wants_wire_write
        # The client has ended the session; the target must still get what it sent before.
        self._relay.limit_farewell(STALL_LIMIT)
        return not stream.wants_sink_write or self._pump.sink_error is not None

    # ---- connections

    def _detach(self, reason: str) -> None:
        if self._relay.is_over or not (self.stream.attached or self._is_expected):
            return
        if self.stream.attached:
            self._let_go()
        self._seat.leave()
        self._detached_at = time.monotonic()
        self.stream.session.compact()
        event(
            logging.INFO, "detached", client=self.client.address, session=self.number, reason=reason,
            unconfirmed=self.stream.session.unacknowledged,
        )  # fmt: skip
        self._counted = self.stream.session.memory
        self._registry.detached(self, self._counted)

    def _let_go(self) -> None:
        """Drop the connection: further data on it is ignored."""
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
        return "client is silent" if lost.is_silent else "client closed the connection"
