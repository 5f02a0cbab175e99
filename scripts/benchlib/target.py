"""The raw TCP target of the benchmark: a source, a sink and an echo on one loopback port.

Run as a program with the port as its argument. It speaks first, as sshd does (one byte, so that a client knows that its
tunnel is open), then obeys one line: ``source N``, ``sink N`` (answers one byte when N bytes have come) or ``echo``.
"""

from __future__ import annotations

import socket
import sys
import threading

GREETING = b"\n"
DONE = b"."
CHUNK = 1 << 20


def read_line(connection: socket.socket) -> str:
    """The one line of at most 64 bytes that a client sends, or "" if it went away before its end."""
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(1)
        if not piece or len(line) == 64:
            return ""
        line += piece
    return line.decode("ascii").strip()


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


def converse(connection: socket.socket) -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection.sendall(GREETING)
            match read_line(connection).split():
                case ["source", total]:
                    send_zeros(connection, int(total))
                case ["sink", total]:
                    swallow(connection, int(total))
                case ["echo"]:
                    echo(connection)
                case words:
                    if words:
                        print(f"target: unknown order {words!r}", file=sys.stderr)
                    return
            while connection.recv(65536):  # the client hangs up first
                pass
        except ConnectionError:
            pass  # a measurement that was given up: the client's side reports it


def main() -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=256) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=converse, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
