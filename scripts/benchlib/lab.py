"""The setup of a run: the test bed's sshd and TLS edges, the raw target, and the bridges of all peers.

Everything listens on free loopback ports and is gone when the laboratory closes.
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from benchlib.install import install
from benchlib.peers import Endpoint, Peer
from tests.bed.edges import Authority
from tests.bed.nginx import UPGRADE, nginx
from tests.bed.processes import Bed, Process, free_port, program, wait_for_port
from tests.bed.sshd import PRIVILEGE_SEPARATION, Sshd

READY_LIMIT = 15.0
NEEDED = ("ssh", "sftp", "ssh-keygen", "sshd")
CLIENT_CONFIG = ("Ciphers aes128-gcm@openssh.com", "Compression no", "ControlMaster no", "ControlPath none")


class BenchError(Exception):
    """Something of the bench, or of a peer, did not do what a measurement needs. The text is one line."""


def group_lives(group: int) -> bool:
    """Whether any process of the group still runs. Orphans that only wait to be reaped don't count."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it has just ended
        if int(its_group) == group and state not in "ZX":
            return True
    return False


def end_group(process: subprocess.Popen[bytes], patience: float = 0.0) -> None:
    """End a process that leads its own group, and all of the group.

    It may end by itself for ``patience`` seconds (a ProxyCommand outlives its ssh for a moment); then comes SIGTERM,
    and SIGKILL after 3 s.
    """
    for number, seconds in ((0, patience), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        limit = time.monotonic() + seconds
        while group_lives(process.pid):
            if number:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                number = 0
            if time.monotonic() >= limit:
                break
            time.sleep(0.01)
    process.poll()


def remove(folder: Path) -> None:
    """Remove an empty folder, if there is one."""
    with suppress(OSError):
        folder.rmdir()


def environment(home: Path) -> dict[str, str]:
    """This process's environment without what would change clients: proxies, agents, Python's options, our own."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("WSTUNNEL_PY", "SSH_", "PYTHON"))
    }
    env["XDG_CONFIG_HOME"] = str(home)  # the user's config file must not decide what is measured
    return env


class Lab:
    """All processes and files of one run. A context manager; leaving it ends and removes everything.

    ``tls``: an nginx with TLS stands in front of every bridge. ``tunnels``: how many idle ones a bridge is to hold.
    """

    def __init__(self, *, tls: bool = False, tunnels: int = 100) -> None:
        self.tls = tls
        self.tunnels = tunnels
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        try:
            self._prepare()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _prepare(self) -> None:
        try:
            for name in (*NEEDED, *("nginx",) * self.tls):
                program(name)
        except AssertionError as error:
            raise BenchError(str(error)) from error
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self.env = environment(self.directory)
        try:
            programs = install(self.directory / "installed")
        except (OSError, subprocess.SubprocessError) as error:
            why = error.args[0][0][2] if isinstance(error, shutil.Error) else error  # its text names every file
            raise BenchError(f"cannot install this checkout in {self.directory} (set TMPDIR): {why}") from error
        self.python = str(programs / "python3")
        self.env["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        if os.geteuid() == 0 and not PRIVILEGE_SEPARATION.exists():
            self._stack.callback(remove, PRIVILEGE_SEPARATION)
        self.bed = self._stack.enter_context(Bed(self.directory, self.env))
        self._raw_endpoints: dict[str, Endpoint] = {}
        self.bridges: dict[str, Process] = {}
        self.bridge_ports: dict[str, int] = {}  # without the TLS edge; the target's own where there is no bridge
        self.target_port = free_port()
        target = [sys.executable, str(Path(__file__).with_name("target.py")), str(self.target_port)]
        self.start("the raw target", target, self.target_port)
        try:
            self.sshd = Sshd(self.bed, self.directory / "sshd")
        except AssertionError as error:
            raise BenchError(f"sshd: {last_line(str(error))}") from error
        if self.tls:
            self.authority = Authority(self.directory / "authority")
            self.env["SSL_CERT_FILE"] = str(self.authority.ca_file)  # every client checks the certificate

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, what: str, argv: list[str], port: int) -> Process:
        """Start a program that is to listen on ``port``, and return once it does.

        It ends with the laboratory, or before by `Process.end`. Raises BenchError, with the program's last line, if it
        ends or does not listen within 15 s.
        """
        try:
            process = self.bed.start(*argv)
        except OSError as error:
            raise BenchError(f"{what}: cannot start {Path(argv[0]).name}: {error.strerror}") from error
        try:
            wait_for_port(port, process, READY_LIMIT)
        except AssertionError as error:
            said = last_line(process.log())
            raise BenchError(f"{what}: not listening after {READY_LIMIT:g} s, or ended at once: {said}") from error
        return process

    def open(self, peer: Peer) -> None:
        """Start what ``peer`` needs between a client and its two targets, and tell ssh about it."""
        ssh_endpoint = self._endpoint(peer, "ssh", self.sshd.port)
        self._raw_endpoints[peer.name] = self._endpoint(peer, "raw", self.target_port)
        proxy_command = peer.client(ssh_endpoint) if peer.client else ()
        self.sshd.write_client_config(self._config(peer), proxy_command, *CLIENT_CONFIG)

    def _endpoint(self, peer: Peer, kind: str, target: int) -> Endpoint:
        if peer.bridge is None:
            if kind == "raw":
                self.bridge_ports[peer.name] = target
            return Endpoint("tcp", target, target)
        port = free_port()
        command = peer.bridge(port, target)
        if kind == "ssh" and peer.embedded:
            keys = [str(self.sshd.folder / name) for name in ("host", "authorized_keys")]
            command += ["--target", "embedded", "--host-key", keys[0], "--authorized-keys", keys[1]]
        process = self.start(f"the {peer.name} bridge ({kind})", command, port)
        if kind == "raw":
            self.bridges[peer.name] = process
            self.bridge_ports[peer.name] = port
        return Endpoint("wss", self.edge(port)[1], target) if self.tls else Endpoint("ws", port, target)

    def raw_endpoint(self, peer: Peer) -> Endpoint:
        return self._raw_endpoints[peer.name]

    def ssh(self, peer: Peer, command: str) -> list[str]:
        """Return the ssh command line that runs ``command`` on the other side of ``peer``."""
        return ["ssh", "-F", str(self._config(peer)), "-T", peer.name, command]

    def sftp(self, peer: Peer, commands: str) -> list[str]:
        """Return the sftp command line that runs ``commands`` with the other side of ``peer``."""
        batch = self.directory / "batch"
        batch.write_text(commands)
        return ["sftp", "-q", "-F", str(self._config(peer)), "-b", str(batch), peer.name]

    def server_context(self) -> ssl.SSLContext:
        """Return what a TLS listener of the bench's own needs; the laboratory was made with ``tls``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.authority.certificate)
        return context

    def edge(self, upstream: int) -> tuple[Process, int]:
        """Start an nginx with TLS in front of the bridge on port ``upstream``; return it and its port."""
        port = free_port()
        folder = self.directory / f"nginx-{port}"
        folder.mkdir()
        certificate = self.authority.certificate
        command = nginx(
            folder,
            f"""
            ssl_certificate "{certificate}";
            ssl_certificate_key "{certificate}";
            server {{
              listen 127.0.0.1:{port} ssl;
              location / {{
                proxy_pass http://127.0.0.1:{upstream};
                proxy_buffering off;
                proxy_read_timeout 1h;
                {UPGRADE}
              }}
            }}
            """,
            descriptors=8192,
        )
        return self.start("nginx", [*command], port), port

    def _config(self, peer: Peer) -> Path:
        return self.directory / f"ssh_config.{peer.name}"


def last_line(text: str) -> str:
    """A program's last line that says something, without the interpreter's path, cut to 200 characters."""
    lines = text.replace(sys.executable, "python").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "no output")
