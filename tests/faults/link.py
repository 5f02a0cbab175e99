"""A link between client and bridge that fails on purpose: a TCP proxy of one thread, for any number of connections.

    with Link(bridge_port, plan={1: Plan(Cut(1234, "up", "rst"))}) as link:
        …                                   # the client dials link.url
        link.break_all("silence")           # packets vanish, both sockets stay open
        link.refuse_new()                   # new connections are refused
        link.accept_new()

It knows bytes and the head of a request, nothing of WebSocket, and imports nothing of the project or of pytest.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import select
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeVar

T = TypeVar("T")
Direction = Literal["up", "down"]  # from the client to the bridge, and back
Break = Literal["rst", "fin", "silence"]
Side = Literal["client", "bridge", "both"]
Answer = bytes | Callable[[bytes], bytes]  # what is sent to the client, perhaps made from the head of its request

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
CHUNK = 256 * 1024
DELAYED_LIMIT = 64 << 20  # bytes that are on their way at most where there is latency
HEAD_LIMIT = 16 * 1024
LIMIT = 20.0  # seconds for the thread to do what it was told
_BLANK_LINE = b"\r\n\r\n"
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Cut:
    """Break the connection as soon as ``after`` bytes went in ``direction``; not one byte more gets through.

    ``side`` is where the break is felt; towards the other one there is silence from then on.
    """

    after: int
    direction: Direction = "down"
    how: Break = "rst"
    side: Side = "both"


class Plan:
    """What happens to one connection; without arguments nothing does.

    ``cuts``: the first to be reached counts. ``latency`` in seconds, and ``rate`` in bytes a second, each way.
    ``answer`` goes to the client in place of the bridge, which hears nothing. ``refuse``: reset when accepted.
    """

    def __init__(
        self,
        *cuts: Cut,
        latency: float = 0.0,
        rate: float | None = None,
        answer: Answer | None = None,
        refuse: bool = False,
    ) -> None:
        self.cuts = cuts
        self.latency = latency
        self.rate = rate
        self.answer = answer
        self.refuse = refuse


Plans = Plan | Mapping[int, Plan] | Callable[[int], Plan]  # for all, or by the number of the connection, from 1


class Flow:
    """One direction of a connection. ``count`` is how many bytes the receiver's kernel has taken."""

    def __init__(self, source: socket.socket, sink: socket.socket, plan: Plan, cut: Cut | None) -> None:
        self.source = source
        self.sink = sink
        self.cut = cut
        self.count = 0
        self.ended = False  # the source has
        self.shut = False  # the sink knows of it
        self._latency = plan.latency
        self._rate = plan.rate
        self._pending: deque[tuple[float, memoryview]] = deque()
        self._pending_bytes = 0
        self._next_at = 0.0  # when the rate lets something pass again

    @property
    def reached_cut(self) -> bool:
        return self.cut is not None and self.count >= self.cut.after

    def _room(self) -> int:
        room = CHUNK
        if self._latency:
            room = min(room, DELAYED_LIMIT - self._pending_bytes)
        elif self._pending:
            room = 0
        if self.cut is not None:
            room = min(room, self.cut.after - self.count - self._pending_bytes)
        if self._rate:
            room = min(room, max(1, int(self._rate / 50)))
        return room

    def wants_read(self, now: float) -> bool:
        return not self.ended and now >= self._next_at and self._room() > 0

    def wants_write(self, now: float) -> bool:
        return bool(self._pending) and self._pending[0][0] <= now

    def wake_at(self, now: float) -> float | None:
        """When something will be possible that is not now, unless a socket says so."""
        times = [self._next_at] if self._next_at > now and not self.ended else []
        if self._pending and self._pending[0][0] > now:
            times.append(self._pending[0][0])
        return min(times, default=None)

    def read(self, buffer: memoryview, now: float) -> memoryview:
        """Take in what the source has, and pass it on as far as that is possible at once; return what came."""
        n = self.source.recv_into(buffer[: self._room()])
        if n == 0:
            self.ended = True
            self.write(now)
            return buffer[:0]
        if self._rate:
            self._next_at = max(now, self._next_at) + n / self._rate
        sent = 0
        if not self._pending and not self._latency:
            sent = self._send(buffer[:n])
        if sent < n:
            self._pending.append((now + self._latency, memoryview(bytes(buffer[sent:n]))))
            self._pending_bytes += n - sent
        return buffer[:n]

    def write(self, now: float) -> None:
        while self._pending and self._pending[0][0] <= now:
            due, chunk = self._pending.popleft()
            sent = self._send(chunk)
            self._pending_bytes -= sent
            if sent < len(chunk):
                self._pending.appendleft((due, chunk[sent:]))
                break
        if self.ended and not self._pending and not self.shut:
            self.shut = True
            self.sink.shutdown(socket.SHUT_WR)

    def _send(self, data: memoryview) -> int:
        try:
            sent = self.sink.send(data)
        except BlockingIOError:
            return 0
        self.count += sent
        return sent


