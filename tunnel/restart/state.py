"""The state that one version of the service passes to the next, as a file in memory.

    8 bytes     "wstunnel"
    8 bytes     length of the head, big-endian
    head        JSON: {"format": …, "version": …, "descriptors": […], "parts": {name: tree}}
    the rest    raw bytes, to which the head refers with {"$bytes": [offset, length]}

A tree consists of JSON's types and bytes-like objects. Clients choose some of its keys (names of environment
variables), but the values of these are strings, so they cannot look like a reference. `FORMAT` changes whenever the
meaning of a tree changes. A version refuses all other formats, and the restart is cancelled.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tunnel.errors import UsageError

FORMAT = 1
Tree = dict[str, Any]

_MAGIC = b"wstunnel"
_BYTES = "$bytes"


class Kept:
    """The descriptors that the new version gets."""

    def __init__(self) -> None:
        self.descriptors: set[int] = set()

    def descriptor(self, fd: int) -> int:
        """Keep a descriptor open; return its number for a tree."""
        if fd < 0:
            raise ValueError("a closed descriptor cannot be kept")
        self.descriptors.add(fd)
        return fd

    def socket(self, sock: socket.socket) -> int:
        """As `descriptor`."""
        return self.descriptor(sock.fileno())


class Handed:
    """The descriptors from the old version; on trial there are substitutes, on which nothing ever happens.

    Each may be taken once. The substitutes are duplicates of one socket or one pipe, because the limit of descriptors
    is the same as for the service.
    """

    def __init__(self, descriptors: Iterable[int], *, on_trial: bool) -> None:
        self.on_trial = on_trial
        self._left = set(descriptors)
        self._inert_sockets: tuple[socket.socket, socket.socket] | None = None
        self._inert_pipe: tuple[int, int] | None = None

    def socket(self, number: int) -> socket.socket:
        """Return the socket with this number: non-blocking, and closed by the next exec. Raises UsageError."""
        self._take(number)
        if self.on_trial:
            self._inert_sockets = self._inert_sockets or socket.socketpair()
            sock = self._inert_sockets[0].dup()
        else:
            sock = self._opened(number, lambda: socket.socket(fileno=number))
        sock.set_inheritable(False)
        sock.setblocking(False)
        return sock

    def descriptor(self, number: int) -> int:
        """Return the descriptor with this number, closed by the next exec. Raises UsageError."""
        self._take(number)
        if self.on_trial:
            self._inert_pipe = self._inert_pipe or os.pipe()
            os.set_blocking(self._inert_pipe[0], False)
            return os.dup(self._inert_pipe[0])
        self._opened(number, lambda: os.set_inheritable(number, False))
        return number

    def close_rest(self) -> None:
        """Close the descriptors that were not taken."""
        for fd in [] if self.on_trial else self._left:
            os.close(fd)
        self._left.clear()
        for sock in self._inert_sockets or ():
            sock.close()
        for fd in self._inert_pipe or ():
            os.close(fd)
        self._inert_sockets = self._inert_pipe = None

    def _take(self, number: int) -> None:
        if number not in self._left:
            raise UsageError(f"the state has no descriptor {number}, or has it twice")
        self._left.remove(number)

    def _opened(self, number: int, open_it: Callable[[], Any]) -> Any:
        try:
            return open_it()
        except OSError as exc:
            raise UsageError(f"descriptor {number} was not passed on: {exc.strerror}") from exc


def create() -> int:
    """Return the descriptor of an empty memory file. Raises OSError, and AttributeError if the system has none."""
    return os.memfd_create("wstunnel-state", os.MFD_CLOEXEC)


def write(file: int, version: str, parts: Mapping[str, Tree], kept: Kept) -> None:
    """Write the state of all ``parts``, by name, and the ``kept`` descriptors. Raises OSError."""
    blobs: list[memoryview] = []
    at = 0

    def refer(value: object) -> object:
        nonlocal at
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(f"the state cannot have a {type(value).__name__}")
        blob = memoryview(value).cast("B")
        blobs.append(blob)
        at += len(blob)
        return {_BYTES: [at - len(blob), len(blob)]}

    told = {"format": FORMAT, "version": version, "descriptors": sorted(kept.descriptors), "parts": dict(parts)}
    head = json.dumps(told, default=refer).encode("ascii")
    start = _MAGIC + len(head).to_bytes(8, "big") + head
    for rest in (memoryview(start), *blobs):
        while rest:
            rest = rest[os.write(file, rest) :]


def read(file: int, *, on_trial: bool) -> tuple[dict[str, Tree], Handed]:
    """Return the states of the parts, by name, and the descriptors. Raises UsageError for an invalid file.

    The bytes in the trees are read-only views of the file: copy what has to be kept.
    """
    size = os.fstat(file).st_size
    if size < len(_MAGIC) + 8:
        raise UsageError("the state is cut off")
    view = memoryview(mmap.mmap(file, size, access=mmap.ACCESS_READ))
    start = len(_MAGIC) + 8
    end = start + int.from_bytes(view[len(_MAGIC) : start], "big")
    if view[: len(_MAGIC)] != _MAGIC or end > size:
        raise UsageError("the state was not written by this program")

    def dereference(found: Tree) -> object:
        if found.keys() == {_BYTES} and isinstance(found[_BYTES], list):
            at, length = found[_BYTES]
            blob = view[end + at : end + at + length]
            if len(blob) != length:
                raise UsageError("the state is cut off")
            return blob
        return found

    told = json.loads(bytes(view[start:end]), object_hook=dereference)
    if told["format"] != FORMAT:
        raise UsageError(
            f"the state of version {told['version']} has format {told['format']}, and this version reads {FORMAT} only"
        )
    return told["parts"], Handed(told["descriptors"], on_trial=on_trial)
