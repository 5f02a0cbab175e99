"""The bench's own laboratory: a temporary directory, an sshd with throw-away keys, the raw target, bridges, a TLS edge.

Everything listens on free loopback ports, runs in process groups of its own, writes to files (a full pipe would stop
it), and is gone when the laboratory closes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from benchlib.peers import ROOT, Door, Peer

READY_LIMIT = 15.0
SSH_HOST_KEY_ALIAS = "bench"


class BenchError(Exception):
    """Something of the bench, or of a peer, did not do what a measurement needs. The text is one line."""


def free_port() -> int:
    """A loopback TCP port that nobody listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


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
    """Ends a process that leads its own group, and all of the group.

    It may end by itself for `patience` seconds (a ProxyCommand outlives its ssh for a moment); then comes SIGTERM, and
    SIGKILL after 3 s.
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


def environment(home: Path) -> dict[str, str]:
    """This process's environment without what would lead clients astray: proxies, agents, Python's options, ours."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("WSTUNNEL_PY", "SSH_", "PYTHON"))
    }
    path = os.environ.get("PYTHONPATH")
    env["PYTHONPATH"] = f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)
    env["PYTHONPYCACHEPREFIX"] = str(home / "bytecode")  # compiled once, in the warm-up, and removed with the rest
    env["XDG_CONFIG_HOME"] = str(home)  # the user's config file must not decide what is measured
    return env


