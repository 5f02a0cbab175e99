"""authorized_keys of the embedded SSH server: a line admits a key with all its restrictions, or it admits nobody."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import asyncssh

from tunnel.errors import UsageError
from tunnel.ssh.server.keys import load_authorized_keys

TOKENS = (
    b"restrict", b"command=", b'command="true"', b'environment="A=b"', b'permitopen="h:1"', b'principals="p"',
    b"no-pty", b'from="10.0.0.0/8"', b"no-port-forwarding", b"cert-authority", b'expiry-time="20200101"',
    b"verify-required", b"pty", b'permitlisten="1"', b'tunnel="0"', b"touch-required", b",", b'\\"', b'"', b" ",
    b"\t", b"ssh-ed25519 ", b"#", b"\r", b'subject="x"', b"COMMAND=", b"\xe2\x80\xa8", b"\x85", b"\x1c", b"\n",
    b"\xa0", b"KEY",
)  # fmt: skip
# Options whose loss would lift nothing: all others must be enforced, or the line must admit nobody.
ENFORCED = frozenset((
    "agent-forwarding", "cert-authority", "command", "environment", "no-agent-forwarding", "no-port-forwarding",
    "no-pty", "no-touch-required", "no-user-rc", "no-x11-forwarding", "permitopen", "port-forwarding", "principals",
    "pty", "restrict", "user-rc", "x11-forwarding",
))  # fmt: skip
VALUED = ("command", "environment", "permitopen", "principals")
_folder = tempfile.TemporaryDirectory(prefix="fuzz-")
_file = Path(_folder.name) / "authorized_keys"
_file.touch(mode=0o600)


@functools.cache
def key() -> tuple[asyncssh.SSHKey, bytes]:
    made = asyncssh.generate_private_key("ssh-ed25519")
    return made.convert_to_public(), made.export_public_key().strip()


def target(data: bytes) -> None:
    """The first word KEY of each line stands for a key, that comes and asks to be let in."""
    asking, public = key()
    _file.write_bytes(data.replace(b"KEY", public))
    told: list[str] = []
    try:
        keys, count = load_authorized_keys(str(_file), told.append)
    except UsageError as exc:
        assert exc.exit_code == 2 and str(exc).isprintable()
        return
    assert count > 0
    check(keys, asking, _file.read_bytes())


def check(keys: asyncssh.SSHAuthorizedKeys, asking: asyncssh.SSHKey, text: bytes) -> None:
    for authority in (False, True):
        options = keys.validate(asking, "client.test", "192.0.2.1", None, authority)
        if options is None:
            continue
        lines = text.decode("utf-8", "surrogateescape").splitlines()
        demands = [demand for line in lines if (demand := demanded(line.strip())) is not None]
        assert any(grants(options, demand) for demand in demands), f"{options} is what no line says: {demands}"


def demanded(line: str) -> dict[str, list[str]] | None:
    """Return the options of a line as sshd(8) would split it, or None for a line that may admit nobody."""
    if not line or line.startswith("#"):
        return None
    if line.startswith("ssh-"):
        return {}
    options: dict[str, list[str]] = {}
    word, value, quoted, at = "", None, False, 0
    while at < len(line):
        char = line[at]
        if quoted and line.startswith('\\"', at):
            value, at = f'{value or ""}"', at + 2
            continue
        if char == '"':
            quoted = not quoted
            value = value or ""
        elif quoted:
            value = f"{value or ''}{char}"
        elif char in ", \t":
            options.setdefault(word.rstrip("=").lower(), []).append(value or "")
            word, value = "", None
            if char != ",":
                return options if ENFORCED.issuperset(options) and is_key(line[at:]) else None
        else:
            word += char
        at += 1
    return None


def is_key(text: str) -> bool:
    return text.strip().startswith(("ssh-", "ecdsa-", "sk-"))


def grants(options: object, demand: dict[str, list[str]]) -> bool:
    """Whether asyncssh's ``options`` keep all that the line demands."""
    assert isinstance(options, dict)
    for name, values in demand.items():
        if name == "restrict":
            if any(f"no-{word}" not in options for word in ("pty", "port-forwarding") if word not in demand):
                return False
        elif name in VALUED:
            if name not in options or (name == "command" and options[name] != values[-1]):
                return False
        elif name.startswith("no-") and name not in options:
            return False
    return True
