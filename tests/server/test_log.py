"""The log: one line per tunnel and per refusal, which nobody on the network can forge, as text or JSON."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

from tests.bed.processes import Bed, ticks
from tests.bed.targets import Target, read_to_end
from tests.bed.tunnels import OURS, start_bridge
from tests.conftest import StartBridge
from tests.server.clients import LIMIT, UPGRADE, ask, ask_raw, assert_echo, dial, open_tunnel, request_head

TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def wait_for_text(path: Path, pattern: str) -> re.Match[str]:
    """Wait until the file matches ``pattern``: a thread writes the lines."""
    text = ""
    for _ in ticks(LIMIT):
        text = path.read_text() if path.exists() else ""
        match = re.search(pattern, text)
        if match:
            return match
    raise AssertionError(f"no {pattern!r} in {path}:\n{text}")


def test_the_log_line_of_a_tunnel_has_client_target_bytes_seconds_and_reason(
    start: StartBridge, echo_target: Target
) -> None:
    bridge = start()
    with open_tunnel(bridge.url) as tunnel:
        assert_echo(tunnel, b"x" * 100_000)
    bridge.process.wait_for_line(
        rf"(?m)^{TIMESTAMP} info tunnel client=127\.0\.0\.1:\d+ target=127\.0\.0\.1:{echo_target.port} "
        r'bytes_in=100000 bytes_out=100000 seconds=\d+\.\d+ reason="(client|target) ended"$'
    )


def test_the_log_says_which_end_closed_a_tunnel_and_how(bed: Bed) -> None:
    with Target(lambda connection: connection.sendall(b"bye")) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with open_tunnel(bridge.url) as tunnel:
            assert list(tunnel) == [b"bye"]  # up to the target's end: the client must not come before it
        bridge.process.wait_for_line('bytes_in=0 bytes_out=3 .* reason="target ended"')
    with Target(read_to_end) as target:
        bridge = start_bridge(bed, "ours", target.port)
        with dial(bridge.url) as sock:
            sock.sendall(request_head() + bytes([0x82, 0x80 | 5, 0, 0, 0, 0]) + b"hello")
            assert sock.recv(100).startswith(b"HTTP/1.1 101 ")
        bridge.process.wait_for_line('bytes_in=5 bytes_out=0 .* reason="client (lost|closed)')


def test_a_refusal_is_one_line_with_what_the_client_was_told(start: StartBridge) -> None:
    bridge = start()
    answer = ask(bridge.url, headers={**UPGRADE, "Origin": "https://evil.test"})
    bridge.process.wait_for_line(
        rf"(?m)^{TIMESTAMP} info refused client=127\.0\.0\.1:\d+ status=403 error=origin "
        rf'message="{re.escape(answer.json["message"])}"$'
    )


def test_nothing_from_the_wire_can_forge_a_line(start: StartBridge) -> None:
    bridge = start("--path", "/only-here")
    forged = '1.2.3.4" status=200 \x85\u202e tunnel client=9.9.9.9'
    head = request_head("/%0Atunnel", UPGRADE | {"X-Forwarded-For": forged})
    assert ask_raw(bridge.url, head).status == 404
    line = bridge.process.wait_for_line("(?m)^.* refused .*$")[0]
    assert line.isascii() and line.isprintable()
    fields = dict(re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', line))
    assert fields["status"] == "404" and fields["client"].startswith("127.0.0.1:")
    assert json.loads(fields["forwarded"]).startswith('1.2.3.4" status=200')
    assert ask_raw(bridge.url, request_head(headers={"X": "\x1b[31m\x07\x00"})).status == 400
    line = bridge.process.wait_for_line("(?m)^.* refused .* status=400 .*$")[0]
    assert line.isascii() and line.isprintable() and "31m" not in line
    assert len(bridge.process.log().splitlines()) == 3


def test_what_proxies_say_is_shown_but_bounded_and_never_believed(start: StartBridge) -> None:
    bridge = start("--max-tunnels", "1")
    with open_tunnel(bridge.url, headers={"X-Forwarded-For": "192.0.2.1, 10.0.0.1"}) as tunnel:
        assert_echo(tunnel)
        assert ask(bridge.url, headers={**UPGRADE, "X-Forwarded-For": "192.0.2.2" * 500}).status == 503
    bridge.process.wait_for_line('tunnel client=127.* forwarded="192.0.2.1, 10.0.0.1"')
    assert max(map(len, bridge.process.log().splitlines())) < 1000


def test_json_lines_say_the_same_for_programs(bed: Bed, echo_target: Target) -> None:
    process = bed.start(
        *(*OURS, "serve", "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{echo_target.port}"),
        *("--log-format", "json"),
    )
    url = process.wait_for_line(r'"listen": "(ws://[^"]+)"')[1]
    assert ask(url, headers={}).status == 426
    with open_tunnel(url) as tunnel:
        assert_echo(tunnel)
    process.wait_for_line('"event": "tunnel"')
    process.end(LIMIT)
    ready, refused, ended, draining = json_lines(process.log())
    assert ready["event"] == "ready" and ready["auth"] == "none"
    assert refused["event"] == "refused" and refused["status"] == 426 and refused["error"] == "upgrade-required"
    assert draining["event"] == "draining"
    assert re.fullmatch(TIMESTAMP, ended.pop("time"))
    assert ended.pop("client").startswith("127.0.0.1:")
    assert 0 < ended.pop("seconds") < 60
    assert ended.pop("reason") in ("client ended", "target ended")
    assert ended == {
        "level": "info",
        "event": "tunnel",
        "target": f"127.0.0.1:{echo_target.port}",
        "bytes_in": 5,
        "bytes_out": 5,
    }


def test_a_log_file_is_opened_again_on_sighup(start: StartBridge, tmp_path: Path) -> None:
    path = tmp_path / "bridge.log"
    bridge = start("--log-file", str(path))
    ask(bridge.url, headers={})
    wait_for_text(path, "refused")
    assert "refused" not in bridge.process.log()
    rotated = path.rename(tmp_path / "bridge.log.1")
    bridge.process.send_signal(signal.SIGHUP)
    wait_for_text(path, "info reloaded what=log\n")
    ask(bridge.url, method="POST")
    wait_for_text(path, "status=405")
    assert "status=405" not in rotated.read_text()


def test_a_log_file_that_cannot_be_written_stops_the_start(bed: Bed, tmp_path: Path) -> None:
    path = tmp_path / "no-such-folder" / "log"
    finished = bed.run(*OURS, "serve", "--listen", "127.0.0.1:0", "--log-file", str(path), seconds=20)
    assert finished.status == 2
    assert finished.stderr == f"wstunnel-py: --log-file: cannot use {path}: No such file or directory\n"
