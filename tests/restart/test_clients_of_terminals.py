"""Terminals that live through restarts of the service in place, as each of our clients sees them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from tests.bed.processes import Bed
from tests.bed.tunnels import OURS
from tests.pty.beds import LIMIT, Output, start_service
from tests.pty.browsing import TOKEN, chromium, log_in, new_context, run, start_page_service, wait_for_text
from tests.pty.raw import Raw
from tests.pty.typist import Typist
from tests.restart.restarting import refused, restart
from tunnel import AsyncSandbox, Sandbox

RESTARTS = 3
ECHO = ("/bin/sh", "-c", "stty -echo -opost; echo ready; exec cat")
# Output without a pause, more than the scrollback keeps.
LINES = 600_000
COUNT = ("/bin/sh", "-c", f"stty -opost -echo; echo ready; read _; seq 1 {LINES}; exit 5")
COUNTED = b"ready\n" + "".join(f"{n}\n" for n in range(1, LINES + 1)).encode()


def test_a_terminal_lives_through_restarts_for_every_client(bed: Bed, tmp_path: Path) -> None:
    """At the same service: our library, ``shell`` and the page."""
    service = start_page_service(bed, tmp_path)
    (tmp_path / "tokens").chmod(0o600)
    pid = service.process.pid
    output = Output()
    words = (*OURS, "shell", service.url, "--token-file", f"{tmp_path}/tokens", "--", *ECHO)
    with (
        Sandbox(service.url, token=TOKEN) as sandbox,
        sandbox.pty.create(command=("/bin/bash", "--norc", "--noprofile"), on_data=output, timeout=0) as terminal,
        Typist(*words) as typist,
        chromium() as browser,
        new_context(browser) as context,
    ):
        page = context.new_page()
        log_in(page, service.url)
        typist.see("ready")
        terminal.resize(rows=31, cols=97)
        for n in range(RESTARTS):
            terminal.send_stdin(f"v={n}; echo before-$v\n".encode())
            output.wait_for_line(f"before-{n}".encode())
            typist.type(f"before-{n}\n")
            typist.see(f"before-{n}\n")
            run(page, f"v={n}; echo before-$((40+v))")
            wait_for_text(page, f"(?m)^before-{40 + n}")
            restart(service.process)
            terminal.send_stdin(b"echo after-$v; stty size\n")
            output.wait_for_line(f"after-{n}".encode())
            output.wait_for_line(b"31 97")
            typist.type(f"after-{n}\n")
            typist.see(f"after-{n}\n")
            run(page, "echo after-$((50+v))")
            wait_for_text(page, f"(?m)^after-{50 + n}")
        assert len(sandbox.pty.list()) == 3
        terminal.send_stdin(b"exit 7\n")
        assert terminal.wait().exit_code == 7
        typist.type("\x04")
        assert typist.wait() == 0
    assert service.process.pid == pid and service.process.status is None
    assert "internal-error" not in service.process.log()
    # Nothing twice, and not a word about it.
    assert output.data.count(b"before-1\r\n") == 1
    said = ["ready", *(f"{when}-{n}" for n in range(RESTARTS) for when in ("before", "after"))]
    assert typist.output.data.decode().split() == said


def test_what_is_written_and_typed_without_a_pause_comes_whole(bed: Bed) -> None:
    """Two terminals that write as fast as they are read, with both kinds of client, and one that is typed on."""
    service = start_service(bed)
    echoed = Output()
    seen: dict[str, bytes] = {"sync": b"", "async": b""}
    results: dict[str, int | None] = {}
    is_over = threading.Event()
    changed = threading.Condition()
    typed = restarts = 0

    def wants_more(client: str) -> bool:
        return restarts == RESTARTS or len(seen[client]) < len(COUNTED) * (restarts + 1) // (RESTARTS + 2)

    def take(client: str, data: bytes) -> None:
        """Take what has come, and wait for the next restart when it is enough for now."""
        with changed:
            seen[client] += data
            changed.notify_all()
            assert changed.wait_for(lambda: wants_more(client), 6 * LIMIT)

    def follow(sandbox: Sandbox) -> None:
        terminal = sandbox.pty.create(command=COUNT, timeout=0)
        for data in terminal:
            if not seen["sync"]:
                terminal.send_stdin(b"\n")
            take("sync", data)
        results["sync"] = terminal.wait().exit_code

    async def follow_async() -> None:
        async with AsyncSandbox(service.url) as sandbox:
            terminal = await sandbox.pty.create(command=COUNT, timeout=0)
            async for data in terminal:
                if not seen["async"]:
                    await terminal.send_stdin(b"\n")
                await asyncio.to_thread(take, "async", data)
            results["async"] = (await terminal.wait()).exit_code

    with Sandbox(service.url) as sandbox, sandbox.pty.create(command=ECHO, on_data=echoed, timeout=0) as terminal:

        def type_on() -> None:
            nonlocal typed
            while not is_over.is_set():
                terminal.send_stdin(b"%d\n" % typed)
                typed += 1

        echoed.wait_for(b"ready")
        threads = [
            threading.Thread(target=follow, args=(sandbox,)),
            threading.Thread(target=asyncio.run, args=(follow_async(),)),
            threading.Thread(target=type_on),
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in range(RESTARTS):
                with changed:
                    assert changed.wait_for(lambda: not any(map(wants_more, seen)), 3 * LIMIT)
                restart(service.process)
                with changed:
                    restarts += 1
                    changed.notify_all()
        finally:
            is_over.set()
            for thread in threads:
                thread.join(3 * LIMIT)
        terminal.send_stdin(b"\x04")
        assert terminal.wait().exit_code == 0
    assert results == {"sync": 5, "async": 5}
    assert seen["sync"] == COUNTED and seen["async"] == COUNTED
    assert typed > RESTARTS and echoed.data.split()[1:] == [b"%d" % n for n in range(typed)]


def test_a_new_version_that_cannot_start_changes_nothing(bed: Bed, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-of-this-test\n")
    service = start_service(bed, "--pty-token-file", str(tokens))
    with Raw(service.url, {"X-Access-Token": "a-token-of-this-test"}) as raw:
        stream = raw.terminal(*ECHO)
        stream.wait_for(b"ready")
        tokens.rename(tmp_path / "gone")
        assert "tokens" in refused(service.process)
        assert raw.send(stream.pid, b"still here\n").status == 200
        stream.wait_for(b"still here")  # on the same connection
        raw.kill(stream.pid)
        stream.finish()
