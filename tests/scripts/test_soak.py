"""The soak in short: real sessions while everything around them fails, and nothing is lost or left behind."""

from __future__ import annotations

import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from soaklib.sessions import Clients, Lost, NotBegun, User
from soaklib.trouble import Trouble
from tests.bed.processes import Bed, Finished, descendants, program, ticks

SOAK = str(Path(__file__).parents[2] / "scripts" / "soak")
LIMIT = 90.0  # seconds to start everything, or to end it


def soak(bed: Bed, minutes: float, *options: str) -> Finished:
    finished = bed.run(SOAK, "--minutes", str(minutes), *options, seconds=60 * minutes + 300)
    assert finished.status == 0, finished.last_words()
    assert "Lost: nothing\nLeft behind: nothing\n" in finished.text
    return finished


def count(finished: Finished, name: str) -> int:
    found = re.search(rf"^ *(\d+)  {name}\b", finished.text, re.MULTILINE)
    assert found, finished.text
    return int(found[1])


@pytest.mark.timeout(400)
def test_half_a_minute_of_trouble_loses_nothing(bed: Bed) -> None:
    finished = soak(bed, 0.5)
    assert re.match(r"seed \d+\n", finished.text)
    assert sum(count(finished, name) for name in ("cut", "stall", "move the clock", "restart in place")) > 0


@pytest.mark.full
@pytest.mark.timeout(600)
def test_three_minutes_of_trouble_lose_nothing(bed: Bed) -> None:
    finished = soak(bed, 3)
    for name in ("cut", "stall", "refuse connections", "stop a bridge", "stop a client", "kill a client",
                 "move the clock", "restart in place"):  # fmt: skip
        assert count(finished, name) > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_what_was_started_and_the_report_tells_the_rest(bed: Bed, number: signal.Signals) -> None:
    process = bed.start(SOAK, "--minutes", "5", env={"TMPDIR": str(bed.folder)})
    process.wait_for_line(r"seed \d+\n")
    for _ in ticks(LIMIT, 0.1):
        started = descendants(process.pid)
        names = b"".join(map(command_line, started))
        if all(name in names for name in (b"sshd", b"chromium", b"serve", b"connect")):
            break
    else:
        raise AssertionError(f"not everything was started: {names!r}")
    process.send_signal(number)
    assert process.wait(LIMIT) == 128 + number
    assert process.err.read_text() == f"soak: {number.name}: stopping what it started\n"
    report = process.out.read_text()
    assert "\nFaults:\n" in report and "Lost: nothing\n" in report
    for _ in ticks(LIMIT, 0.1):  # the browser is ended by its own driver
        left = [line for pid in started if (line := command_line(pid))]
        if not left:
            break
    assert not left
    assert not [path for path in bed.folder.iterdir() if path.name.startswith("soak-")]


def command_line(pid: int) -> bytes:
    """The words of a running process; nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return b""


def test_a_program_that_is_missing_is_named_at_once(bed: Bed, tmp_path: Path) -> None:
    for name in ("ssh", "scp", "ssh-keygen", "sshd"):
        (tmp_path / name).symlink_to(program(name))
    finished = bed.run(sys.executable, SOAK, env={"PATH": str(tmp_path)})
    assert (finished.status, finished.text) == (1, "")
    assert finished.stderr == "soak: chromium is missing: scripts/test installs it\n"


@pytest.mark.parametrize(
    ("lines", "happened"),
    [
        (["connection lost: the peer closed the connection"], NotBegun),
        (["cannot connect to 127.0.0.1:9: no route"], NotBegun),
        (["connection lost, trying again for 10 min (reset)", "the session is over: gave up"], Lost),
        (["the session is over: the bridge has no such session"], Lost),
    ],
)
def test_a_session_that_had_begun_is_lost(bed: Bed, lines: list[str], happened: type[Exception]) -> None:
    said = "".join(f"echo 'wstunnel-py: {line}' >&2; " for line in lines)
    clients = Clients()
    user = User(StandIn(bed), clients, "user", "seed", ())  # type: ignore[arg-type]  # it only makes beds
    process = user._start("sh", "-c", f"{said} exit 255")
    with pytest.raises(happened):
        user._finish(process)


class StandIn:
    """In the place of the lab, for a user that needs only a bed."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed

    def new_bed(self, name: str) -> Bed:
        return self._bed


def test_without_any_trouble_the_time_passes() -> None:
    trouble = Trouble.__new__(Trouble)
    trouble._chance, trouble._names, trouble._undo = random.Random(1), [], []
    trouble.last(time.monotonic() + 0.1, kills_until=0.0)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--minutes", "0.1"), "error: --minutes 0.1: from 0.5 to 1440"),
        (("--seed", "today"), "error: argument --seed: invalid int value: 'today'"),
        (("--without", "sleep"), "error: argument --without: invalid choice: 'sleep'"),
    ],
)
def test_a_wrong_option_is_reported(bed: Bed, options: tuple[str, ...], line: str) -> None:
    finished = bed.run(SOAK, *options)
    assert finished.status == 2 and line in finished.stderr
