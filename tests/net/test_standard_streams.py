"""The standard streams: characters that a locale lacks, readers that are gone, and descriptors that were closed."""

from __future__ import annotations

import codecs
import contextlib
import io
import itertools
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tunnel.errors import ConnectionLost, TunnelError
from tunnel.net import standard_streams
from tunnel.net.standard_streams import (
    CLOSED_OUTPUT,
    encoding_of,
    fill_standard_descriptors,
    is_closed_by_reader,
    is_missing,
    open_standard_streams,
    readable,
)

_numbers = itertools.count()
Guard = Callable[[], tuple[int, int]]


@pytest.fixture(autouse=True)
def fresh_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codecs and handlers of errors stay in a process, so each test registers some of its own."""
    number = next(_numbers)
    monkeypatch.setattr(standard_streams, "FALLBACK", f"fallback-{number}")
    monkeypatch.setattr(standard_streams, "_ASCII", f"ascii-{number}")


@pytest.mark.parametrize(
    ("text", "encoding", "data"),
    [
        ("plain", "ascii", b"plain"),
        ("a → b ← c", "ascii", b"a -> b <- c"),
        ("\u2264 \u2265 \u00d7 \u00b7 \u2022 \u2026", "ascii", b"<= >= x - * ..."),
        ("\u2010\u2011\u2012\u2013\u2014\u2212", "ascii", b"------"),
        ("\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb", "ascii", b'\'\'\'"""""'),
        ("✓ ✗", "ascii", b"ok !!"),
        ("\u00a0\u202f", "ascii", b"  "),
        ("grüße → é", "latin-1", b"gr\xfc\xdfe -> \xe9"),
        ("grüße →", "utf-8", "grüße →".encode()),
        ("日", "ascii", b"\\u65e5"),
        ("\udcff\udc80", "ascii", b"\xff\x80"),
        ("\udcff", "utf-8", b"\xff"),
        ("\ud800", "ascii", b"\\ud800"),
        ("\udd00", "ascii", b"\\udd00"),
    ],
)
def test_what_an_encoding_does_not_have_is_written_in_ascii(text: str, encoding: str, data: bytes) -> None:
    assert readable(text, encoding) == data


def test_the_way_back_is_not_changed() -> None:
    readable("x", "ascii")
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", standard_streams.FALLBACK)


def test_a_stream_without_an_encoding_is_read_as_utf8() -> None:
    assert encoding_of(None) == "utf-8"
    assert encoding_of(io.TextIOWrapper(io.BytesIO(), "latin-1")) == "latin-1"
    assert encoding_of(SimpleNamespace(encoding=None)) == "utf-8"  # type: ignore[arg-type]


# ---- streams


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    """Make standard output and standard error two pipes, guarded, and return the ends to read.

    To be called in the test, as pytest changes the streams between its phases.
    """
    ends: list[int] = []
    streams: list[Any] = []

    def make() -> tuple[int, int]:
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        for name in ("stdout", "stderr"):
            reader, writer = os.pipe()
            ends.append(reader)
            streams.append(os.fdopen(writer, "w", encoding="utf-8"))
            monkeypatch.setattr(sys, name, streams[-1])
        open_standard_streams()
        return ends[0], ends[1]

    yield make
    for stream in streams:
        stream.close()
    for reader in ends:
        with contextlib.suppress(OSError):  # a test has closed it
            os.close(reader)


def test_what_is_printed_reaches_standard_output_and_standard_error(guard: Guard) -> None:
    stdout, stderr = guard()
    assert sys.stdout.writable() and not sys.stdout.isatty()
    print("grüße →")
    sys.stdout.flush()
    assert os.read(stdout, 100) == "grüße →\n".encode()
    print("to people", file=sys.stderr)
    sys.stderr.flush()
    assert os.read(stderr, 100) == b"to people\n"
    assert os.fstat(sys.stdout.fileno()) != os.fstat(sys.stderr.fileno())