class Connection:
    """One connection through the link, as a test sees it: ``number`` from 1, and what became of it.

    ``request`` and ``response`` are the heads that the client and the bridge have sent; ``opened_at`` and
    ``last_byte_at`` are of the monotonic clock; ``broken`` says how the link broke it, and ``over`` that the link has
    let go of it for whatever reason.
    """

    def __init__(self, number: int, plan: Plan, client: socket.socket, bridge: socket.socket | None) -> None:
        self.number = number
        self.plan = plan
        self.client = client
        self.bridge = bridge
        self.request = b""
        self.response = b""
        self.opened_at = self.last_byte_at = time.monotonic()
        self.broken: Break | None = None
        self.over = False
        self.connected = False
        self.flows: dict[Direction, Flow] = {}
        if bridge is not None:
            for direction, source, sink in (("up", client, bridge), ("down", bridge, client)):
                cuts = [cut for cut in plan.cuts if cut.direction == direction]
                cut = min(cuts, key=lambda cut: cut.after, default=None)
                self.flows[direction] = Flow(source, sink, plan, cut)  # type: ignore[index] # mypy sees a str

    @property
    def up(self) -> int:
        """Bytes that went from the client to the bridge."""
        return self.flows["up"].count if self.flows else 0

    @property
    def down(self) -> int:
        """Bytes that went from the bridge to the client."""
        return self.flows["down"].count if self.flows else 0

    def note_head(self, direction: Direction, data: memoryview) -> None:
        """Keep what comes until the blank line."""
        if direction == "up":
            self.request = _head(self.request, data)
        else:
            self.response = _head(self.response, data)

    def bridge_lets_go(self, seconds: float) -> bool:
        """Wait until the bridge has closed or reset a connection on which the link keeps silent."""
        assert self.bridge is not None
        poll = select.poll()
        poll.register(self.bridge, select.POLLRDHUP)
        return bool(poll.poll(seconds * 1000))


