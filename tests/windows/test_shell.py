"""``shell`` and ``pty ps`` on Windows, with pipes instead of the console, which wine offers only in a window."""

from __future__ import annotations

from tests.bed.processes import Bed
from tests.bed.windows import Windows
from tests.pty.beds import start_service


def test_a_shell_takes_its_input_from_a_pipe_and_passes_on_output_and_exit_code(bed: Bed, windows: Windows) -> None:
    service = start_service(bed)
    typed = b"stty -echo; echo sum-$((40 + 2)); head -c 300000 /dev/zero | tr '\\0' x; exit 7\n"
    done = windows.pipe(bed, typed, "shell", service.url)
    assert (done.status, done.stderr) == (7, "")
    assert b"sum-42\r\n" in done.stdout and done.stdout.count(b"x" * 1000) == 300
    listed = windows.run(bed, "pty", "ps", service.url)
    assert (listed.status, listed.stderr) == (0, "")
