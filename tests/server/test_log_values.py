"""Every value becomes one line of limited length, and never an error: logging affects nothing else."""

from __future__ import annotations

import http
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunnel.server.log import LOGGER, LogHandler, event, json_line, set_up, text_line, unexpected
from tunnel.server.repeats import Fields, Repeats

Read = Callable[[], list[str]]


class Hostile:
    """An object all of whose methods raise."""

    def __refuse(self, *args: object) -> NoReturn:
        raise RuntimeError("hostile")

    __str__ = __repr__ = __eq__ = __hash__ = __bool__ = __len__ = __format__ = __refuse


class HostileError(Exception):
    def __str__(self) -> str:
        raise RecursionError

    __repr__ = __str__


class HostileText(str):
    def __str__(self) -> str:
        raise RuntimeError("hostile")

    __len__ = __str__  # type: ignore[assignment]


VALUES: list[Any] = [
    Hostile(),
    HostileError("x"),
    HostileText("text"),
    "\ud800 lone",
    "\udcff" * 1000,
    "x" * 10_000_000,
    b"\x00\xff",
    bytearray(b"\r\n"),
    10**10_000,
    -(10**10_000),
    float("nan"),
    float("-inf"),
    1e400,
    None,
    object(),
    {"a": Hostile()},
    [1, 2],
    http.HTTPStatus.OK,
    True,
    "new\nline \u2028 \x1b[31m \x85",
]


@pytest.fixture(params=["text", "json"])
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Read]:
    """A log in a file, with a function that closes it and returns its lines."""
    path = tmp_path / "log"
    handler = set_up(request.param, str(path))

    def read() -> list[str]:
        handler.close()
        text = path.read_bytes()
        assert text.isascii()
        lines = text.decode().split("\n")
        assert lines.pop() == ""
        for line in lines:
            assert line.isprintable() and len(line) < 20_000
            if request.param == "json":
                json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        return lines

    yield read
    handler.close()
    LOGGER.propagate = True
    LOGGER.setLevel(logging.NOTSET)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_any_value_becomes_one_line(read: Read, value: Any) -> None:
    event(logging.INFO, "tunnel", value=value, after="it")
    unexpected(ValueError("x"), value=value)
    lines = read()
    assert len(lines) == 2
    assert "tunnel" in lines[0] and "after" in lines[0]


def test_any_error_becomes_one_line(read: Read) -> None:
    group = ExceptionGroup("many", [ValueError(str(number)) for number in range(1000)])
    for error in (HostileError("x"), group, KeyError("\ud800"), ValueError("x" * 1_000_000), KeyboardInterrupt()):
        unexpected(error)
    lines = read()
    assert len(lines) == 5 and all("internal-error" in line for line in lines)


def test_names_that_do_not_fit_forge_nothing(read: Read) -> None:
    names: dict[str, int | str] = {"a b=c\n": 1, "time": "never", "event": "forged", "ä": 2, "x" * 1000: 3}
    event(logging.INFO, "tunnel", **names)
    event(logging.INFO, "tunnel", **{f"key{number}": "x" * 1000 for number in range(1000)})
    event("not a level", "tunnel", x=1)  # type: ignore[arg-type]
    lines = read()
    assert len(lines) == 3  # and one about the third
    assert "a_b_c_" in lines[0] and "log-dropped" in lines[2]


def test_what_libraries_log_is_a_line_of_the_same_form(read: Read) -> None:
    library = logging.getLogger("some.library")
    library.warning("two\nlines and %s", "more")
    library.info("not for the log")
    try:
        raise ValueError("why")
    except ValueError:
        library.exception("failed")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old\nways", UserWarning, stacklevel=1)
    lines = read()
    assert len(lines) == 3
    assert "message" in lines[0] and "some.library" in lines[0] and r"two\nlines and more" in lines[0]
    assert "ValueError: why" in lines[1]


def test_a_message_whose_arguments_do_not_fit_is_shown_as_it_is(tmp_path: Path) -> None:
    handler = LogHandler(text_line, str(tmp_path / "log"))
    handler.handle(
        logging.makeLogRecord({"levelno": logging.ERROR, "name": "x", "msg": "wrong %d", "args": ("arguments",)})
    )
    handler.close()
    assert (tmp_path / "log").read_text().endswith('error message logger=x message="wrong %d"\n')


def test_a_log_that_is_closed_raises_nothing(tmp_path: Path) -> None:
    handler = LogHandler(text_line, str(tmp_path / "log"))
    handler.close()
    handler.close()
    handler.emit(logging.makeLogRecord({"levelno": logging.ERROR, "msg": "late"}))
    handler.say("late")
    handler.reopen()


def test_a_handler_of_somebody_else_that_fails_is_nobodys_problem() -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk")

    handler = Broken()
    LOGGER.addHandler(handler)
    try:
        event(logging.ERROR, "tunnel", x=1)
        unexpected(ValueError("x"))
    finally:
        LOGGER.removeHandler(handler)


anything = st.one_of(st.text(), st.binary(), st.integers(), st.floats(), st.booleans(), st.none())


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=20).filter(lambda key: key not in ("level", "name")), anything, max_size=10))
def test_whatever_the_fields_are_a_line_is_one_printable_ascii_line(fields: dict[str, Any]) -> None:
    seen: list[Fields] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.__dict__["fields"])

    handler = Handler()
    LOGGER.addHandler(handler)
    try:
        event(logging.ERROR, "refused", **fields)
    finally:
        LOGGER.removeHandler(handler)
    repeats = Repeats()
    for shown in seen:
        assert repeats.admit(logging.INFO, "refused", shown, 0.0)
        for line in (text_line(0.0, logging.INFO, "refused", shown), json_line(0.0, logging.INFO, "refused", shown)):
            assert line.isascii() and line.isprintable() and len(line) < 100_000
    assert len(seen) == 1
