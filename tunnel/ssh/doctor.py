"""Diagnosis: checks and times each hop of a tunnel, and finds the first that fails.

    url → sandbox → dns → tcp → proxy → tls → upgrade → resume → ssh → throughput (on request)

The sandbox is a hop if its provider is asked. The hops up to the upgrade are the steps and errors of
`tunnel.client.dial`, the same code that dials for ssh's ProxyCommand.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from tunnel.client.settings import Settings
from tunnel.client.sockets import relayed_socket
from tunnel.client.trace import Trace
from tunnel.client.tunnel import Tunnel
from tunnel.errors import TRY_LATER, UNREACHABLE, TunnelError, UsageError, printable, spelled
from tunnel.pki.expiry import current_time, ends_soon, expiry
from tunnel.protocol.control import SUBPROTOCOL
from tunnel.ssh.buffering import held_back
from tunnel.ssh.speed_test import Progress, measure

BANNER_LIMIT = 10.0  # seconds for the SSH server's banner; sshd looks up its client's name first
KEYS_LIMIT = 3.0  # seconds for its answer to our banner
_OUR_BANNER = b"SSH-2.0-wstunnel-py_doctor\r\n"
_BANNER_SIZE = 255  # bytes, RFC 4253 section 4.2

_EXCERPT = 80  # characters of other data that are shown
_LONGEST_WORD = 24  # characters of a word in them; keys and tokens have more
_SECRET_MARKS = ("id=", "key=", "token=", "password=", "secret=")
_HIDDEN = "[…]"

# Code of an error → the hop where it happened. Other errors happened after the last hop that was reached.
_HOPS = {
    "dns": "dns",
    "tcp": "tcp",
    "tcp-refused": "tcp",
    "tcp-timeout": "tcp",
    "proxy-unreachable": "proxy",
    "proxy-target": "proxy",
    "proxy-auth": "proxy",
    "proxy-refused": "proxy",
    "proxy-protocol": "proxy",
    "tls": "tls",
    "tls-untrusted": "tls",
    "tls-wrong-name": "tls",
    "tls-expired": "tls",
    "tls-client-cert": "tls",
    "tls-handshake": "tls",
    "tls-refused": "tls",
    "usage": "url",
    "config": "url",
    "file": "url",
    "url": "url",
    "host": "url",
    "sandbox-unknown": "sandbox",
    "sandbox-paused": "sandbox",
    "sandbox-busy": "sandbox",
    "api-key": "sandbox",
    "api-quota": "sandbox",
    "api-usage": "sandbox",
}
# Where a setting belongs that cannot be used.
_SETTINGS = {"ca_file": "tls", "client_cert": "tls", "client_key": "tls", "proxy": "proxy"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found at ``hop``, after ``seconds``.

    ``code`` identifies it for programs and for the advice. Failures have the code of an error (then ``error`` is set),
    ``no-banner`` (no SSH server) or ``buffers`` (an edge buffers). If it is ``ok`` with a remark, the code is
    ``expires`` (a certificate expires soon), ``insecure`` (it was not checked), ``plain`` (the bridge has no sessions),
    ``no-resume`` (none was requested) or ``api-failed`` (the sandbox's provider could not be asked).
    """

    hop: str
    ok: bool
    seconds: float
    text: str
    code: str = ""
    exit_code: int = 0
    error: TunnelError | None = None


class _Steps(Trace):
    """Collects the steps of a dial, with the seconds of each, instead of showing them."""

    def __init__(self) -> None:
        super().__init__()
        self.findings: list[Finding] = []
        self._last = time.monotonic()

    def step(self, hop: str, text: str, *, expires: str = "", code: str = "") -> None:
        if expires:
            end, now = datetime.fromtimestamp(ssl.cert_time_to_seconds(expires), UTC), current_time()
            text += f", its certificate {expiry(end, now)}"
            code = "expires" if ends_soon(end, now) else ""
        self.findings.append(Finding(hop, True, self.lap(), printable(text), code))

    def lap(self) -> float:
        """Return the seconds since the last step, and begin the next."""
        now = time.monotonic()
        passed, self._last = now - self._last, now
        return passed


