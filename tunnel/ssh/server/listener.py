"""The process of the embedded SSH server: it takes connections from the bridge and forks a process for each.

It is small and single-threaded, and has asyncssh loaded, so that forking is cheap: memory is shared until it is
written. When the bridge's end of the control socket is closed, it takes no more connections, and ends with the last of
those that it has, which end with their own sockets. When the bridge has ended, the kernel kills it.
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
from tunnel.ssh.server.login import Peer, ServerConfig, serve
from tunnel.ssh.server.messages import Events, decode

_MESSAGE_LIMIT = 4096  # bytes
_IGNORED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR2,
)  # signals that the bridge handles, which may drain its tunnels first, or restart in place


def main(options: str) -> None:
    """Serve connections until the bridge wants no more.

    ``options`` is a JSON object: ``control`` and ``events`` are inherited descriptors (see
    `tunnel.ssh.server.messages`), ``host_key`` and ``authorized_keys`` paths or null, ``agent_forwarding`` a boolean.
    """
    given = json.loads(options)
    control, events = socket.socket(fileno=given["control"]), Events(given["events"])
    for descriptor in (given["control"], given["events"]):
        os.set_inheritable(descriptor, False)  # not by programs that users start
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    try:
        user = own_user()
        key = load_host_key(given["host_key"])
        _, count = load_authorized_keys(
            given["authorized_keys"], lambda message: events.tell("warning", id=0, message=message)
        )
    except UsageError as exc:
        events.tell("failed", message=exc.problem, setting=exc.setting or "", code=exc.code)
        return
    # asyncssh needs HOME, and would use a relative path unchanged.
    os.environ["HOME"] = home_folder() or user.home
    config = ServerConfig(user, key, given["authorized_keys"], events, agent_forwarding=bool(given["agent_forwarding"]))
    with contextlib.suppress(OSError):
        os.chdir(user.home)  # relative paths in SFTP start there
    raise_descriptor_limit()  # each connection needs one; programs of users get the old limit
    gc.freeze()  # keeps the garbage collector from writing to memory shared with the forked processes
    events.tell("ready", user=user.name, host_key=key.get_fingerprint(), keys=count)
    _Listener(control, config).run()


def _is_over(sock: socket.socket) -> bool:
    """Return whether the bridge has closed a connection already: in a flood it saves many useless processes."""
    poll = select.poll()
    poll.register(sock, 0)
    return any(happened & select.POLLHUP for _, happened in poll.poll(0))


class _Listener:
    def __init__(self, control: socket.socket, config: ServerConfig) -> None:
        self._control = control
        self._config = config
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        # The reading end of a pipe that only the process of a connection holds open → that process and its peer.
        self._children: dict[int, tuple[Child, Peer]] = {}

    def run(self) -> None:
        """Serve until the bridge has closed the control socket and the last connection is over."""
        takes = True
        while takes or self._children:
            for key, _ in self._selector.select():
                if key.fileobj is not self._control:
                    self._reap(key.fd)
                elif not self._take():
                    self._selector.unregister(self._control)
                    takes = False

    def _take(self) -> bool:
        """Take one connection; return False when the bridge will send no more."""
        data, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE_LIMIT, 1)
        if not data:
            return False
        message = decode(data)
        peer = Peer(int(message["id"]), str(message["client"]))
        if not descriptors:
            self._tell_gone(peer, "cannot accept the connection: too many open files (ulimit -n)")
            return True
        with socket.socket(fileno=descriptors[0]) as sock:
            if _is_over(sock):
                self._tell_gone(peer, "")
                return True
            try:
                self._fork(sock, peer)
            except OSError as exc:
                self._tell_gone(peer, f"cannot start a process: {exc.strerror}")
        return True

    def _fork(self, sock: socket.socket, peer: Peer) -> None:
        alive, pulse = os.pipe()
        try:
            self._children[alive] = fork(lambda: self._become(sock, peer)), peer
            self._selector.register(alive, selectors.EVENT_READ)
        finally:
            os.close(pulse)
            if alive not in self._children:
                os.close(alive)

    def _become(self, sock: socket.socket, peer: Peer) -> None:
        """Serve one connection, in its own process, which holds the pipe's writing end open until it ends."""
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # connections must survive a restart, even if they get its signal
        try:
            self._selector.close()
            self._control.close()
            for descriptor in self._children:
                os.close(descriptor)
            asyncio.run(serve(sock, self._config, peer))
        except Exception as exc:
            place = traceback.extract_tb(exc.__traceback__)[-1]
            problem = f"internal error: {exc!r} at {os.path.basename(place.filename)}:{place.lineno}"
            self._config.events.tell("warning", id=peer.id, message=problem)

    def _reap(self, alive: int) -> None:
        self._selector.unregister(alive)
        os.close(alive)
        child, peer = self._children.pop(alive)
        status = child.reap()
        ended_by = f"its process was killed by signal {-status}" if status < 0 else ""
        self._tell_gone(peer, ended_by)

    def _tell_gone(self, peer: Peer, problem: str) -> None:
        if problem:
            self._config.events.tell("warning", id=peer.id, message=problem)
        self._config.events.tell("gone", id=peer.id)