def test_an_output_that_nobody_reads_ends_the_program_as_a_shell_expects(guard: Guard) -> None:
    stdout, _ = guard()
    os.close(stdout)
    with pytest.raises(SystemExit) as caught:
        print("x", flush=True)
    assert caught.value.code == CLOSED_OUTPUT == 141
    sys.stdout.flush()  # what is left is dropped
    print("more", flush=True)


def test_windows_has_two_errors_for_a_reader_that_is_gone() -> None:
    assert is_closed_by_reader(OSError(22, "Invalid argument"), "win32")
    assert not is_closed_by_reader(OSError(22, "Invalid argument"), "linux")
    assert is_closed_by_reader(BrokenPipeError(), "linux")
    assert not is_closed_by_reader(OSError(28, "No space left on device"), "win32")


def test_a_full_disk_is_an_error_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    monkeypatch.setattr(sys, "stdout", stream)
    open_standard_streams()
    with pytest.raises(TunnelError) as caught:
        print("x", flush=True)
    assert str(caught.value) == "cannot write to standard output: No space left on device"
    sys.stdout.flush()
    print("dropped", flush=True)
    stream.close()


def test_messages_that_nobody_can_read_are_dropped(guard: Guard) -> None:
    _, stderr = guard()
    os.close(stderr)
    print("x" * 100, file=sys.stderr, flush=True)
    print("again", file=sys.stderr, flush=True)


def test_output_to_a_pipe_that_somebody_made_non_blocking_waits_for_its_reader(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout, _ = guard()
    os.set_blocking(sys.stdout.fileno(), False)
    waits: list[object] = []
    genuine = select.select

    def waiting(*arguments: Any) -> object:
        waits.append(arguments)
        return genuine(*arguments)

    monkeypatch.setattr(select, "select", waiting)
    data = "x" * 1_000_000
    heard: list[bytes] = []

    def read() -> None:
        while sum(map(len, heard)) < len(data):
            heard.append(os.read(stdout, 1 << 16))

    reader = threading.Thread(target=read)
    timer = threading.Timer(0.05, reader.start)
    timer.start()
    sys.stdout.write(data)
    sys.stdout.flush()
    timer.join()
    reader.join(20)
    assert b"".join(heard) == data.encode()
    assert waits, "it does not try again and again"


def test_messages_to_a_full_pipe_are_dropped_without_waiting(guard: Guard) -> None:
    guard()
    os.set_blocking(sys.stderr.fileno(), False)
    for _ in range(100):
        print("x" * 10_000, file=sys.stderr, flush=True)


def test_messages_that_are_taken_in_parts_come_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(Keeping(raw, at_once=10)), "utf-8"))
    open_standard_streams()
    print("a line that is longer than ten bytes", file=sys.stderr, flush=True)
    assert raw.getvalue() == b"a line that is longer than ten bytes\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_signs_that_the_locale_lacks_are_printed_in_ascii(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(io.BufferedWriter(Keeping(raw)), encoding, line_buffering=True, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    open_standard_streams()
    assert isinstance(sys.stdout, io.TextIOWrapper)
    assert (sys.stdout.line_buffering, sys.stdout.write_through) == (True, True)
    assert (codecs.lookup(sys.stdout.encoding).name == "ascii") is False
    print("a → é")
    assert raw.getvalue() == (b"a -> \\xe9\n" if encoding == "ascii" else b"a -> \xe9\n")


class Keeping(io.RawIOBase):
    def __init__(self, raw: io.BytesIO, at_once: int = 1 << 20) -> None:
        self._raw = raw
        self._at_once = at_once

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._raw.write(data[: self._at_once])


def test_ascii_under_another_name_is_ascii_in_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Keeping(io.BytesIO())), "ascii"))
    open_standard_streams()
    codec, plain = codecs.lookup(encoding_of(sys.stdout)), codecs.lookup("ascii")
    assert tuple(codec) == tuple(plain)
    assert codec.incrementalencoder is plain.incrementalencoder
    assert codec.incrementaldecoder is plain.incrementaldecoder
    assert codec.name == standard_streams._ASCII
    assert readable("a → b", encoding_of(sys.stdout)) == b"a -> b"