def examine(make_settings: Callable[[], Settings]) -> Iterator[Finding]:
    """Open a tunnel with the settings of ``make_settings``; yield a finding for each hop, up to the first failure."""
    steps = _Steps()
    try:
        settings = make_settings()
        steps.step("url", str(settings.address))
        tunnel = Tunnel(settings, steps, make_settings, notice=lambda _: None)
        connection = tunnel.dial()
    except TunnelError as exc:
        yield from steps.findings
        yield _failure(exc, steps)
        return
    yield from steps.findings
    steps.lap()
    failures: list[TunnelError | None] = []
    try:
        ours, _ = relayed_socket(tunnel, connection, ended=failures.append)
    except TunnelError as exc:
        yield Finding("ssh", False, steps.lap(), f"cannot be tested: {exc}", "", TRY_LATER)
        return
    with ours:
        banner, is_silent = _banner(ours)
        is_ssh = banner.startswith("SSH-")
        seconds = steps.lap()
        # An edge may buffer our messages, although it does not buffer the server's.
        is_silent = is_silent or (is_ssh and _ignores(ours))
    # Checked only now, as an edge may hide it.
    hidden = "" if connection.subprotocol == SUBPROTOCOL else ", although an edge hides the subprotocol"
    if tunnel.is_resumable:
        yield Finding("resume", True, 0.0, f"the session survives lost connections{hidden}")
    elif settings.resume:
        yield Finding("resume", True, 0.0, "not offered by this bridge: a plain tunnel", "plain")
    else:
        yield Finding("resume", True, 0.0, f"not requested ({spelled('no_resume')})", "no-resume")
    held = held_back(settings) if is_silent else None
    if held:
        text = f"an edge buffers: it holds messages back until about {held >> 10} KiB are there"
        yield Finding("ssh", False, seconds + steps.lap(), text, "buffers", UNREACHABLE)
        return
    if is_ssh:
        version, space, comment = banner.partition(" ")
        yield Finding("ssh", True, seconds, version + space + excerpt(comment))
        return
    said = f"it sent {excerpt(banner)!r}" if banner else "nothing was received"
    reason = next((str(failure) for failure in failures if failure), said)
    yield Finding("ssh", False, seconds, f"no SSH server answers: {reason}", "no-banner", UNREACHABLE)


def examine_throughput(make_settings: Callable[[], Settings], progress: Progress) -> Finding:
    """Measure the speed of a tunnel, if `examine` found no failure; ``progress`` is called during the measurement."""
    began = time.monotonic()
    try:
        speed = measure(make_settings, progress)
    except TunnelError as exc:
        return Finding("throughput", False, time.monotonic() - began, str(exc), exc.code, exc.exit_code, exc)
    text = (
        f"{speed.down / 1e6:.1f} MB/s down, {speed.up / 1e6:.1f} MB/s up, round trip {speed.round_trip * 1000:.1f} ms "
        f"(the tunnel alone, without SSH)"
    )
    return Finding("throughput", True, time.monotonic() - began, text)


def _banner(sock: socket.socket) -> tuple[str, bool]:
    """Return the first line received in time, and whether nothing was received, not even the end."""
    data, is_over = b"", False
    end = time.monotonic() + BANNER_LIMIT
    try:
        while b"\n" not in data and len(data) < _BANNER_SIZE and (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            chunk = sock.recv(_BANNER_SIZE)
            if not chunk:
                is_over = True
                break
            data += chunk
    except TimeoutError:
        pass
    except OSError:
        is_over = True  # a reset: nothing more will be received
    return printable(data.split(b"\n")[0].decode("ascii", "replace")), not data and not is_over


def _ignores(sock: socket.socket) -> bool:
    """Return whether an SSH server sends nothing after our banner; it should begin the key exchange (RFC 4253)."""
    try:
        sock.settimeout(KEYS_LIMIT)
        sock.sendall(_OUR_BANNER)
        sock.recv(_BANNER_SIZE)
    except TimeoutError:
        return True
    except OSError:
        pass  # it has closed the connection, so it has received the banner
    return False


def excerpt(text: str) -> str:
    """Return the beginning of data that is not an SSH banner, without words that may be secrets."""
    words = [_HIDDEN if _is_secret_like(word) else word for word in text.split()]
    line = " ".join(words)
    return line if len(line) <= _EXCERPT else line[: _EXCERPT - 1] + "…"


def _is_secret_like(word: str) -> bool:
    return len(word) > _LONGEST_WORD or any(mark in word.lower() for mark in _SECRET_MARKS)


def _failure(error: TunnelError, steps: _Steps) -> Finding:
    last = steps.findings[-1].hop if steps.findings else "url"
    hop = _HOPS.get(error.code)
    if isinstance(error, UsageError) and error.setting in _SETTINGS:
        hop = _SETTINGS[error.setting]
    if hop is None and str(error.fields.get("hop", "")).startswith("proxy "):
        hop = "proxy"
    if hop is None:
        # The dial fails at the hop after the last reported step; a TLS handshake is named in the text.
        silent_tls = error.code in ("answer-timeout", "hung-up") and "TLS" in str(error.fields.get("hop", ""))
        behind = {
            "url": "dns",
            "sandbox": "dns",
            "dns": "tcp",
            "tcp": "tls" if silent_tls else "upgrade",
            "proxy": "upgrade",
        }
        hop = "tls" if silent_tls else behind.get(last, "upgrade")
    return Finding(hop, False, steps.lap(), str(error), error.code, error.exit_code, error)
