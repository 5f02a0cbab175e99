"""Whether bytes wait at a descriptor that is readable: of every kind that standard input may be."""

from __future__ import annotations

import os
import pty
import select
import socket
import sys
from pathlib import Path

import pytest

from tunnel.net.unread import has_data


def test_bytes_that_wait_are_told_from_an_end() -> None:
    reader, writer = os.pipe()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.write(writer, b"x")
        theirs.sendall(b"x" * 70_000)
        assert has_data(reader) and has_data(ours.fileno())
        os.read(reader, 1)
        while len(ours.recv(65536)) == 65536:
            pass
        os.close(writer)
        theirs.close()
        assert not has_data(reader) and not has_data(ours.fileno())
    os.close(reader)


def test_a_terminal_has_what_was_typed() -> None:
    master, slave = pty.openpty()
    os.write(master, b"line\n")
    assert select.select([slave], [], [], 20)[0]  # the system hands it on in a moment
    assert has_data(slave)
    os.close(master)
    os.close(slave)


def test_where_it_cannot_be_known_there_may_be_bytes(tmp_path: Path) -> None:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    assert has_data(descriptor)
    os.close(descriptor)


def test_on_a_system_that_cannot_tell_there_may_be_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    reader, writer = os.pipe()
    assert not has_data(reader)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert has_data(reader)
    os.close(reader)
    os.close(writer)
