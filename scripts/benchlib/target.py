"""The raw TCP target of the benchmark, on one loopback port: a source, a sink, an echo, and company for thousands.

Run as a program with the port as its argument. It speaks first, as sshd does (one byte, so that a client knows that its
tunnel is open), then obeys one line:

    source N    send N bytes                                        in a process of its own
    sink N      take N bytes, then answer one                       in a process of its own
    echo        send back what comes                                in a process of its own
    rest        answer one byte; nothing more happens               in the one loop for all
    pour        send for ever, in turn with all others that pour    in the one loop for all
    drain       take what comes, in turn with the others            in the one loop for all
    drained     say in one line NUMBER:BYTES for each that drains, and hang up; no number comes twice
"""

from __future__ import annotations

import itertools
import os
import resource
import selectors
import signal
import socket
import sys

NUMBERS = itertools.count()
GREETING = b"\n"
DONE = b"."
CHUNK = 1 << 20
TURN = 64 * 1024  # bytes that one of many moves before it is another's turn
LONGEST_ORDER = 64
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


def send_zeros(connection: socket.socket, total: int) -> None:
    zeros = memoryview(bytes(CHUNK))
    while total:
        size = min(total, CHUNK)
        connection.sendall(zeros[:size])
        total -= size


def swallow(connection: socket.socket, total: int) -> None:
    buffer = bytearray(CHUNK)
    while total:
        size = connection.recv_into(buffer, min(total, CHUNK))
        if not size:
            return
        total -= size
    connection.sendall(DONE)


def echo(connection: socket.socket) -> None:
    while piece := connection.recv(65536):
        connection.sendall(piece)


def obey(connection: socket.socket, order: str) -> None:
    """Carry out an order that has a process of its own, until the client hangs up."""
    connection.setblocking(True)
    try:
        match order.split():
            case ["source", total]:
                send_zeros(connection, int(total))
            case ["sink", total]:
                swallow(connection, int(total))
            case ["echo"]:
                echo(connection)
            case words:
                sys.exit(f"target: unknown order {words!r}")
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass  # a measurement that was given up: the client's side reports it


class Connection:
    """A connection in the loop: first its order is awaited, then it rests, pours or drains."""

    def __init__(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        self.sock = sock
        self._selector = selector
        self.event = READ
        self.number = next(NUMBERS)
        self.drained: int | None = None  # bytes, of one that drains
        self._order = b""
        self._serve = self._listen

    def serve(self) -> bool:
        """Do what has become possible; return whether the connection stays in the loop."""
        try:
            return self._serve()
        except BlockingIOError:
            return True
        except ConnectionError:
            return False

    def _listen(self) -> bool:
        while not self._order.endswith(b"\n"):  # bytes behind the order are for whoever carries it out
            piece = self.sock.recv(1)
            if not piece or len(self._order) == LONGEST_ORDER:
                return False
            self._order += piece
        match self._order:
            case b"rest\n":
                self.sock.sendall(DONE)
                self._serve = self._drain  # which ends it when the client hangs up
            case b"drain\n":
                self.drained = 0
                self._serve = self._drain
            case b"drained\n":
                connections = [key.data for key in self._selector.get_map().values() if key.data is not None]
                counts = [f"{each.number}:{each.drained}" for each in connections if each.drained is not None]
                self.sock.sendall(f"{' '.join(counts)}\n".encode())
                return False
            case b"pour\n":
                self.event = WRITE
                self._serve = self._pour
            case _:
                return not self._give_away()
        return True

    def _give_away(self) -> bool:
        """Leave the connection to a new process."""
        if os.fork():
            return True
        os.dup2(self.sock.fileno(), 3)
        os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        try:
            obey(socket.socket(fileno=3), self._order.decode("ascii"))
        finally:
            os._exit(0)

    def _pour(self) -> bool:
        self.sock.send(ZEROS)
        return True

    def _drain(self) -> bool:
        n = self.sock.recv_into(SPACE)
        if self.drained is not None:
            self.drained += n
        return n > 0


ZEROS, SPACE = bytes(TURN), bytearray(TURN)


def accept(listener: socket.socket, selector: selectors.BaseSelector) -> None:
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    try:
        sock.sendall(GREETING)
    except ConnectionError:
        sock.close()
    else:
        selector.register(sock, READ, Connection(sock, selector))


def main() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes
    selector = selectors.DefaultSelector()
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096) as listener:
        selector.register(listener, READ)
        while True:
            for key, _ in selector.select():
                connection = key.data
                if connection is None:
                    accept(listener, selector)
                elif not connection.serve():
                    selector.unregister(key.fd)
                    connection.sock.close()
                elif connection.event != key.events:
                    selector.modify(key.fd, connection.event, connection)


if __name__ == "__main__":
    main()
