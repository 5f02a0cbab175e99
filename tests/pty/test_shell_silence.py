"""``wstunnel-py shell`` whose connection goes silent just before its terminal ends: it still reports how that ended."""

from __future__ import annotations

import subprocess

import pytest

from tests.bed.processes import Bed
from tests.bed.tunnels import OURS
from tests.faults.link import Link
from tests.pty.beds import start_service
from tests.server.clients import port_of
from tunnel.pty.client.stream import BEGIN_LIMIT, SILENCE
from tunnel.pty.server.processes import RETENTION


def test_an_end_is_kept_for_longer_than_it_takes_to_notice_that_a_connection_is_silent_and_to_come_back() -> None:
    assert RETENTION > SILENCE + BEGIN_LIMIT


@pytest.mark.full
@pytest.mark.timeout(200)
def test_the_exit_code_comes_after_a_silence_too(bed: Bed) -> None:
    service = start_service(bed)
    with Link(port_of(service.url)) as link:
        program = "echo ready; sleep 2; echo last; exit 7"
        url = f"http://127.0.0.1:{link.port}"
        shell = bed.start(*OURS, "shell", url, "--", "/bin/sh", "-c", program, stdin=subprocess.PIPE)
        shell.wait_for_line("ready")
        link.break_all("silence")
        assert shell.wait(150) == 7
        assert shell.out.read_bytes() == b"ready\r\nlast\r\n"
