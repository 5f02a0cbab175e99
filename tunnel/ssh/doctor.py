"""Diagnosis: checks each hop on the way of a tunnel, times it, and names the first that fails.

    url → dns → tcp → proxy → tls → upgrade → resume → ssh → throughput (on request)

The hops up to the upgrade are those of `tunnel.client.dial`, whose own steps and errors are what is reported: the
same code dials for ssh's ProxyCommand.
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
from tunnel.errors import TRY_LATER, UNREACHABLE, TunnelError, printable, spelled
from tunnel.pki.expiry import current_time, ends_soon, expiry
from tunnel.protocol.control import SUBPROTOCOL
from tunnel.ssh.buffering import held_back
from tunnel.ssh.speed_test import Progress, measure

BANNER_LIMIT = 10.0  # seconds that an SSH server may take to speak; sshd looks up its client's name first
KEYS_LIMIT = 3.0  # seconds that it then may take to answer our own banner
_OUR_BANNER = b"SSH-2.0-wstunnel-py_doctor\r\n"
_BANNER_SIZE = 255  # bytes, RFC 4253 section 4.2

_EXCERPT = 80  # characters of what is no banner that are shown
_LONGEST_WORD = 24  # characters of a word in it; keys and tokens have more
_SECRET_MARKS = ("id=", "key=", "token=", "password=", "secret=")
_HIDDEN = "[…]"

# Where an error of each code happened. One that is not here happened behind the last hop that was reached.
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
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found at ``hop``, after ``seconds``.

    ``code`` tells programs, and who gives advice, what it is: the code of an error (``error`` is that one),
    ``no-banner`` (no SSH server) or ``buffers`` (something on the way); and of what is ``ok`` with a remark ``expires``
    (a certificate does so soon), ``insecure`` (it was not checked), ``plain`` (the bridge cannot resume sessions) or
    ``no-resume`` (it was not asked to).
    """

    hop: str
    ok: bool
    seconds: float
    text: str
    code: str = ""
    exit_code: int = 0
    error: TunnelError | None = None


class _Steps(Trace):
    """Keeps the steps of a dial, with the seconds that each took, instead of showing them."""

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
    """Open a tunnel to the bridge that ``make_settings`` names; yield what is found at each hop, a failure last."""
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
        yield Finding("ssh", False, steps.lap(), f"cannot be tried: {exc}", "", TRY_LATER)
        return
    with ours:
        banner, is_silent = _banner(ours)
        is_ssh = banner.startswith("SSH-")
        seconds = steps.lap()
        # What we say may be held up, too, though what the server says is not.
        is_silent = is_silent or (is_ssh and _ignores(ours))
    # Only now, as an edge may hide it.
    hidden = "" if connection.subprotocol == SUBPROTOCOL else ", though an edge hides that from its client"
    if tunnel.is_resumable:
        yield Finding("resume", True, 0.0, f"the session survives lost connections{hidden}")
    elif settings.resume:
        yield Finding("resume", True, 0.0, "not offered by this bridge: a plain tunnel", "plain")
    else:
        yield Finding("resume", True, 0.0, f"not asked for ({spelled('no_resume')})", "no-resume")
    held = held_back(settings) if is_silent else None
    if held:
        text = f"the edge buffers: something on the way holds messages back until some {held >> 10} KiB have come"
        yield Finding("ssh", False, seconds + steps.lap(), text, "buffers", UNREACHABLE)
        return
    if is_ssh:
        version, space, comment = banner.partition(" ")
        yield Finding("ssh", True, seconds, version + space + excerpt(comment))
        return
    said = f"it said {excerpt(banner)!r}" if banner else "nothing came"
    reason = next((str(failure) for failure in failures if failure), said)
    yield Finding("ssh", False, seconds, f"no SSH server answers: {reason}", "no-banner", UNREACHABLE)


def examine_throughput(make_settings: Callable[[], Settings], progress: Progress) -> Finding:
    """Return how fast a tunnel is, once `examine` has found no failure; ``progress`` is told while that is measured."""
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
    """Return the first line that comes, if it comes in time, and whether there was neither anything nor an end."""
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
        is_over = True  # a reset: what came until then is all there is
    return printable(data.split(b"\n")[0].decode("ascii", "replace")), not data and not is_over


def _ignores(sock: socket.socket) -> bool:
    """Return whether an SSH server says nothing more when we have said our banner: its keys are next (RFC 4253)."""
    try:
        sock.settimeout(KEYS_LIMIT)
        sock.sendall(_OUR_BANNER)
        sock.recv(_BANNER_SIZE)
    except TimeoutError:
        return True
    except OSError:
        pass  # it has hung up: that it does not wait for us is all that matters
    return False


def excerpt(text: str) -> str:
    """Return the beginning of what somebody said who is no SSH server, without words that may be secrets."""
    words = [_HIDDEN if _is_secret_like(word) else word for word in text.split()]
    line = " ".join(words)
    return line if len(line) <= _EXCERPT else line[: _EXCERPT - 1] + "…"


def _is_secret_like(word: str) -> bool:
    return len(word) > _LONGEST_WORD or any(mark in word.lower() for mark in _SECRET_MARKS)


def _failure(error: TunnelError, steps: _Steps) -> Finding:
    last = steps.findings[-1].hop if steps.findings else "url"
    hop = _HOPS.get(error.code)
    if hop is None and str(error.fields.get("hop", "")).startswith("proxy "):
        hop = "proxy"
    if hop is None:
        # The dial fails at the hop behind the last that it told of; a TLS handshake is named in the text.
        silent_tls = error.code in ("answer-timeout", "hung-up") and "TLS" in str(error.fields.get("hop", ""))
        behind = {"url": "dns", "dns": "tcp", "tcp": "tls" if silent_tls else "upgrade", "proxy": "upgrade"}
        hop = "tls" if silent_tls else behind.get(last, "upgrade")
    return Finding(hop, False, steps.lap(), str(error), error.code, error.exit_code, error)
