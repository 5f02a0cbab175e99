"""E2B's own clients, unmodified, against our terminal service: the Python SDK, the JavaScript SDK and the CLI.

They run in their debug mode, in which they ask no API of E2B and find the service by ``E2B_SANDBOX_URL``. The seven
files in ``e2b_page`` are the examples of E2B's page on terminals.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed.processes import Bed, Process, descendants, ticks
from tests.pty.beds import Output, Service, start_service
from tests.restart.restarting import restart

HERE = Path(__file__).parent
PAGE = HERE / "e2b_page"
NODE_MODULES = HERE / "node" / "node_modules"
ACCOUNT = Path(pwd.getpwuid(os.geteuid()).pw_dir)  # the home of the service's user, whatever HOME says
PROMPT = rb"[#$] "
LIMIT = 60.0  # seconds of any wait: Node is slow to start on a busy machine

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the SDK's own dependencies say while they are imported
    import e2b


@pytest.fixture
def service(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service to which E2B's clients go."""
    service = start_service(bed)
    monkeypatch.setenv("E2B_DEBUG", "true")
    monkeypatch.setenv("E2B_SANDBOX_URL", service.url)
    return service


@pytest.fixture
def sandbox(service: Service) -> e2b.Sandbox:
    return e2b.Sandbox.create()


def size(**characters: int) -> Any:
    return e2b.PtySize(**characters)


class Follower:
    """Follows a terminal in a thread, as the SDK's ``wait`` does nothing but block."""

    def __init__(self, handle: Any) -> None:
        import threading

        self.output = Output()
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, args=(handle,))
        self._thread.start()

    def _follow(self, handle: Any) -> None:
        try:
            self.result = handle.wait(on_pty=self.output)
        except Exception as exc:
            self.error = exc

    def join(self) -> Any:
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()
        return self.result


def wait_for_no_ends(service: Service) -> None:
    """Wait until no program of the service's terminals and commands is left, nor what such a one has started."""
    for _ in ticks(LIMIT):
        if not descendants(service.process.pid):
            break
    assert descendants(service.process.pid) == []


# ---- Python


def test_a_terminal_gets_all_options(sandbox: e2b.Sandbox, tmp_path: Path) -> None:
    terminal = sandbox.pty.create(size(rows=33, cols=99), envs={"MY_VAR": "hello"}, cwd=str(tmp_path), timeout=0)
    follower = Follower(terminal)
    sandbox.pty.send_stdin(terminal.pid, b"echo $MY_VAR-$TERM; pwd; stty size; exit 7\n")
    follower.join()
    assert isinstance(follower.error, e2b.CommandExitException) and follower.error.exit_code == 7
    for wanted in (b"hello-xterm-256color\r\n", f"{tmp_path}\r\n".encode(), b"33 99\r\n"):
        assert wanted in follower.output.data


def test_a_terminal_is_resized(sandbox: e2b.Sandbox) -> None:
    terminal = sandbox.pty.create(size(rows=24, cols=80), timeout=0)
    follower = Follower(terminal)
    sandbox.pty.resize(terminal.pid, size(rows=40, cols=120))
    sandbox.pty.send_stdin(terminal.pid, b"stty size; exit\n")
    assert follower.join().exit_code == 0
    assert b"40 120\r\n" in follower.output.data


def test_a_terminal_is_left_and_joined_again_with_another_handler(sandbox: e2b.Sandbox) -> None:
    terminal = sandbox.pty.create(size(rows=24, cols=80), timeout=0)
    sandbox.pty.send_stdin(terminal.pid, b"echo one-$((40+2))\n")
    first = b""
    for _, _, data in terminal:
        first += data or b""
        if b"one-42\r\n" in first:
            break
    terminal.disconnect()
    second = Follower(sandbox.pty.connect(terminal.pid, timeout=0))
    sandbox.pty.send_stdin(terminal.pid, b"echo two-$((40+2)); exit\n")
    assert second.join().exit_code == 0
    assert b"two-42\r\n" in second.output.data and b"one-42" not in second.output.data


