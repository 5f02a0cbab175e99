"""Streams of the service: replay, time limits, several subscribers, and clients that are stuck or gone."""

from __future__ import annotations

import threading
import time

import pytest

from tests.pty.beds import Service, alive
from tests.pty.conftest import StartService
from tests.pty.raw import Raw, Stream, envelope, eventually, terminal

BIG = 20_000_000  # bytes; much more than the service and both sockets buffer


def sh(script: str) -> tuple[str, str, str]:
    return "/bin/sh", "-c", script


def flood(size: int, after: str = "") -> tuple[str, str, str]:
    """Wait for a line, then write ``size`` bytes."""
    return sh(f"stty raw -echo; echo ready; head -c 1 >/dev/null; head -c {size} /dev/zero | tr '\\0' x; {after}")


def finish_all(*streams: Stream) -> None:
    readers = [threading.Thread(target=stream.finish) for stream in streams]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
        assert not reader.is_alive()


def test_subscribers_see_the_same(raw: Raw) -> None:
    stream = raw.terminal("/bin/cat")
    others = [raw.connect(stream.pid) for _ in range(3)]
    raw.send(stream.pid, b"hello\n")
    raw.send(stream.pid, b"\x04")
    for each in (stream, *others):
        each.finish()
        assert each.pid == stream.pid
        assert each.output == b"hello\r\nhello\r\n"
        assert each.ended == {"exited": True, "status": "exit status 0"}


def test_all_of_a_big_output_arrives_at_every_subscriber(raw: Raw) -> None:
    stream = raw.terminal(*flood(BIG))
    stream.wait_for(b"ready")
    others = [raw.connect(stream.pid) for _ in range(2)]
    raw.send(stream.pid, b"g")
    finish_all(stream, *others)
    assert [len(each.output.lstrip(b"ready\r\n")) for each in (stream, *others)] == [BIG] * 3
    assert [each.error for each in (stream, *others)] == [None] * 3


def test_a_client_without_the_header_gets_live_output_only(raw: Raw) -> None:
    stream = raw.terminal("/bin/cat")
    raw.send(stream.pid, b"old\n")
    stream.wait_for(b"old\r\nold\r\n")
    late = raw.connect(stream.pid)
    raw.send(stream.pid, b"new\n")
    late.wait_for(b"new\r\nnew\r\n")
    assert late.output == b"new\r\nnew\r\n"
    assert (stream.offset, late.offset) == (0, len(b"old\r\nold\r\n"))
    raw.kill(stream.pid)


def test_output_is_replayed_from_an_offset(raw: Raw) -> None:
    stream = raw.terminal(*sh("stty -opost; printf 0123456789; read x"))
    stream.wait_for(b"9")
    for offset in (0, 4, 10):
        late = raw.connect(stream.pid, {"Wstunnel-Replay-From": str(offset)})
        assert late.offset == offset
        if offset < 10:
            late.wait_for(b"9")
        assert late.output == b"0123456789"[offset:]
    beyond = raw.connect(stream.pid, {"Wstunnel-Replay-From": "11"})
    assert beyond.error is not None
    assert beyond.error["code"] == "out_of_range"
    for text in ("-1", "x", "1.5", "", "9" * 30):
        broken = raw.connect(stream.pid, {"Wstunnel-Replay-From": text})
        assert broken.error is not None
        assert broken.error["code"] == "invalid_argument"
    raw.kill(stream.pid)


def test_connect_can_insist_on_a_certain_process(raw: Raw) -> None:
    stream = raw.terminal("/bin/cat")
    identity = stream.response.headers["Wstunnel-Process"]
    assert raw.connect(stream.pid, {"Wstunnel-Process": identity}).pid == stream.pid
    wrong = raw.connect(stream.pid, {"Wstunnel-Process": "0" * 32})
    assert wrong.error is not None
    assert wrong.error["code"] == "not_found"
    raw.kill(stream.pid)


def test_a_stuck_subscriber_delays_nobody_and_is_told_what_it_lost(raw: Raw) -> None:
    stream = raw.terminal(*flood(BIG))
    stream.wait_for(b"ready")
    stuck = raw.connect(stream.pid)
    raw.send(stream.pid, b"g")
    stream.finish()
    assert stream.output.count(b"x") == BIG
    assert stream.ended == {"exited": True, "status": "exit status 0"}
    stuck.finish()
    assert stuck.error is not None
    assert stuck.error["code"] == "resource_exhausted"
    assert f"from byte {stuck.offset + len(stuck.output)} " in stuck.error["message"]


def test_a_subscriber_that_was_stuck_for_a_while_gets_its_output_whole(raw: Raw) -> None:
    size = 3_000_000
    stream = raw.terminal(*flood(size))
    stream.wait_for(b"ready")
    stuck = raw.connect(stream.pid)
    raw.send(stream.pid, b"g")
    stream.finish()
    stuck.finish()
    assert (stuck.output.count(b"x"), stuck.ended) == (size, stream.ended)


def test_the_time_limit_of_start_kills_the_process(raw: Raw) -> None:
    stream = raw.terminal("/bin/sleep", "60", headers={"Connect-Timeout-Ms": "600"})
    follower = raw.connect(stream.pid)
    stream.finish()
    assert (stream.ended, stream.error and stream.error["code"]) == (None, "deadline_exceeded")
    follower.finish()
    assert follower.ended == {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}
    assert not alive(stream.pid)


def test_the_time_limit_of_start_runs_on_without_its_client(raw: Raw) -> None:
    began = time.monotonic()
    stream = raw.terminal("/bin/sleep", "60", headers={"Connect-Timeout-Ms": "800"})
    stream.close()
    assert eventually(lambda: not alive(stream.pid))
    assert time.monotonic() - began >= 0.8, "it ended with its client"