class Lab:
    """All processes and files of one run. A context manager; leaving it ends and removes everything."""

    def __init__(self, *, tls: bool = False) -> None:
        self.tls = tls
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self.env = environment(self.directory)
        self._started = 0
        self._ssh_doors: dict[str, Door] = {}
        self._raw_doors: dict[str, Door] = {}
        self.bridges: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self.target_port = free_port()
            target = [sys.executable, str(Path(__file__).with_name("target.py")), str(self.target_port)]
            self.start("the raw target", target, self.target_port)
            self.sshd_port = self._start_sshd()
            if self.tls:
                self._make_certificate()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, what: str, argv: list[str], port: int, stack: ExitStack | None = None) -> subprocess.Popen[bytes]:
        """Starts a program that is to listen on `port`, and returns once it does.

        The process ends with `stack` (default: with the laboratory). Raises BenchError, with the program's last line
        on stderr, if it ends or does not listen within 15 s.
        """
        self._started += 1
        log = self.directory / f"{self._started}.log"
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=self.env,
                    start_new_session=True,
                )
            except OSError as error:
                raise BenchError(f"{what}: cannot start {Path(argv[0]).name}: {error.strerror}") from error
        (stack or self._stack).callback(end_group, process)
        limit = time.monotonic() + READY_LIMIT
        while process.poll() is None and time.monotonic() < limit:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process
            except OSError:
                time.sleep(0.02)
        said = last_line(log.read_bytes())
        raise BenchError(f"{what}: not listening after {READY_LIMIT:g} s, or ended at once: {said}")

    def open(self, peer: Peer) -> None:
        """Starts what `peer` needs between a client and its two targets, and tells ssh about it."""
        for kind, target, doors in (
            ("ssh", self.sshd_port, self._ssh_doors),
            ("raw", self.target_port, self._raw_doors),
        ):
            if peer.bridge is None:
                doors[peer.name] = Door("tcp", target)
                continue
            port = free_port()
            name = f"the {peer.name} bridge ({kind})"
            command = peer.bridge(port, target)
            if kind == "ssh" and peer.embedded:
                keys = [str(self.directory / name) for name in ("host_key", "authorized_keys")]
                command += ["--target", "embedded", "--host-key", keys[0], "--authorized-keys", keys[1]]
            process = self.start(name, command, port)
            if kind == "raw":
                self.bridges[peer.name] = process
            doors[peer.name] = self._edge(port) if self.tls else Door("ws", port)
        with (self.directory / "ssh_config").open("a") as config:
            print(f"Host {peer.name}", file=config)
            if peer.client is not None:
                proxy_command = shlex.join(peer.client(self._ssh_doors[peer.name])).replace("%", "%%")
                print(f"  ProxyCommand {proxy_command}", file=config)

    def raw_door(self, peer: Peer) -> Door:
        return self._raw_doors[peer.name]

    def ssh(self, peer: Peer, command: str) -> list[str]:
        """The ssh command line that runs `command` on the other side of `peer`."""
        return ["ssh", "-F", str(self.directory / "ssh_config_all"), "-T", peer.name, command]

    def sftp(self, peer: Peer, commands: str) -> list[str]:
        """The sftp command line that runs `commands` with the other side of `peer`."""
        batch = self.directory / "batch"
        batch.write_text(commands)
        return ["sftp", "-q", "-F", str(self.directory / "ssh_config_all"), "-b", str(batch), peer.name]

    def _start_sshd(self) -> int:
        sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin")
        if sshd is None:
            raise BenchError("sshd: no such program (Debian: apt-get install openssh-server)")
        if os.geteuid() == 0 and not Path("/run/sshd").exists():  # compiled in; usually made by the service
            Path("/run/sshd").mkdir(mode=0o755)
            self._stack.callback(os.rmdir, "/run/sshd")
        port = free_port()
        for key in ("host_key", "user_key"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", str(self.directory / key)]
            run(keygen, "ssh-keygen", self.env)
        shutil.copy(self.directory / "user_key.pub", self.directory / "authorized_keys")
        (self.directory / "sshd_config").write_text(
            f"""ListenAddress 127.0.0.1:{port}
HostKey "{self.directory}/host_key"
AuthorizedKeysFile "{self.directory}/authorized_keys"
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
MaxStartups 200:30:400
Subsystem sftp internal-sftp
"""
        )
        host_key = (self.directory / "host_key.pub").read_text()
        (self.directory / "known_hosts").write_text(f"{SSH_HOST_KEY_ALIAS} {host_key}")
        (self.directory / "ssh_config_all").write_text(
            f"""Include "{self.directory}/ssh_config"
Host *
  HostName 127.0.0.1
  Port {port}
  HostKeyAlias {SSH_HOST_KEY_ALIAS}
  UserKnownHostsFile "{self.directory}/known_hosts"
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  UpdateHostKeys no
  IdentityFile "{self.directory}/user_key"
  IdentitiesOnly yes
  IdentityAgent none
  BatchMode yes
  Ciphers aes128-gcm@openssh.com
  Compression no
  ControlMaster no
  ControlPath none
  LogLevel ERROR
"""
        )
        (self.directory / "ssh_config").touch()
        self.start("sshd", [sshd, "-D", "-e", "-f", str(self.directory / "sshd_config")], port)
        return port

    def _make_certificate(self) -> None:
        subject = ["-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        files = ["-keyout", str(self.directory / "edge.key"), "-out", str(self.directory / "edge.crt")]
        run(["openssl", "req", "-x509", *curve, *subject, *files], "openssl", self.env)
        self.env["SSL_CERT_FILE"] = str(self.directory / "edge.crt")  # every client checks the certificate

    def _edge(self, upstream: int) -> Door:
        """An nginx of its own, with TLS, in front of the bridge on port `upstream`."""
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if nginx is None:
            raise BenchError("nginx: no such program; run without --tls (Debian: apt-get install nginx-light)")
        port, here = free_port(), self.directory
        temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "\n".join(f'  {name}_temp_path "{here}/{port}-{name}";' for name in temporary)
        config = here / f"nginx-{port}.conf"
        config.write_text(
            f"""{"user root;" if os.geteuid() == 0 else ""}
daemon off; worker_processes 1; error_log stderr error; pid "{here}/nginx-{port}.pid";
events {{ worker_connections 512; }}
http {{
  access_log off;
{paths}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate "{here}/edge.crt";
    ssl_certificate_key "{here}/edge.key";
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_set_header Host $http_host;
      proxy_read_timeout 1h;
    }}
  }}
}}
"""
        )
        self.start("nginx", [nginx, "-e", "stderr", "-p", str(here), "-c", str(config)], port)
        return Door("wss", port)


def last_line(text: bytes) -> str:
    """A program's last line that says something, without the interpreter's path, cut to 200 characters."""
    lines = text.decode(errors="replace").replace(sys.executable, "python").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "it said nothing")


def run(argv: list[str], what: str, env: dict[str, str], limit: float = 60.0) -> None:
    """Runs a program that sets something up. Raises BenchError with its last line on stderr when it fails."""
    try:
        subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=env, timeout=limit, check=True)
    except OSError as error:
        raise BenchError(f"{what}: cannot start it: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{what}: exit status {error.returncode}: {last_line(error.stderr)}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{what}: no end after {limit:g} s") from error