def test_after_a_restart_of_the_service_a_terminal_and_a_command_are_joined_again(
    sandbox: e2b.Sandbox, service: Service
) -> None:
    terminal = sandbox.pty.create(size(rows=24, cols=80), timeout=0)
    follower = Follower(terminal)
    sandbox.pty.send_stdin(terminal.pid, b"v=42; echo one-$v\n")
    follower.output.wait_for_line(b"one-42")
    command = sandbox.commands.run("read word; echo got $word; exit 3", background=True, stdin=True, timeout=0)
    restart(service.process)
    follower.join()
    assert isinstance(follower.error, e2b.SandboxException) and "connect again" in str(follower.error)
    second = Follower(sandbox.pty.connect(terminal.pid, timeout=0))
    sandbox.pty.send_stdin(terminal.pid, b"echo two-$v; exit 7\n")
    second.join()
    assert isinstance(second.error, e2b.CommandExitException) and second.error.exit_code == 7
    assert b"two-42\r\n" in second.output.data
    assert [each.pid for each in sandbox.commands.list()] == [command.pid]
    again = sandbox.commands.connect(command.pid, timeout=0)
    sandbox.commands.send_stdin(command.pid, "word\n")
    with pytest.raises(e2b.CommandExitException) as ended:
        again.wait()
    assert ended.value.exit_code == 3 and ended.value.stdout == "got word\n"


def test_a_terminal_is_killed_once(sandbox: e2b.Sandbox, service: Service) -> None:
    terminal = sandbox.pty.create(size(rows=24, cols=80), timeout=0)
    assert sandbox.pty.kill(terminal.pid) is True
    assert sandbox.pty.kill(terminal.pid) is False
    wait_for_no_ends(service)


def test_a_terminal_ends_when_its_time_is_over(sandbox: e2b.Sandbox, service: Service) -> None:
    terminal = sandbox.pty.create(size(rows=24, cols=80), timeout=1)
    with pytest.raises(e2b.TimeoutException):
        terminal.wait()
    wait_for_no_ends(service)


def test_the_default_time_is_a_minute(sandbox: e2b.Sandbox) -> None:
    terminal = sandbox.pty.create(size(rows=24, cols=80))
    follower = Follower(terminal)
    time.sleep(2)
    sandbox.pty.send_stdin(terminal.pid, b"exit\n")
    assert follower.join().exit_code == 0


def test_commands_run_to_their_end_with_output_and_exit_code(sandbox: e2b.Sandbox) -> None:
    seen: list[str] = []
    finished = sandbox.commands.run("echo out; echo err >&2", on_stdout=seen.append, envs={"A": "b"})
    assert (finished.stdout, finished.stderr, finished.exit_code) == ("out\n", "err\n", 0)
    assert "".join(map(str, seen)) == "out\n"
    with pytest.raises(e2b.CommandExitException) as failed:
        sandbox.commands.run("exit 3")
    assert failed.value.exit_code == 3
    with pytest.raises(e2b.TimeoutException):
        sandbox.commands.run("sleep 60", timeout=1)


def test_a_command_in_the_background_is_fed_listed_and_killed(sandbox: e2b.Sandbox) -> None:
    command = sandbox.commands.run("cat", background=True, stdin=True, timeout=0)
    assert command.pid in [each.pid for each in sandbox.commands.list()]
    sandbox.commands.send_stdin(command.pid, "hello\n")
    sandbox.commands.close_stdin(command.pid)
    assert command.wait().stdout == "hello\n"
    sleeper = sandbox.commands.run("sleep 60", background=True, timeout=0)
    assert sleeper.kill() is True
    assert sandbox.commands.kill(sleeper.pid) is False


