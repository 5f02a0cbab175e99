"""Repeated lines that strangers can cause at will are counted; others are always written."""

from __future__ import annotations

import logging
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.tunnels import OURS
from tests.conftest import StartBridge
from tests.faults.peer import Peer, assert_echoes
from tests.server.clients import LIMIT, UPGRADE, ask, assert_echo, open_tunnel
from tests.server.test_log import json_lines
from tunnel.server.repeats import (
    EQUAL_LIMIT,
    GROUP_LIMIT,
    OTHERS,
    RATE_LIMIT,
    WINDOW,
    Count,
    Fields,
    Repeats,
    without_port,
)

INFO = logging.INFO


def refused(number: int = 0, *, client: str = "192.0.2.1", **fields: str | int) -> Fields:
    return {"client": f"{client}:{5000 + number}", "status": 401, "error": "token", "message": "no", **fields}


def written(repeats: Repeats, lines: list[Fields], now: float = 0.0, name: str = "refused") -> int:
    """Return how many of ``lines`` are written."""
    return sum(repeats.admit(INFO, name, line, now) for line in lines)


def told(counts: list[Count]) -> int:
    return sum(int(fields["repeated"]) for _, _, fields in counts)


# ---- by a bridge


def test_many_wrong_tokens_are_a_few_lines_that_add_up(start: StartBridge, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("right\n")
    bridge = start("--token-file", str(tokens), "--log-format", "text")

    def guess(number: int) -> int:
        headers = {**UPGRADE, "Authorization": f"Bearer wrong-{number}", "X-Forwarded-For": f"10.0.0.{number}"}
        return ask(bridge.url, headers=headers).status

    with ThreadPoolExecutor(50) as guessing:  # each waits for its answer
        assert set(guessing.map(guess, range(200))) == {401}
    with open_tunnel(bridge.url, headers={"Authorization": "Bearer right"}) as tunnel:
        assert_echo(tunnel)
    bridge.process.send_signal(signal.SIGTERM)
    assert bridge.process.wait(LIMIT) == 0
    lines = [line for line in bridge.process.log().splitlines() if " refused " in line]
    counts = [int(count) for line in lines for count in re.findall(r"repeated=(\d+)$", line)]
    assert len(lines) <= 3 * (EQUAL_LIMIT + 1)  # on a slow machine a window or two may end meanwhile
    assert len(lines) - len(counts) + sum(counts) == 200
    assert all(re.search(r"refused client=127\.0\.0\.1 status=401 error=", line) for line in lines if "repea" in line)
    assert bridge.process.log().count(" info tunnel ") == 1


def test_counts_are_numbers_in_json(bed: Bed) -> None:
    process = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", "--log-format", "json")
    url = process.wait_for_line(r'"listen": "(ws://[^"]+)"')[1]
    for _ in range(EQUAL_LIMIT + 3):
        assert ask(url, headers={}).status == 426
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 0
    counts = [line for line in json_lines(process.log()) if "repeated" in line]
    assert sum(line["repeated"] for line in counts) == 3
    assert all(line["event"] == "refused" and line["client"] == "127.0.0.1" for line in counts)


def test_each_tunnel_has_its_line_and_a_session_that_flaps_is_counted(start: StartBridge) -> None:
    bridge = start()
    for _ in range(30):
        with open_tunnel(bridge.url) as tunnel:
            assert_echo(tunnel, b"x")
    peer, session = Peer.open(bridge.url)
    for epoch in range(1, 16):
        peer.reset()
        peer = Peer(bridge.url, session.resume(epoch, 0))
    with peer:
        assert_echoes(peer, b"hello")
        peer.end()
    bridge.process.send_signal(signal.SIGTERM)
    assert bridge.process.wait(LIMIT) == 0
    log = bridge.process.log()
    assert log.count(" info tunnel ") == 31
    assert log.count(" resumed ") <= 2 * (EQUAL_LIMIT + 1)
    resumed = re.findall(r"(?m) resumed client=127\.0\.0\.1(?::\d+)? .*?(?: repeated=(\d+))?$", log)
    assert sum(int(count or 1) for count in resumed) == 15


# ---- by the rules


def test_equal_lines_are_written_at_first_and_counted_then() -> None:
    repeats = Repeats()
    assert written(repeats, [refused(number) for number in range(100)]) == EQUAL_LIMIT
    assert repeats.take_counts(WINDOW - 1) == []
    due = repeats.next_count
    assert due == WINDOW
    expected = {"client": "192.0.2.1", "status": 401, "error": "token", "message": "no", "repeated": 95}
    assert repeats.take_counts(WINDOW) == [(INFO, "refused", expected)]
    assert repeats.next_count is None
    assert written(repeats, [refused()], now=WINDOW + 1) == 1


def test_a_line_that_does_not_come_again_is_not_repeated() -> None:
    repeats = Repeats()
    assert written(repeats, [refused(), refused(1)]) == 2
    assert repeats.take_counts(WINDOW) == []


def test_numbers_and_what_proxies_say_do_not_make_lines_differ() -> None:
    repeats = Repeats()
    lines = [refused(number, seconds=number, forwarded=f"10.0.0.{number}") for number in range(50)]
    assert written(repeats, lines) == EQUAL_LIMIT
    ((_, _, fields),) = repeats.take_counts(WINDOW)
    assert fields["repeated"] == 50 - EQUAL_LIMIT and "seconds" not in fields and "forwarded" not in fields


def test_status_error_and_address_make_lines_differ() -> None:
    repeats = Repeats()
    kinds = [
        {},
        {"status": 403},
        {"error": "origin"},
        {"client": "192.0.2.2"},
        {"message": "not at all"},
    ]
    lines = [refused(number, **kind) for kind in kinds for number in range(4)]  # type: ignore[arg-type]
    assert written(repeats, lines) == len(lines)


def test_words_that_a_client_chooses_do_not_get_it_more_lines() -> None:
    repeats = Repeats()
    lines = [refused(number, message=f"there is no tunnel at /{number}") for number in range(200)]
    assert written(repeats, lines) == GROUP_LIMIT
    counts = repeats.take_counts(WINDOW)
    assert told(counts) == 200 - GROUP_LIMIT
    assert len(counts) == 1 and "message" not in counts[0][2]


def test_a_client_with_many_addresses_is_bounded_too() -> None:
    repeats = Repeats()
    lines = [refused(client=f"192.0.{number >> 8}.{number & 255}") for number in range(20_000)]
    count = sum(repeats.admit(INFO, "refused", line, second / 100) for second, line in enumerate(lines[:1000]))
    assert count <= RATE_LIMIT * 11
    count += written(repeats, lines[1000:], now=10)
    counts = repeats.take_counts(2 * WINDOW)
    assert count + told(counts) == 20_000
    assert len(counts) < 1000
    assert [fields["client"] for _, _, fields in counts].count(OTHERS) == 1


def test_a_flood_of_one_event_leaves_the_others_their_lines() -> None:
    repeats = Repeats()
    written(repeats, [refused(client=f"192.0.{number >> 8}.{number & 255}") for number in range(10_000)])
    assert written(repeats, [{"error": "KeyError('x')", "client": "192.0.2.1:1"}], name="internal-error") == 1


def test_an_outage_of_all_sessions_has_a_line_for_each() -> None:
    repeats = Repeats()
    lines: list[Fields] = [{"client": "192.0.2.1:1", "session": number, "reason": "lost"} for number in range(2000)]
    assert written(repeats, lines, name="detached") == 2000


@pytest.mark.parametrize("name", ["tunnel", "ready", "ssh-login", "reload-failed"])
def test_what_strangers_cannot_cause_is_never_counted(name: str) -> None:
    repeats = Repeats()
    assert written(repeats, [refused()] * 1000, name=name) == 1000
    assert repeats.next_count is None


def test_an_ipv6_client_counts_by_its_network() -> None:
    assert without_port("[2001:db8:1:2:3:4:5:6]:5000") == "2001:db8:1:2::/64"
    assert without_port("[fe80::1%eth0]:5000") == "fe80::/64"
    assert without_port("192.0.2.1:5000") == "192.0.2.1"
    assert without_port("unix") == "unix"
    assert without_port("[nonsense]:1") == "[nonsense]"
    assert without_port("") == ""


def test_memory_is_bounded() -> None:
    repeats = Repeats()
    for number in range(50_000):
        repeats.admit(INFO, "refused", refused(client=f"host-{number}", message=f"{number}" * 50), number / 50_000)
    assert len(repeats._groups) < 1000