def test_the_time_limit_of_connect_ends_its_stream_only(raw: Raw) -> None:
    stream = raw.terminal("/bin/cat")
    follower = raw.open("Connect", {"process": {"pid": stream.pid}}, {"Connect-Timeout-Ms": "300"}).finish()
    assert (follower.ended, follower.error and follower.error["code"]) == (None, "deadline_exceeded")
    raw.send(stream.pid, b"still\n")
    stream.wait_for(b"still\r\nstill\r\n")
    raw.kill(stream.pid)


def test_a_client_that_goes_away_ends_nothing_but_its_stream(raw: Raw, service: Service) -> None:
    stream = raw.terminal(*sh("while :; do echo tick; sleep 0.05; done"))
    stream.wait_for(b"tick")
    stream.close()
    later = raw.connect(stream.pid)
    later.wait_for(b"tick\r\ntick")
    raw.kill(stream.pid)
    assert later.finish().ended is not None


def test_a_process_that_was_to_be_killed_when_left_is_killed(raw: Raw) -> None:
    start = {"Wstunnel-On-Disconnect": "kill; grace=1"}
    abandoned = raw.terminal("/bin/sleep", "60", headers=start)
    followed = raw.terminal("/bin/sleep", "60", headers=start)
    kept = raw.terminal("/bin/sleep", "60", headers=start)
    keep = {"Wstunnel-On-Disconnect": "keep"}
    assert raw.call("Update", {"process": {"pid": kept.pid}}, keep).status == 200
    follower = raw.connect(followed.pid)
    for stream in (abandoned, followed, kept):
        stream.close()
    assert eventually(lambda: not alive(abandoned.pid))
    assert alive(followed.pid)
    follower.close()
    assert eventually(lambda: not alive(followed.pid))
    assert alive(kept.pid)
    raw.kill(kept.pid)


@pytest.mark.parametrize("value", ["kill", "keep", "kill; grace=x", "kill; grace=-1", ""])
def test_another_wish_for_the_time_after_is_refused(raw: Raw, value: str) -> None:
    stream = raw.terminal("/bin/true", headers={"Wstunnel-On-Disconnect": value})
    assert stream.error is not None
    assert stream.error["code"] == "invalid_argument"


def test_a_silent_stream_shows_that_it_lives(raw: Raw) -> None:
    began = time.monotonic()
    stream = raw.terminal("/bin/cat", headers={"Keepalive-Ping-Interval": "1"})
    while stream.keepalives < 2:
        stream.step()
    assert time.monotonic() - began >= 1.5
    raw.kill(stream.pid)


def test_a_start_may_come_in_small_chunks(raw: Raw) -> None:
    stream = raw.open("Start", terminal("/bin/echo", "hi"), {"Content-Encoding": "identity"}, chunked=True)
    assert stream.finish().output == b"hi\r\n"


def test_subscribers_are_limited(start: StartService) -> None:
    with Raw(start("--pty-max-subscribers", "2").url) as raw:
        stream = raw.terminal("/bin/cat")
        raw.connect(stream.pid)
        third = raw.connect(stream.pid)
        assert third.error is not None
        assert third.error["code"] == "resource_exhausted"
        stream.close()

        def admitted() -> bool:
            again = raw.connect(stream.pid)
            return again.error is None

        assert eventually(admitted)


def test_processes_are_limited(start: StartService) -> None:
    with Raw(start("--pty-max-processes", "2").url) as raw:
        first, _ = raw.terminal("/bin/cat"), raw.pipes("/bin/cat")
        third = raw.terminal("/bin/cat")
        assert third.error is not None
        assert third.error["code"] == "resource_exhausted"
        raw.kill(first.pid)
        assert raw.terminal("/bin/true").finish().ended == {"exited": True, "status": "exit status 0"}


def test_input_that_nobody_reads_is_bounded_and_refused_whole(raw: Raw) -> None:
    stream = raw.pipes("/bin/sleep", "60")
    piece = b"x" * 600_000
    replies = [raw.send(stream.pid, piece, "stdin") for _ in range(2)]  # there is room, however long that takes
    replies += [raw.send(stream.pid, piece, "stdin", {"Connect-Timeout-Ms": "500"}) for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 200, 504, 504]
    assert [reply.code for reply in replies[2:]] == ["deadline_exceeded"] * 2
    raw.kill(stream.pid)


def test_the_replies_of_streams_are_not_buffered_on_the_way(raw: Raw) -> None:
    headers = raw.terminal("/bin/true").finish().response.headers
    assert headers["Content-Type"] == "application/connect+json"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Wstunnel-Service"] == "1"


def test_input_in_a_stream_is_refused_where_it_goes_wrong(raw: Raw) -> None:
    stream = raw.pipes("/bin/cat")
    start, data = {"start": {"process": {"pid": stream.pid}}}, {"data": {"input": {"stdin": "eA=="}}}
    for messages, code in (
        ([data], "invalid_argument"),
        ([], "invalid_argument"),
        ([start, start], "invalid_argument"),
        ([{"start": {"process": {"pid": 999_999_999}}}], "not_found"),
        ([start, {"data": {"input": {"pty": "eA=="}}}], "internal"),
        ([start, {"data": {}}], "unimplemented"),
        ([start, {}], "unimplemented"),
    ):
        body = b"".join(map(envelope, messages))
        reply = raw.request("POST", "/process.Process/StreamInput", body, {"Content-Type": "application/connect+json"})
        assert reply.status == 200
        assert f'"code":"{code}"'.encode() in reply.body, (messages, reply.body)
    raw.kill(stream.pid)