def test_files_are_written_and_read(sandbox: e2b.Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    data = os.urandom(1_000_000)
    sandbox.files.write(str(path), data)
    assert path.read_bytes() == data
    assert bytes(sandbox.files.read(str(path), format="bytes")) == data
    with pytest.raises(e2b.NotFoundException):
        sandbox.files.read(str(tmp_path / "missing"))


@pytest.fixture
def relative(tmp_path: Path) -> str:
    """The test's folder as seen from the home of the service's user."""
    return os.path.relpath(tmp_path, ACCOUNT)


def test_several_files_are_written_where_they_are_to_go(sandbox: e2b.Sandbox, tmp_path: Path, relative: str) -> None:
    paths = [f"{tmp_path}/one", f"{tmp_path}/new/bü; ro", f"{relative}/two", f"{tmp_path}/100%20"]
    written = sandbox.files.write_files([{"path": path, "data": f"data of {path}"} for path in paths])
    assert [os.path.samefile(each.path, ACCOUNT / path) for each, path in zip(written, paths, strict=True)]
    assert [(ACCOUNT / path).read_text() for path in paths] == [f"data of {path}" for path in paths]
    for name in ('a"b', "a\\b"):
        with pytest.raises(e2b.InvalidArgumentException, match="is ambiguous"):
            sandbox.files.write_files([{"path": f"{tmp_path}/{each}", "data": "x"} for each in ("three", name)])
        sandbox.files.write(f"{tmp_path}/{name}", f"alone {name}")
        assert (tmp_path / name).read_text() == f"alone {name}"
    assert not (tmp_path / "three").exists()


def test_errors_become_the_exceptions_of_the_sdk(sandbox: e2b.Sandbox) -> None:
    with pytest.raises(e2b.NotFoundException):
        sandbox.pty.send_stdin(1, b"x")
    with pytest.raises(e2b.InvalidArgumentException, match="does not exist"):
        sandbox.pty.create(size(rows=24, cols=80), cwd="/no/such/folder")
    with pytest.raises(e2b.AuthenticationException, match="invalid username"):
        sandbox.pty.create(size(rows=24, cols=80), user="nobody-of-that-name")


def test_the_asynchronous_sdk_does_the_same(service: Service) -> None:
    async def work() -> None:
        sandbox = await e2b.AsyncSandbox.create()
        output = bytearray()
        seen = asyncio.Event()

        async def on_data(data: bytes) -> None:
            output.extend(data)
            if b"one-42\r\n" in output:
                seen.set()

        terminal = await sandbox.pty.create(size(rows=24, cols=80), on_data=on_data, envs={"A": "b"}, timeout=0)
        await sandbox.pty.send_stdin(terminal.pid, b"echo one-$((40+2))\n")
        await seen.wait()
        await terminal.disconnect()
        again = await sandbox.pty.connect(terminal.pid, on_data=on_data, timeout=0)
        await sandbox.pty.resize(terminal.pid, size(rows=40, cols=120))
        await sandbox.pty.send_stdin(terminal.pid, b"stty size; exit 5\n")
        with pytest.raises(e2b.CommandExitException) as failed:
            await again.wait()
        assert failed.value.exit_code == 5 and b"40 120\r\n" in output
        assert await sandbox.pty.kill(terminal.pid) is False
        finished = await sandbox.commands.run("echo $A", envs={"A": "b"})
        assert finished.stdout == "b\n"

    asyncio.run(asyncio.wait_for(work(), LIMIT))
    wait_for_no_ends(service)


# ---- JavaScript


def node(bed: Bed, service: Service, script: str | Path, *, home: Path | None = None) -> Process:
    """Run a script with E2B's JavaScript SDK; its imports are found beside a link to ``node_modules``."""
    assert NODE_MODULES.is_dir(), "E2B's JavaScript SDK is missing: scripts/test installs it"
    program = shutil.which("node")
    assert program, "node is missing: scripts/test installs it"
    folder = bed.folder / "page"
    folder.mkdir(exist_ok=True)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(NODE_MODULES)
    path = folder / (script.name if isinstance(script, Path) else "script.mjs")
    path.write_text(script.read_text() if isinstance(script, Path) else script)
    return bed.start(program, str(path), env={"HOME": str(home)} if home else None)


EXAMPLES = sorted(PAGE.glob("*.mjs"))
# What an example prints, and whether it ends by itself.
EXPECTED = {
    "1_create": (r"Terminal PID: \d+", False),
    "2_timeout": (r"[#$] ", False),
    "3_send_input": (r"\nHello from PTY\n", False),
    "4_resize": (r"[#$] ", False),
    "5_reconnect": (r"Handler 2: (.|\n)*(: |\n)world\n", False),
    "6_kill": (r"Killed: true", True),
    "7_wait": (r"Exit code: 0", True),
}


@pytest.fixture
def home_user() -> Iterator[None]:
    """The folder that the first example starts in, as it is in E2B's sandboxes."""
    path = Path("/home/user")
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    yield
    if made:
        path.rmdir()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_of_the_page_run_as_they_are(
    bed: Bed, example: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home_user: None
) -> None:
    # One example asks for a user, which a service lets choose only those who show a token; it runs as root itself.
    service = start_service(bed)
    monkeypatch.setenv("E2B_DEBUG", "true")
    monkeypatch.setenv("E2B_SANDBOX_URL", service.url)
    pattern, ends = EXPECTED[example.stem]
    process = node(bed, service, example)
    process.wait_for_line(pattern)
    if ends:
        assert process.wait(LIMIT) == 0, process.log()
    else:
        assert process.status is None or process.status == 0, process.log()


def test_every_example_of_the_page_is_tested() -> None:
    assert [path.stem for path in EXAMPLES] == list(EXPECTED)


def test_javascript_gets_exit_codes_commands_and_errors(bed: Bed, service: Service) -> None:
    script = """
        import { Sandbox, CommandExitError, NotFoundError } from 'e2b'
        const sandbox = await Sandbox.create()
        const text = new TextEncoder()
        let output = ''
        const terminal = await sandbox.pty.create({
          cols: 99, rows: 33, timeoutMs: 0, onData: (data) => { output += new TextDecoder().decode(data) },
        })
        await sandbox.pty.resize(terminal.pid, { cols: 120, rows: 40 })
        await sandbox.pty.sendInput(terminal.pid, text.encode('stty size; exit 7\\n'))
        const code = await terminal.wait().then((r) => r.exitCode, (e) => e.exitCode)
        const run = await sandbox.commands.run('echo out; echo err >&2')
        const missing = await sandbox.pty.kill(terminal.pid)
        const error = await sandbox.pty.sendInput(1, text.encode('x')).catch((e) => e.name)
        const size = output.includes('40 120')
        console.log(JSON.stringify({ size, code, out: run.stdout, err: run.stderr, missing, error }))
    """
    process = node(bed, service, script)
    assert process.wait(LIMIT) == 0, process.log()
    assert process.out.read_text() == (
        '{"size":true,"code":7,"out":"out\\n","err":"err\\n","missing":false,"error":"NotFoundError"}\n'
    )


# ---- the CLI


def test_the_cli_opens_a_terminal(service: Service, tmp_path: Path) -> None:
    """``e2b sandbox connect``, typed into through a terminal."""
    from tests.pty.typist import Typist

    program = shutil.which("node")
    cli = NODE_MODULES / "@e2b" / "cli" / "dist" / "index.js"
    assert program and cli.exists(), "E2B's CLI is missing: scripts/test installs it"
    os.environ["E2B_API_KEY"] = "e2b_" + "0" * 40  # it wants to see one, and shows it to nobody in debug mode
    try:
        with Typist(program, str(cli), "sandbox", "connect", "debug_sandbox_id", rows=33, cols=99) as typist:
            for _ in ticks(LIMIT):
                if re.search(PROMPT, typist.output.data):
                    break
            typist.output.wait_for_match(PROMPT)
            typist.type("echo in-$((40+2)); stty size\r")
            typist.see("in-42\r")
            typist.see("33 99\r")
            typist.type("exit\r")
            wait_for_no_ends(service)
    finally:
        del os.environ["E2B_API_KEY"]


def test_the_javascript_sdk_writes_several_files_where_they_are_to_go(
    bed: Bed, service: Service, tmp_path: Path, relative: str
) -> None:
    paths = [f"{tmp_path}/one", f"{tmp_path}/new/bü; ro", f"{relative}/two", f"{tmp_path}/100%20"]
    script = f"""
        import {{ Sandbox }} from 'e2b'
        const sandbox = await Sandbox.create()
        const write = paths => sandbox.files.writeFiles(paths.map(path => ({{ path, data: `data of ${{path}}` }})))
        await write({json.dumps(paths)})
        await sandbox.files.write('{tmp_path}/a"b', 'alone')
        try {{
            await write(['{tmp_path}/three', '{tmp_path}/c"d'])
        }} catch (error) {{
            console.log(error.name, error.message)
        }}
    """
    process = node(bed, service, script)
    assert process.wait(LIMIT) == 0, process.log()
    assert [(ACCOUNT / path).read_text() for path in paths] == [f"data of {path}" for path in paths]
    assert (tmp_path / 'a"b').read_text() == "alone"
    assert "is ambiguous" in process.log()
    assert not (tmp_path / "three").exists()
