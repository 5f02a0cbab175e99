"""Terminals and commands during a restart of the service in place, as the protocol shows them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from tests.bed.processes import Bed, descendants, ticks
from tests.bed.tunnels import OURS
from tests.children.test_orphans import FIRST, can_be_first, first_of
from tests.pty.beds import LIMIT, Service, alive, start_service
from tests.pty.raw import Message, Raw, Stream
from tests.restart.restarting import restart, wait_for_lines

SCROLLBACK = 65536
INPUT = 700_000  # bytes: more than a pipe holds
SET_MODES = r"\033[?1049h\033]2;title\007\033[?2004h"
REPLAY = {"Wstunnel-Replay-From": "0"}
EXITS, PAUSE = 12, 0.1  # commands that end one after the other, and the seconds between them


@dataclass
class Scene:
    """A service that has been restarted, and what there was before."""

    service: Service
    raw: Raw
    gate: Path
    unread: Stream
    keyed: Stream
    ended: Stream
    replayed: Stream
    restored: Message
    limited: Stream
    limited_at: float
    left: Stream
    followed: Stream
    strayed: Stream

    def connect(self, stream: Stream, offset: int = 0) -> Stream:
        return self.raw.connect(stream.pid, {"Wstunnel-Replay-From": str(offset)})


@pytest.fixture(scope="module")
def scene(shared_bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One restart for all tests of this module, as they look at processes of their own."""
    service = start_service(shared_bed, "--pty-scrollback", str(SCROLLBACK))
    gate = tmp_path_factory.mktemp("scene") / "gate"
    os.mkfifo(gate)
    with Raw(service.url) as raw:
        unread = raw.pipes("/bin/sh", "-c", 'read _ < "$0"; wc -c; exit 3', str(gate))
        assert raw.send(unread.pid, b"x" * INPUT, "stdin").status == 200
        assert raw.call("CloseStdin", {"process": {"pid": unread.pid}}).status == 200

        keyed = raw.terminal("/bin/sh", "-c", "stty -echo -opost; echo ready; exec cat")
        keyed.wait_for(b"ready")
        for key in keys(3):
            assert raw.send(keyed.pid, b"once\n", headers=key).status == 200

        writes = f"stty -opost -echo; printf '{SET_MODES}'; seq 1 20000; echo ready; exec cat"
        written = raw.terminal("/bin/sh", "-c", writes)
        written.wait_for(b"ready")
        replayed = raw.connect(written.pid, REPLAY)
        restored = replayed.step()
        assert restored is not None and "restore" in restored
        replayed.wait_for(b"ready")

        strayed = raw.terminal("/bin/sh", "-c", "setsid sleep 60 & echo $!; echo ready; wait")
        strayed.wait_for(b"ready")

        grace = {"Wstunnel-On-Disconnect": "kill; grace=2"}
        scene = Scene(
            service, raw, gate, unread, keyed,
            ended=raw.terminal("/bin/sh", "-c", "echo out; kill -9 $$").finish(),
            replayed=replayed, restored=restored,
            limited_at=time.monotonic(),  # before the service begins to count
            limited=raw.terminal("/bin/sleep", "60", headers={"Connect-Timeout-Ms": "6000"}),
            left=raw.terminal("/bin/sleep", "60", headers=grace),
            followed=raw.terminal("/bin/sleep", "60", headers=grace),
            strayed=strayed,
        )  # fmt: skip
        scene.left.close()
        restart(service.process)
        yield scene
    service.process.end()


def keys(count: int) -> list[dict[str, str]]:
    return [{"Wstunnel-Input": f"{n:032x}"} for n in range(count)]


def gone(pid: int) -> bool:
    return any(not alive(pid) for _ in ticks(LIMIT))


def test_what_ended_before_can_still_be_asked_for(scene: Scene) -> None:
    again = scene.connect(scene.ended, 2).finish()
    assert again.output == scene.ended.output[2:] == b"t\r\n" and again.ended == scene.ended.ended
    assert again.response.headers["Wstunnel-Process"] == scene.ended.response.headers["Wstunnel-Process"]
    assert scene.ended.pid not in scene.raw.pids()


def test_input_that_the_program_has_not_read_is_kept_with_its_end(scene: Scene) -> None:
    again = scene.connect(scene.unread)
    scene.gate.write_text("go\n")
    assert again.finish().output.split() == [b"%d" % INPUT]
    assert again.ended is not None and again.ended["exitCode"] == 3


