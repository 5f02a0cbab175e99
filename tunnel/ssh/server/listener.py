"""The process behind an embedded SSH server: takes connections from the bridge and forks a process for each.

It stays small and single-threaded, and has asyncssh loaded, so that a fork is cheap: memory is shared until it is
written to. It ends with the bridge, whose end of the control socket closes; connections end with their own sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import select
import selectors
import signal
import socket
import traceback

from tunnel.children.child import Child, fork
from tunnel.children.users import own_user
from tunnel.errors import UsageError
from tunnel.net.descriptors import raise_descriptor_limit
from tunnel.net.home import home_folder
from tunnel.ssh.server.keys import load_authorized_keys, load_host_key
from tunnel.ssh.server.login import Environment, Visitor, serve
from tunnel.ssh.server.messages import Events, decode

_MESSAGE_LIMIT = 4096  # bytes
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # are for the bridge, which may go on for a while


def main(options: str) -> None:
    """Serve connections until the bridge ends.

    ``options`` is a JSON object: ``control`` and ``events`` are descriptors that were passed on (see
    `tunnel.ssh.server.messages`), ``host_key`` and ``authorized_keys`` paths or null, ``agent_forwarding`` a boolean.
    """
    given = json.loads(options)
    control, events = socket.socket(fileno=given["control"]), Events(given["events"])
    for descriptor in (given["control"], given["events"]):
        os.set_inheritable(descriptor, False)  # by what users start
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    try:
        user = own_user()
        key = load_host_key(given["host_key"])
        _, count = load_authorized_keys(
            given["authorized_keys"], lambda message: events.tell("warning", id=0, message=message)
        )
    except UsageError as exc:
        events.tell("failed", message=exc.problem, setting=exc.setting or "")
        return
    # asyncssh fails without one, and takes a relative one as it is.
    os.environ["HOME"] = home_folder() or user.home
    environment = Environment(
        user, key, given["authorized_keys"], events, agent_forwarding=bool(given["agent_forwarding"])
    )
    with contextlib.suppress(OSError):
        os.chdir(user.home)  # where relative paths of SFTP start
    raise_descriptor_limit()  # here there is one for each connection; users get the old limit
    gc.freeze()  # keeps the collector from touching, and so copying, what all connections share
    events.tell("ready", user=user.name, host_key=key.get_fingerprint(), keys=count)
    _Listener(control, environment).run()


def _is_over(sock: socket.socket) -> bool:
    """Return whether the bridge has given up a connection by now: in a flood of them many are not worth a process."""
    poll = select.poll()
    poll.register(sock, 0)
    return any(happened & select.POLLHUP for _, happened in poll.poll(0))


class _Listener:
    def __init__(self, control: socket.socket, environment: Environment) -> None:
        self._control = control
        self._environment = environment
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        # The reading end of a pipe that only the process of a connection holds open → that process, and its visitor.
        self._children: dict[int, tuple[Child, Visitor]] = {}

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._control:
                    self._reap(key.fd)
                elif not self._take():
                    return

    def _take(self) -> bool:
        """Take one connection; return False at the end."""
        data, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE_LIMIT, 1)
        if not data:
            return False
        message = decode(data)
        visitor = Visitor(int(message["id"]), str(message["client"]))
        if not descriptors:
            self._tell_gone(visitor, "it could not be taken: too many open files (ulimit -n)")
            return True
        with socket.socket(fileno=descriptors[0]) as sock:
            if _is_over(sock):
                self._tell_gone(visitor, "")
                return True
            try:
                self._fork(sock, visitor)
            except OSError as exc:
                self._tell_gone(visitor, f"cannot start a process: {exc.strerror}")
        return True

    def _fork(self, sock: socket.socket, visitor: Visitor) -> None:
        alive, pulse = os.pipe()
        try:
            self._children[alive] = fork(lambda: self._become(sock, visitor)), visitor
            self._selector.register(alive, selectors.EVENT_READ)
        finally:
            os.close(pulse)
            if alive not in self._children:
                os.close(alive)

    def _become(self, sock: socket.socket, visitor: Visitor) -> None:
        """Go on as the process of one connection. It holds ``pulse`` open without ever touching it."""
        try:
            self._selector.close()
            self._control.close()
            for descriptor in self._children:
                os.close(descriptor)
            asyncio.run(serve(sock, self._environment, visitor))
        except Exception as exc:
            place = traceback.extract_tb(exc.__traceback__)[-1]
            problem = f"internal error: {exc!r} at {os.path.basename(place.filename)}:{place.lineno}"
            self._environment.events.tell("warning", id=visitor.id, message=problem)

    def _reap(self, alive: int) -> None:
        self._selector.unregister(alive)
        os.close(alive)
        child, visitor = self._children.pop(alive)
        status = child.reap()
        ended_by = f"its process was ended by signal {-status}" if status < 0 else ""
        self._tell_gone(visitor, ended_by)

    def _tell_gone(self, visitor: Visitor, problem: str) -> None:
        if problem:
            self._environment.events.tell("warning", id=visitor.id, message=problem)
        self._environment.events.tell("gone", id=visitor.id)