class Link:
    """The proxy; ``bridge_port`` on loopback is where it leads to until `flip`. Leaving it breaks what is left."""

    def __init__(self, bridge_port: int, plan: Plans | None = None) -> None:
        self._bridge_port = bridge_port
        self._plans: Plans = Plan() if plan is None else plan
        self._stalled: set[Direction] = set()
        self._listener = _bind()
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[Connection] = []
        self._alive: set[Connection] = set()
        self._changed = threading.Condition()
        self._buffer = memoryview(bytearray(CHUNK))
        self._selector = selectors.DefaultSelector()
        self._registered: dict[socket.socket, int] = {}
        self._timers: list[tuple[float, int, Connection]] = []
        self._order = itertools.count()
        self._orders: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._waker, self._wakened = socket.socketpair()
        self._wakened.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self._failure: BaseException | None = None

    # ---- the test's side

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def broken(self) -> int:
        """How many connections the link has broken so far."""
        return sum(connection.broken is not None for connection in self.connections)

    def __enter__(self) -> Self:
        self._listen()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._orders.put(None)
            self._waker.send(b"!")
            self._thread.join(LIMIT)
        for sock in (self._listener, self._waker, self._wakened):
            sock.close()
        self._selector.close()
        if self._failure is not None and error is None:
            raise self._failure

    def plan(self, plans: Plans) -> None:
        """Let this happen to connections that are yet to come."""
        self._do(lambda: setattr(self, "_plans", plans))

    def flip(self, bridge_port: int) -> None:
        """Lead connections that are yet to come to another bridge."""
        self._do(lambda: setattr(self, "_bridge_port", bridge_port))

    def stall(self, *directions: Direction) -> None:
        """Let nothing pass in these directions, and in the others everything; the sockets stay open."""
        self._do(lambda: self._set_stalled(set(directions)))

    def break_all(self, how: Break, side: Side = "both") -> int:
        """Break all connections that there are; return how many those were."""

        def work() -> int:
            alive = [connection for connection in self._alive if connection.broken is None]
            for connection in alive:
                self._break(connection, how, side)
            return len(alive)

        return self._do(work)

    def let_go_of_broken(self) -> None:
        """Close what is still open of connections that were broken; those in silence do not end by themselves."""

        def work() -> None:
            for connection in [each for each in self._alive if each.broken is not None]:
                self._let_go(connection, abort=True)

        self._do(work)

    def refuse_new(self) -> None:
        """Refuse connections, as a machine does on which nothing listens; those that exist go on."""

        def work() -> None:
            self._watch(self._listener, 0, None)
            # Linux lets go of the queue, but not of the port.
            self._listener.shutdown(socket.SHUT_RDWR)

        self._do(work)

    def accept_new(self) -> None:
        self._do(self._listen)

    def wait_for_connection(self, number: int, seconds: float = LIMIT) -> Connection:
        """Wait until that many connections have come, and return the last of them."""
        self._wait(lambda: len(self.connections) >= number, f"{number} connections", seconds)
        return self.connections[number - 1]

    def wait_for_bytes(self, direction: Direction, count: int, seconds: float = LIMIT) -> None:
        """Wait until ``count`` bytes have passed in that direction, on all connections together."""

        def total() -> int:
            return sum(each.up if direction == "up" else each.down for each in self.connections)

        self._wait(lambda: total() >= count, f"{count} bytes {direction}", seconds)

    def wait_for_breaks(self, count: int, seconds: float = LIMIT) -> None:
        """Wait until the link has broken that many connections."""
        self._wait(lambda: self.broken >= count, f"{count} broken connections", seconds)

    def _wait(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, seconds):
                seen = [(each.number, each.up, each.down, each.broken, each.over) for each in self.connections]
                raise AssertionError(f"no {what} within {seconds} s; number, up, down, broken, over: {seen[-20:]}")

    def _do(self, work: Callable[[], T]) -> T:
        """Let the thread do ``work``, and wait for its result."""
        if self._failure is not None:
            raise self._failure
        results: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._orders.put(lambda: results.put(work()))
        self._waker.send(b"!")
        return results.get(timeout=LIMIT)

    # ---- the thread's side

    def _run(self) -> None:
        try:
            self._watch(self._wakened, READ, None)
            while self._turn():
                pass
        except BaseException as exc:
            self._failure = exc
        finally:
            for connection in list(self._alive):
                connection.broken = connection.broken or "rst"
                self._let_go(connection, abort=True)

    def _listen(self) -> None:
        self._listener.listen(1024)
        self._watch(self._listener, READ, None)

    def _turn(self) -> bool:
        limit = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        ready = self._selector.select(limit)
        now = time.monotonic()
        touched: dict[Connection, None] = {}
        for key, events in ready:
            if key.fileobj is self._wakened:
                self._wakened.recv(1000)
                while not self._orders.empty():
                    order = self._orders.get()
                    if order is None:
                        return False
                    order()
            elif key.fileobj is self._listener:
                self._accept()
            elif key.data in self._alive:
                self._move(key.data, key.fileobj, events, now)  # type: ignore[arg-type] # only sockets are registered
                touched[key.data] = None
        while self._timers and self._timers[0][0] <= now:
            connection = heapq.heappop(self._timers)[2]
            if connection in self._alive and connection.broken is None:
                flowing = [flow for direction, flow in connection.flows.items() if direction not in self._stalled]
                self._attempt(connection, [flow.write for flow in flowing], now)
                touched[connection] = None
        for connection in touched:
            self._settle(connection, now)
        if touched:
            with self._changed:
                self._changed.notify_all()
        return True

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            client.setblocking(False)
            number = len(self.connections) + 1
            plan = _plan_for(self._plans, number)
            bridge = None
            if plan.answer is None and not plan.refuse:
                bridge = socket.socket()
                if plan.rate:  # a slow line holds little; the kernel's own buffers grow to what they like
                    bridge.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)
                bridge.setblocking(False)
                bridge.connect_ex(("127.0.0.1", self._bridge_port))
            for sock in (client, bridge):
                if sock is not None:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(number, plan, client, bridge)
            self._alive.add(connection)
            if plan.refuse:
                self._break(connection, "rst", "both")
            with self._changed:
                self.connections.append(connection)
                self._changed.notify_all()
            self._settle(connection, time.monotonic())

    def _move(self, connection: Connection, sock: socket.socket, events: int, now: float) -> None:
        """Do what ``sock`` is ready for."""
        if connection.broken is not None:
            self._discard(connection, sock)
        elif connection.bridge is None:
            self._answer(connection)
        elif not connection.connected:
            connection.connected = connection.bridge.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            if not connection.connected:
                self._let_go(connection, abort=True)
        else:
            work: list[Callable[[float], object]] = []
            for direction, flow in connection.flows.items():
                if direction not in self._stalled:
                    if flow.sink is sock and events & WRITE:
                        work.append(flow.write)
                    if flow.source is sock and events & READ and flow.wants_read(now):
                        work.append(lambda now, flow=flow: self._read(connection, flow, now))  # type: ignore[misc]
            self._attempt(connection, work, now)

    def _attempt(self, connection: Connection, work: list[Callable[[float], object]], now: float) -> None:
        """Do ``work``; if one side has broken the connection, break it towards the other side too."""
        try:
            for step in work:
                step(now)
        except BlockingIOError:
            pass
        except OSError:
            self._let_go(connection, abort=True)

    def _read(self, connection: Connection, flow: Flow, now: float) -> None:
        data = flow.read(self._buffer, now)
        connection.last_byte_at = now
        connection.note_head("up" if flow is connection.flows["up"] else "down", data)

    def _answer(self, connection: Connection) -> None:
        """Play the server: read the head of the request, then send what the plan says and hang up."""
        try:
            data = connection.client.recv(HEAD_LIMIT)
            connection.note_head("up", memoryview(data))
            if connection.request.endswith(_BLANK_LINE):
                answer = connection.plan.answer
                assert answer is not None
                connection.client.sendall(answer(connection.request) if callable(answer) else answer)
                self._break(connection, "fin", "both")
            elif not data:
                self._let_go(connection)
        except OSError:
            self._let_go(connection)

    def _settle(self, connection: Connection, now: float) -> None:
        """After something happened: carry out the cut that was reached, and wait for what can happen next."""
        flows = connection.flows
        if connection not in self._alive:
            return
        if connection.broken is None and (connection.connected or connection.bridge is None):
            for flow in flows.values():
                if flow.cut is not None and flow.reached_cut:
                    self._break(connection, flow.cut.how, flow.cut.side)
                    return
            if flows and all(flow.shut for flow in flows.values()):
                self._let_go(connection)
                return
        self._watch_connection(connection, now)

    def _watch_connection(self, connection: Connection, now: float) -> None:
        if connection.broken is not None:
            return
        if connection.bridge is None:
            self._watch(connection.client, READ, connection)
            return
        if not connection.connected:
            self._watch(connection.bridge, WRITE, connection)
            return
        wanted = {connection.client: 0, connection.bridge: 0}
        for direction, flow in connection.flows.items():
            if direction in self._stalled:
                continue
            wanted[flow.source] |= READ if flow.wants_read(now) else 0
            wanted[flow.sink] |= WRITE if flow.wants_write(now) else 0
            if (at := flow.wake_at(now)) is not None:
                heapq.heappush(self._timers, (at, next(self._order), connection))
        for sock, events in wanted.items():
            self._watch(sock, events, connection)

    def _watch(self, sock: socket.socket, events: int, connection: Connection | None) -> None:
        before = self._registered.get(sock, 0)
        if before == events:
            return
        if not events:
            self._selector.unregister(sock)
            del self._registered[sock]
            return
        (self._selector.modify if before else self._selector.register)(sock, events, connection)
        self._registered[sock] = events

    def _set_stalled(self, directions: set[Direction]) -> None:
        self._stalled = directions
        now = time.monotonic()
        for connection in list(self._alive):
            self._settle(connection, now)

    def _break(self, connection: Connection, how: Break, side: Side) -> None:
        connection.broken = how
        sides: dict[Side, socket.socket | None] = {"client": connection.client, "bridge": connection.bridge}
        for name, sock in sides.items():
            if sock is None:
                continue
            self._watch(sock, 0, connection)
            if side not in ("both", name) or how == "silence":
                continue
            if how == "rst":
                _abort(sock)
                continue
            try:
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                sock.close()  # it is broken already
            else:
                # What still comes is read, or closing would be a reset after all.
                self._watch(sock, READ, connection)
        if all(sock is None or sock.fileno() < 0 for sock in sides.values()):
            self._let_go(connection)
        with self._changed:
            self._changed.notify_all()

    def _discard(self, connection: Connection, sock: socket.socket) -> None:
        try:
            if sock.recv_into(self._buffer):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._watch(sock, 0, connection)
        sock.close()
        if all(each is None or each.fileno() < 0 for each in (connection.client, connection.bridge)):
            self._let_go(connection)

    def _let_go(self, connection: Connection, *, abort: bool = False) -> None:
        for sock in (connection.client, connection.bridge):
            if sock is not None and sock.fileno() >= 0:
                self._watch(sock, 0, connection)
                if abort:
                    _abort(sock)
                sock.close()
        self._alive.discard(connection)
        connection.over = True
        with self._changed:
            self._changed.notify_all()


def _head(before: bytes, data: memoryview) -> bytes:
    if before.endswith(_BLANK_LINE) or len(before) >= HEAD_LIMIT:
        return before
    head, end, _ = (before + bytes(data[:HEAD_LIMIT])).partition(_BLANK_LINE)
    return head + end


def _plan_for(plans: Plans, number: int) -> Plan:
    if isinstance(plans, Plan):
        return plans
    return plans(number) if callable(plans) else plans.get(number, Plan())


def _bind() -> socket.socket:
    """A socket with a free port that it keeps when it stops to listen: Linux lets it have one only if it names it."""
    with socket.socket() as probe, socket.socket() as sock:
        for each in (probe, sock):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        sock.bind(probe.getsockname())
        sock.setblocking(False)
        return socket.socket(fileno=sock.detach())


def _abort(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    sock.close()