def test_keys_that_were_used_before_are_still_known(scene: Scene) -> None:
    for key in keys(4):
        assert scene.raw.send(scene.keyed.pid, b"once\n", headers=key).status == 200
    assert scene.raw.send(scene.keyed.pid, b"\x04").status == 200
    assert scene.connect(scene.keyed).finish().output.count(b"once\n") == 4


def test_offsets_and_the_modes_before_them_are_exact(scene: Scene) -> None:
    before, after = scene.replayed, scene.connect(scene.replayed)
    assert after.step() == scene.restored
    after.wait_for(b"ready")
    assert after.offset > 0
    assert (after.offset, after.output) == (before.offset, before.output)
    assert after.response.headers["Wstunnel-Live"] == str(after.offset + len(after.output))


def test_a_time_limit_goes_on(scene: Scene) -> None:
    again = scene.connect(scene.limited).finish()
    assert again.ended is not None and again.ended["status"] == "signal: killed"
    assert time.monotonic() - scene.limited_at >= 5.9


def test_a_process_left_before_a_restart_ends_in_time_and_a_followed_one_lives(scene: Scene) -> None:
    assert gone(scene.left.pid)
    # Its client comes back later than its grace says, as it was not the client who left.
    assert scene.followed.pid in scene.raw.pids()
    assert scene.connect(scene.followed).pid == scene.followed.pid


def test_a_kill_reaches_what_had_left_the_session_before(scene: Scene) -> None:
    assert scene.raw.kill(scene.strayed.pid).status == 200
    assert gone(int(scene.strayed.output.split()[0]))


def test_the_stream_of_a_client_says_what_to_do(scene: Scene) -> None:
    scene.keyed.finish()
    assert scene.keyed.error == {
        "code": "unavailable", "message": "the service is being restarted: connect again",
    }  # fmt: skip


@pytest.mark.skipif(not can_be_first(), reason="no process can be the first of a namespace here")
def test_every_exit_code_is_reported_whenever_the_command_ends(bed: Bed, tmp_path: Path) -> None:
    """From the moment of the execution on, so some end while nobody looks. As process 1 the service reaps orphans."""
    process = bed.start(*FIRST, *OURS, "serve", "--listen", "none", "--pty", "127.0.0.1:0", "--uvloop")
    gates = [tmp_path / f"{n}" for n in range(EXITS)]
    with Raw(process.wait_for_line(r"(http://127\.0\.0\.1:\d+)")[1]) as raw:
        streams = []
        for n, gate in enumerate(gates):
            os.mkfifo(gate)
            script = f'(setsid sleep 0.1 &); read _ < "$0"; echo bye-{n} >&2; exit {n + 1}'
            streams.append((raw.terminal if n % 2 else raw.pipes)("/bin/sh", "-c", script, str(gate)))
        os.kill(first_of(process), signal.SIGUSR2)
        wait_for_lines(process, "restart", 1)
        for gate in gates:
            gate.write_text("go\n")
            time.sleep(PAUSE)
        wait_for_lines(process, "restarted", 1)
        for n, stream in enumerate(streams):
            again = raw.connect(stream.pid, REPLAY).finish()
            assert again.ended is not None and again.ended["exitCode"] == n + 1
            assert again.output.strip() == b"bye-%d" % n
    assert no_child_of(first_of(process))
    assert "internal-error" not in process.log()
    os.kill(first_of(process), signal.SIGTERM)
    assert process.wait(LIMIT) == 0


def no_child_of(pid: int) -> bool:
    """Return whether it comes to that."""
    return any(not descendants(pid) for _ in ticks(LIMIT))


def test_files_that_are_on_their_way_can_be_sent_again(bed: Bed, tmp_path: Path) -> None:
    service = start_service(bed)
    large = tmp_path / "large"
    large.write_bytes(bytes(50_000_000))
    has_begun, is_over = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        yield b"x" * 500_000
        has_begun.set()
        is_over.wait(LIMIT)
        yield b"x" * 500_000

    path = tmp_path / "file"
    with (
        Raw(service.url) as raw,
        closing(HTTPConnection(raw.address, timeout=LIMIT)) as downloading,
        ThreadPoolExecutor() as pool,
    ):
        uploading: Any = pool.submit(raw.request, "POST", f"/files?path={path}", body())
        assert has_begun.wait(LIMIT)
        downloading.request("GET", f"/files?path={large}")
        response = downloading.getresponse()
        restart(service.process)
        is_over.set()
        with response, pytest.raises(IncompleteRead):
            response.read()
        assert isinstance(uploading.exception(LIMIT), OSError | HTTPException)
        assert not path.exists()
        assert raw.request("POST", f"/files?path={path}", b"again").status == 200
    assert path.read_bytes() == b"again"
    assert no_child_of(service.process.pid)
