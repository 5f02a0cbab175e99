"""``shell`` and ``pty ps`` on Windows, with pipes and in a console."""

from __future__ import annotations

from tests.bed.processes import Bed
from tests.bed.windows import Windows
from tests.pty.beds import start_service
from tests.pty.typist import Typist


def test_a_shell_takes_its_input_from_a_pipe_and_passes_on_output_and_exit_code(bed: Bed, windows: Windows) -> None:
    service = start_service(bed)
    typed = b"stty -echo; echo sum-$((40 + 2)); head -c 300000 /dev/zero | tr '\\0' x; exit 7\n"
    done = windows.pipe(bed, typed, "shell", service.url)
    assert (done.status, done.stderr) == (7, "")
    assert b"sum-42\r\n" in done.stdout and done.stdout.count(b"x" * 1000) == 300
    listed = windows.run(bed, "pty", "ps", service.url)
    assert (listed.status, listed.stderr) == (0, "")


def test_a_console_passes_on_each_key_at_once(bed: Bed, windows: Windows) -> None:
    service = start_service(bed)
    command = "stty raw -echo; echo ready; od -An -tx1 -w1 -v -N6; exit 7"
    with Typist(*windows.command("shell", service.url, "--", "sh", "-c", command)) as typist:
        typist.see("ready")
        typist.type("a")
        typist.output.wait_for_match(rb"\b61\b")
        typist.type("😀\r")
        for byte in (b"f0", b"9f", b"98", b"80", b"0d"):
            typist.output.wait_for_match(rb"\b" + byte + rb"\b")
        assert typist.wait() == 7
