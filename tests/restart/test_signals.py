"""Signals that come while the bridge restarts in place: none is lost, and none kills it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.conftest import StartBridge
from tests.restart.installed import Installed
from tests.restart.restarting import lines_of, restart, wait_for, wait_for_lines
from tests.server.clients import LIMIT, assert_echo, open_tunnel

# The moments: the trial starts; the bridge stands still; the new version does not listen to signals yet.
MOMENTS = {
    "starting": ("run.py", "    make_loop = _uvloop()"),
    "standing": ("restart/course.py", "        last_words()\n"),
    "arriving": ("run.py", "    note_soft_limit(process"),
}


def pause_at(installed: Installed, moment: str) -> tuple[Path, Path]:
    """Let the program make a file at the moment, and stay there until there is another; return both."""
    module, text = MOMENTS[moment]
    told, go_on = installed.folder / "told", installed.folder / "go-on"
    goes_on = f"lambda: __import__('os').path.exists({str(go_on)!r})"
    pause = f"open({str(told)!r}, 'w').close() or [__import__('time').sleep(0.02) for _ in iter({goes_on}, True)]"
    if moment == "starting":
        pause = f"arrived and ({pause})"
    installed.change(module, text, f"{text[: len(text) - len(text.lstrip())]}{pause}\n{text}")
    return told, go_on


def test_two_signals_are_two_restarts_at_most_and_one_at_least(start: StartBridge) -> None:
    bridge = start()
    with open_tunnel(bridge.url) as tunnel:
        for _ in range(5):
            bridge.process.send_signal(signal.SIGUSR2)
        wait_for_lines(bridge.process, "restarted", 1)
        assert_echo(tunnel)
        restart(bridge.process)
        assert_echo(tunnel)


@pytest.mark.parametrize("moment", ["standing", "arriving"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2], ids=lambda number: number.name)
def test_a_signal_waits_for_the_new_version(
    bed: Bed, installed: Installed, echo_target: Target, moment: str, number: signal.Signals
) -> None:
    told, go_on = pause_at(installed, moment)
    tokens = installed.folder / "tokens"
    tokens.write_text("a-token-of-32-characters-at-least\n")
    tokens.chmod(0o600)
    process, url = installed.serve(bed, echo_target.port, "--token-file", str(tokens))
    with open_tunnel(url, headers={"Authorization": "Bearer a-token-of-32-characters-at-least"}) as tunnel:
        process.send_signal(signal.SIGUSR2)
        wait_for(told)
        process.send_signal(number)
        process.send_signal(number)
        go_on.touch()
        if number == signal.SIGUSR2:
            wait_for_lines(process, "restarted", 2)
        elif number == signal.SIGHUP:
            wait_for_lines(process, "reloaded", 1)
        else:
            process.wait_for_line("info draining")
        assert "restarted" in process.log().partition("reloaded")[0].partition("draining")[0]
        assert_echo(tunnel)
    if number == signal.SIGTERM:
        assert process.wait(LIMIT) == 0


@pytest.mark.parametrize("options", [(), ("--uvloop",)], ids=["asyncio", "uvloop"])
def test_no_other_thread_takes_a_signal(
    bed: Bed, installed: Installed, echo_target: Target, options: tuple[str, ...]
) -> None:
    """A thread that has looked up the target's name is there; the main thread, which blocks signals, stands still."""
    told, go_on = pause_at(installed, "standing")
    process, url = installed.serve(bed, echo_target.port, "--target", f"localhost:{echo_target.port}", *options)
    with open_tunnel(url) as tunnel:
        assert_echo(tunnel)
        process.send_signal(signal.SIGUSR2)
        wait_for(told)
        process.send_signal(signal.SIGTERM)
        go_on.touch()
        process.wait_for_line("info draining")
        assert len(lines_of(process, "restarted")) == 1
        assert_echo(tunnel)
    assert process.wait(LIMIT) == 0


def test_a_bridge_that_is_told_to_stop_does_not_restart(bed: Bed, installed: Installed, echo_target: Target) -> None:
    told, go_on = pause_at(installed, "starting")
    process, url = installed.serve(bed, echo_target.port)
    with open_tunnel(url) as tunnel:
        process.send_signal(signal.SIGUSR2)
        wait_for(told)
        process.send_signal(signal.SIGTERM)
        process.wait_for_line("info draining")
        go_on.touch()
        process.send_signal(signal.SIGUSR2)
        assert_echo(tunnel)
    assert process.wait(LIMIT) == 0
    assert lines_of(process, "restarted") == []