def test_a_terminal_stays_one_and_streams_without_a_buffer_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``python -u`` on a terminal."""
    ours, theirs = os.openpty()
    stream = io.TextIOWrapper(io.FileIO(theirs, "w"), "utf-8", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    open_standard_streams()
    assert sys.stdout.isatty() and sys.stdout.fileno() == theirs
    print("x", flush=True)
    assert os.read(ours, 100) == b"x\r\n"
    monkeypatch.undo()
    stream.close()
    os.close(ours)


def test_a_stream_of_somebody_elses_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = io.StringIO()
    monkeypatch.setattr(sys, "stdout", theirs)
    open_standard_streams()
    assert sys.stdout is theirs


# ---- closed descriptors, in a process of their own


def in_a_child(closed: tuple[int, ...], work: str) -> str:
    """What ``work`` makes of ``result`` in a child whose standard descriptors ``closed`` are closed."""
    fill_standard_descriptors()  # here, too: what a child calls, mutmut does not know of
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for descriptor in closed:
                os.close(descriptor)
            names: dict[str, Any] = {"os": os, "sys": sys, "module": standard_streams, "result": None}
            exec(work, names)
            os.write(writer, repr(names["result"]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    said = os.read(reader, 10_000).decode()
    os.close(reader)
    return said


def test_descriptors_that_were_closed_lead_to_the_null_device_and_are_known() -> None:
    work = """
module.fill_standard_descriptors()
null = os.stat(os.devnull)
same = [os.fstat(n)[:3] == null[:3] and os.fstat(n).st_rdev == null.st_rdev for n in range(3)]
result = same, [os.get_inheritable(n) for n in (0, 2)], [module.is_missing(n) for n in range(3)]
"""
    same = in_a_child((0, 2), work)
    assert same.endswith("[True, True], [True, False, True])")
    assert same.startswith("([True, ") and ", True], " in same


def test_with_all_of_them_there_nothing_is_missing() -> None:
    fill_standard_descriptors()
    assert [is_missing(descriptor) for descriptor in range(3)] == [False] * 3


def test_python_itself_gets_streams_in_the_place_of_those_that_were_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        for name in ("stdin", "stdout", "stderr"):
            patch.setattr(sys, name, None)
        open_standard_streams()
        assert [stream.fileno() for stream in (sys.stdin, sys.stdout, sys.stderr)] == [0, 1, 2]
        assert (sys.stdin.readable(), sys.stdout.writable(), sys.stderr.writable()) == (True, True, True)
    work = """
sys.stdin = sys.stdout = sys.stderr = None
module.open_standard_streams()
print("nobody reads this", flush=True)
print("nor this", file=sys.stderr, flush=True)
result = [sys.stdin.read(), sys.stdin.fileno(), sys.stdout.fileno(), sys.stderr.fileno()]
sys.stdin.close()
result.append(os.fstat(0) == os.fstat(1))  # no socket gets the number
"""
    assert in_a_child((0, 1, 2), work) == "['', 0, 1, 2, True]"


@pytest.mark.parametrize(("descriptor", "name"), [(0, "input"), (1, "output"), (2, "output")])
def test_without_a_null_device_the_program_ends_with_one_line(descriptor: int, name: str) -> None:
    work = """
def refuse(*_):
    raise FileNotFoundError(2, "No such file or directory")
os.open = refuse
try:
    module.fill_standard_descriptors()
except module.ConnectionLost as exc:
    result = exc.code, str(exc)
"""
    said = in_a_child((descriptor,), work)
    assert said.startswith(f"('{name}', ") and "it is closed, and /dev/null: No such file or directory" in said
    assert ConnectionLost("input", reason="x").code == "input"
