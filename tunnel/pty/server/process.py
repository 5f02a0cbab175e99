"""One process: its output for subscribers, a bounded queue for its input, signals, and its end."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable

from tunnel.children.child import Child
from tunnel.children.family import Sweeper, kill_families, signal_sessions
from tunnel.children.spawn import Program
from tunnel.children.terminal import set_size
from tunnel.net.time_limit import within
from tunnel.pty.protocol.framing import ConnectError
from tunnel.pty.protocol.messages import Ended, Input, OutputKind, ProcessInfo, Size
from tunnel.pty.server.broadcast import Broadcast
from tunnel.restart.state import Handed, Kept, Tree

INPUT_LIMIT = 1 << 20  # bytes of queued input; one more message may exceed it
INPUT_PATIENCE = 10.0  # seconds that input may wait for room in the queue
INPUT_KEYS = 64  # remembered keys
RETURN_LIMIT = 30.0  # seconds at least for clients to reconnect to a process after a restart of the service
_READ_SIZE = 64 << 10
_READS = 16  # in a row, before others have their turn
_TAIL_LIMIT = (
    2 << 20
)  # bytes of output after the end: more than a pty or pipe can hold; background processes may add to it


class Process:
    """A process, also for a while after it has ended (``exited``). `begin` begins to read its output.

    ``user`` is the name of its user. ``on_exit`` is called once, when it has ended and all of its output has been read.
    """

    def __init__(
        self,
        info: ProcessInfo,
        user: str,
        program: Program,
        sweeper: Sweeper,
        *,
        on_pty: bool,
        scrollback: int,
        max_subscribers: int,
        on_exit: Callable[[Process], None],
    ) -> None:
        self.child = program.child
        self.pid = info.pid
        self.tag = info.tag
        self.user = user
        self.id = secrets.token_hex(16)
        self.info = info
        self.exited = asyncio.Event()
        self.timed_out = False
        self._on_pty = on_pty
        self._sweeper = sweeper
        self._broadcast = Broadcast(scrollback, max_subscribers, self._pause, self._on_subscribed, on_pty=self._on_pty)
        self.subscribe = self._broadcast.subscribe
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._started_at = time.monotonic()
        self._ended_at: float | None = None
        self._outputs = dict(program.outputs)
        self._paused = False
        self._stdin = program.stdin
        self._input: deque[memoryview] = deque()
        self._input_size = 0
        self._input_turn = asyncio.Lock()
        self._input_room = asyncio.Event()
        self._input_room.set()
        self._input_keys: deque[str] = deque(maxlen=INPUT_KEYS)
        self._input_ends = False
        self._kills_descendants = False
        self._time_limit: asyncio.TimerHandle | None = None
        self._time_limit_ends: float | None = None
        self._grace: float | None = None
        self._grace_ends: float | None = None
        self._grace_timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Begin to read its output and to wait for its end, and continue what a restart has interrupted."""
        self.child.when_ended(self._finish)
        for descriptor in self._outputs:
            self._loop.add_reader(descriptor, self._readable, descriptor)
        self._write_input()
        if self._time_limit_ends is not None:
            self._time_limit = self._call_at(self._time_limit_ends, self._time_out)
        if self._grace_ends is not None:
            self._grace_timer = self._call_at(self._grace_ends, self._grace_over)

    def _call_at(self, moment: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(max(0.0, moment - time.monotonic()), call)

    # --- Over a restart of the service

    def capture(self, kept: Kept) -> Tree:
        """Return what `take_over` needs. Times are those of the monotonic clock."""
        numbers = {each: kept.descriptor(each) for each in self._descriptors()}
        return {
            "pid": self.pid,
            "mark": self.child.mark,
            "status": self.child.status,
            "id": self.id,
            "user": self.user,
            "cmd": self.info.cmd,
            "args": self.info.args,
            "envs": None if self.info.envs is None else dict(self.info.envs),
            "cwd": self.info.cwd,
            "tag": self.tag,
            "on_pty": self._on_pty,
            "started": self._started_at,
            "ended": self._ended_at,
            "timed_out": self.timed_out,
            "kills_descendants": self._kills_descendants,
            "outputs": {kind: numbers[each] for each, kind in self._outputs.items()},
            "stdin": None if self._stdin is None else numbers[self._stdin],
            "input": list(self._input),
            "input_ends": self._input_ends,
            "input_keys": list(self._input_keys),
            "time_limit_ends": self._time_limit_ends,
            "grace": self._grace,
            "grace_ends": self._grace_ends,
            "broadcast": self._broadcast.capture(),
        }

    def _adopt(self, tree: Tree) -> None:
        self.id = tree["id"]
        self.timed_out = tree["timed_out"]
        self._started_at = tree["started"]
        self._ended_at = tree["ended"]
        self._kills_descendants = tree["kills_descendants"]
        self._input.extend(memoryview(bytes(each)) for each in tree["input"])
        self._input_size = sum(map(len, self._input))
        self._input_ends = tree["input_ends"]
        self._input_keys.extend(tree["input_keys"])
        self._broadcast.adopt(tree["broadcast"])
        if self.child.status is not None:
            self._broadcast.finish(Ended.of(self.child.status))
            self.exited.set()
            return
        self._time_limit_ends = tree["time_limit_ends"]
        self._grace, self._grace_ends = tree["grace"], tree["grace_ends"]
        if self._grace is not None and self._grace_ends is None:
            # Its clients have not left it: the restart has cut them off, and they need time to reconnect.
            self._grace_ends = time.monotonic() + max(self._grace, RETURN_LIMIT)

    def _descriptors(self) -> set[int]:
        return {*self._outputs, *([] if self._stdin is None else [self._stdin])}

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_at

    @property
    def ended_for(self) -> float:
        """Seconds since its end, 0 while it runs."""
        return 0.0 if self._ended_at is None else time.monotonic() - self._ended_at

    @property
    def kept(self) -> int:
        """The number of bytes of output kept."""
        return self._broadcast.kept

    @property
    def ended(self) -> Ended | None:
        """How the process ended; None while it runs."""
        return self._broadcast.ended

    # --- Output

    def _readable(self, descriptor: int) -> None:
        for _ in range(_READS):
            if self._paused or not self._read(descriptor):
                return

    def _read(self, descriptor: int) -> int:
        """Read once; return the number of bytes, 0 if there are none now or the output has ended."""
        try:
            data = os.read(descriptor, _READ_SIZE)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""  # EIO: no process has the terminal open any more
        if data:
            self._broadcast.write(self._outputs[descriptor], data)
        else:
            self._loop.remove_reader(descriptor)
            del self._outputs[descriptor]
            if descriptor != self._stdin:
                os.close(descriptor)
        return len(data)

    def _pause(self, on: bool) -> None:
        self._paused = on
        for descriptor in self._outputs:
            if on:
                self._loop.remove_reader(descriptor)
            else:
                self._loop.add_reader(descriptor, self._readable, descriptor)

    # --- Input

    async def send(self, given: Input, key: str | None = None) -> None:
        """Queue input for the process, in the order of the calls; wait for room for up to `INPUT_PATIENCE` seconds.

        Input with a known ``key`` is dropped: a client that got no answer has sent it again.

        Raises ConnectError, and queues nothing: ``internal`` for the wrong kind of input, ``failed_precondition`` if
        the input is closed, ``resource_exhausted`` if the process does not read its input, ``not_found`` if it has
        ended.
        """
        if self._on_pty != (given.kind == "pty"):
            kind = "on a terminal: send pty input" if self._on_pty else "not on a terminal: send stdin input"
            raise ConnectError("internal", f"process {self.pid} is {kind}, not {given.kind}")
        try:
            await within(INPUT_PATIENCE, self._wait_for_room())
        except TimeoutError:
            raise ConnectError(
                "resource_exhausted",
                f"process {self.pid} does not read its input: {self._input_size} bytes are waiting",
            ) from None
        if key is not None and key in self._input_keys:
            return
        if self.exited.is_set():
            raise ConnectError("not_found", f"process {self.pid} has ended")
        if self._stdin is None or self._input_ends:
            raise ConnectError("failed_precondition", f"the standard input of process {self.pid} is closed")
        if key is not None:
            self._input_keys.append(key)
        if given.data:
            self._input.append(memoryview(given.data))
            self._input_size += len(given.data)
            self._write_input()

    async def _wait_for_room(self) -> None:
        async with self._input_turn:
            await self._input_room.wait()

    def close_input(self) -> None:
        """Close standard input after the queued input. Raises ConnectError (``unknown``) on a terminal."""
        if self._on_pty:
            raise ConnectError("unknown", "the input of a terminal cannot be closed: send Ctrl+D (byte 4) instead")
        self._input_ends = True
        self._write_input()

    def _write_input(self) -> None:
        if self._stdin is None:
            return
        try:
            while self._input:
                written = os.write(self._stdin, self._input[0])
                self._input_size -= written
                if written == len(self._input[0]):
                    self._input.popleft()
                else:
                    self._input[0] = self._input[0][written:]
        except BlockingIOError:
            self._loop.add_writer(self._stdin, self._write_input)
        except OSError:
            self._drop_input()  # EPIPE, EIO: no process will read it
        else:
            self._loop.remove_writer(self._stdin)
            if self._input_ends:
                self._drop_input()
        if self._input_size < INPUT_LIMIT:
            self._input_room.set()
        else:
            self._input_room.clear()

    def _drop_input(self) -> None:
        self._input.clear()
        self._input_size = 0
        self._input_room.set()
        if self._stdin is not None:
            self._loop.remove_writer(self._stdin)
            if self._stdin not in self._outputs:
                os.close(self._stdin)
            self._stdin = None

    # --- Control

    def resize(self, size: Size) -> None:
        """Set the size of the terminal. Raises ConnectError (``internal``) if the process has none."""
        if not self._on_pty:
            raise ConnectError("internal", f"process {self.pid} is not on a terminal")
        for descriptor in self._descriptors():
            set_size(descriptor, size.cols, size.rows)

    def signal(self, number: int) -> None:
        """Send a signal to the session of the process, unless it has ended; SIGKILL to everything it has started.

        SIGTERM is a request, and spares processes that have left the session, as daemons do. SIGKILL spares nothing.
        """
        if number == signal.SIGKILL:
            kill_families((self.child,))
            self.kill_descendants_at_end()  # once more: one that forks and ends all the time may have been missed
        else:
            signal_sessions((self.child,), number)

    def kill_descendants_at_end(self) -> None:
        """When the process ends, kill everything it has started."""
        self._kills_descendants = True

    def kill_after(self, seconds: float) -> None:
        """Kill the process after ``seconds``."""
        self._time_limit_ends = time.monotonic() + seconds
        self._time_limit = self._call_at(self._time_limit_ends, self._time_out)

    def kill_when_left(self, grace: float | None) -> None:
        """Kill the process once it has had no subscriber for ``grace`` seconds; None: let it run."""
        self._grace = grace
        self._on_subscribed(self._broadcast.has_subscribers)

    def _on_subscribed(self, present: bool) -> None:
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = self._grace_ends = None
        if not present and self._grace is not None and not self.exited.is_set():
            self._grace_ends = time.monotonic() + self._grace
            self._grace_timer = self._call_at(self._grace_ends, self._grace_over)

    def _grace_over(self) -> None:
        """Kill the session, whose client has not reconnected. Processes that have left it, such as tmux, stay alive."""
        signal_sessions((self.child,), signal.SIGKILL)

    def _time_out(self) -> None:
        self.timed_out = True
        self.signal(signal.SIGKILL)

    # --- The end

    def _finish(self) -> None:
        if self._kills_descendants:
            self._sweeper.sweep(self.child, self._conclude)
        else:
            self._conclude()

    def _conclude(self) -> None:
        for timer in (self._time_limit, self._grace_timer):
            if timer is not None:
                timer.cancel()
        # Its output is in the pty or pipe by now. Background processes may continue to write forever.
        self._paused = False
        for descriptor in list(self._outputs):
            left = _TAIL_LIMIT
            while left > 0 and (size := self._read(descriptor)):
                left -= size
        status = self.child.reap()
        self._drop_input()
        for descriptor in list(self._outputs):
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._outputs.clear()
        self._broadcast.finish(Ended.of(status))
        self._ended_at = time.monotonic()
        self.exited.set()
        self._on_exit(self)


def take_over(
    tree: Tree,
    handed: Handed,
    sweeper: Sweeper,
    *,
    scrollback: int,
    max_subscribers: int,
    on_exit: Callable[[Process], None],
) -> Process:
    """Return the process that `Process.capture` has described; a running one continues with `Process.begin`."""
    numbers = {*tree["outputs"].values(), *([] if tree["stdin"] is None else [tree["stdin"]])}
    descriptors = {number: handed.descriptor(number) for number in numbers}
    outputs: dict[int, OutputKind] = {descriptors[number]: kind for kind, number in tree["outputs"].items()}
    process = Process(
        ProcessInfo(tree["pid"], tree["cmd"], tuple(tree["args"]), tree["envs"], tree["cwd"], tree["tag"]),
        tree["user"],
        Program(
            Child(tree["pid"], tree["mark"], tree["status"]),
            outputs,
            None if tree["stdin"] is None else descriptors[tree["stdin"]],
        ),
        sweeper,
        on_pty=tree["on_pty"],
        scrollback=scrollback,
        max_subscribers=max_subscribers,
        on_exit=on_exit,
    )
    process._adopt(tree)
    return process
