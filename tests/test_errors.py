"""The library's errors: each has a stable code and exit code, and names no option of the command line."""

from __future__ import annotations

import ast
import asyncio
import re
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tunnel
from tests.bed.earlier import ROOT
from tests.bed.processes import Bed
from tests.bed.sources import constants_in
from tunnel import errors
from tunnel.cli.hints import ADVICE, HINTS, told
from tunnel.cli.main import option_of
from tunnel.client.options import BY_NAME
from tunnel.errors import CODES, DialError, RemoteProtocolError, UsageError, spell_settings, spelled
from tunnel.websocat.options import SUPPORTED
from tunnel.websocat.options import option_of as of_websocat

PACKAGE = ROOT / "tunnel"
# Where names of options may stand: the command line, the composition root, the tables that options are made from, what
# emulates a program that has nothing but a command line, and other programs' options.
MAY = (
    "cli/",
    "run.py",
    "websocat/",
    "client/options.py",
    "client/words.py",
    "server/settings.py",
    "children/",
    "__main__.py",
)
# Of these the texts for people only: a table of options, and the words of a command that are written into a file, or
# are read from one, or from a command line.
TABLES = {"ssh/config.py", "ssh/config_file.py", "ssh/editors.py", "ssh/ports.py", "ssh/programs.py", "ssh/written.py"}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield the string literals of a module, but for its docstrings."""
    for node in constants_in(ast.parse(source)):
        if isinstance(node.value, str | bytes):
            yield node.lineno, node.value if isinstance(node.value, str) else node.value.decode("latin-1")


def test_no_text_of_the_library_names_an_option() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(MAY) or name in TABLES:
            continue
        found += [f"{name}:{line}: {text!r}" for line, text in texts(path.read_text()) if OPTION.search(text)]
    assert found == []


@pytest.mark.parametrize("code", [*CODES])
def test_every_code_has_a_text_and_an_exit_code(code: str) -> None:
    exit_code, text = CODES[code]
    assert exit_code in (2, 69, 70, 74, 75, 76, 77)
    assert not OPTION.search(text)
    # A field of the name `code` would be the error's own.
    fields = {name for _, name, _, _ in string.Formatter().parse(text) if name}
    assert all(name.rstrip("!r").isidentifier() for name in fields)


def test_hints_and_advice_are_for_codes_that_exist() -> None:
    assert set(HINTS) <= set(CODES)
    assert set(ADVICE) - set(CODES) == {"expires", "insecure", "plain", "no-banner", "buffers"}


def test_a_program_reads_the_names_of_python_and_a_user_those_of_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_secrets", {})  # of other tests
    error = UsageError("it is wrong", setting="ca_file")
    assert str(error) == "ca_file: it is wrong" and error.problem == "it is wrong"
    try:
        spell_settings(option_of)
        assert str(error) == "--ca-file: it is wrong" and spelled("tcp-l:1") == "tcp-l:1"
        error.name_origin({"ca_file": "WSTUNNEL_PY_CA_FILE", "proxy": "x"})
        assert str(error) == "WSTUNNEL_PY_CA_FILE: it is wrong"
    finally:
        spell_settings()


def test_a_hint_stands_behind_the_text_on_the_command_line_only() -> None:
    error = DialError("tls-client-cert", host="h", reason="it requires a client certificate")
    assert str(error) == "h refused this client: it requires a client certificate"
    try:
        spell_settings(option_of)
        assert told(error) == f"{error}; see --client-cert"
        spell_settings(of_websocat)  # whose command line has no such option
        assert told(error) == f"{error}; see client-cert in the config file"
        assert told(RemoteProtocolError("late", code="late-session")) == "late; --protocol binary avoids this"
    finally:
        spell_settings()


@pytest.mark.parametrize("setting", [*BY_NAME])
def test_websocat_s_users_read_of_options_that_there_are(setting: str) -> None:
    shown = of_websocat(BY_NAME[setting].setting)
    if shown.startswith("--"):
        assert shown.split()[0][2:] in {option.name for option in SUPPORTED}
    else:
        assert shown == f"{setting} in the config file"


def test_a_caller_in_python_reads_no_option(tmp_path: Path) -> None:
    none = tmp_path / "none"
    for options, line in (
        ({"ca_file": none}, f"ca_file: cannot use {none}: No such file or directory"),
        ({"client_key": none}, "client_key needs client_cert"),
        ({"token_file": none}, f"token_file: cannot use {none}: No such file or directory"),
        ({"proxy": "ftp://p"}, "proxy: a proxy's URL must begin with http://, socks5:// or socks5h://"),
        ({"ipv4": True, "ipv6": True}, "ipv4 and ipv6 cannot be used together"),
        ({"port": 0}, "port: 0 is not a port number from 1 to 65535"),
    ):
        with pytest.raises(tunnel.UsageError) as caught:
            tunnel.open_socket("wss://127.0.0.1:1/", **options)
        assert str(caught.value) == line
        assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"listen": ("nowhere",)}, "listen: 'nowhere' is not HOST:PORT or unix:PATH"),
        ({"path": "x"}, "path: 'x' is not a path that begins with /"),
        ({"tls_key": "k"}, "tls_key and tls_client_ca need tls_cert"),
        ({"tls_cert": "/none"}, "tls_cert: cannot use /none: No such file or directory"),
        ({"token_file": ("/none",)}, "token_file: cannot use /none: No such file or directory"),
        ({"target": "nowhere"}, "target: 'nowhere' is not HOST:PORT or unix:PATH"),
        (
            {"host_key": "k"},
            "host_key and authorized_keys apply only to target embedded",
        ),
        ({"trusted_proxy": ("x",)}, "trusted_proxy: 'x' does not appear to be an IPv4 or IPv6 network: give a network"),
        ({"unix_mode": "9"}, "unix_mode: '9' is not a mode such as 0600"),
        ({"max_tunnels": 0}, "max_tunnels: 0 is not between 1 and 1000000"),
    ],
)
def test_a_program_that_serves_reads_no_option(options: dict[str, Any], line: str) -> None:
    async def serve() -> None:
        async with tunnel.serve(**options):
            pass

    with pytest.raises(tunnel.UsageError) as caught:
        asyncio.run(serve())
    assert str(caught.value).startswith(line)


WHERE = 'see "Optional packages" in docs/install.md'


@pytest.mark.parametrize("package", ["asyncssh", "aiohttp", "httpx", "uvloop", "cryptography", "click"])
def test_a_missing_package_is_one_line_that_says_where_the_page_has_it(bed: Bed, tmp_path: Path, package: str) -> None:
    words = {
        "asyncssh": ["keys", "host", str(tmp_path / "key")],
        "aiohttp": ["serve", "--listen", "none", "--pty", "127.0.0.1:0"],
        "httpx": ["shell", "http://127.0.0.1:1"],
        "uvloop": ["serve", "--listen", "127.0.0.1:0", "--uvloop"],
        "cryptography": ["certs", "ca", str(tmp_path / "pki")],
        "click": ["serve", "--help"],
    }[package]
    setting = {"aiohttp": "--pty: ", "uvloop": "--uvloop: "}.get(package, "")
    hide = "import sys; sys.modules[sys.argv.pop(1)] = None; from tunnel.cli.main import main; sys.exit(main())"
    done = bed.run(sys.executable, "-c", hide, package, *words, seconds=20)
    assert done.stderr == f"wstunnel-py: {setting}{package} is not installed: {WHERE}\n"
    assert done.status == (255 if words[0] == "shell" else 2)


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("httpx", "tunnel.Sandbox"),
        ("httpx", "tunnel.AsyncSandbox"),
        ("asyncssh", "tunnel.ssh.connect"),
        ("paramiko", "tunnel.ssh.paramiko_client"),
        ("asyncssh", "import asyncio; asyncio.run(enter(tunnel.serve(target='embedded', listen=('127.0.0.1:0',))))"),
    ],
)
def test_a_package_that_is_missing_from_a_program_is_a_usage_error(package: str, use: str) -> None:
    program = f"""
import sys
sys.modules[{package!r}] = None
import tunnel
async def enter(bridge):
    async with bridge:
        pass
try:
    {use}
except tunnel.UsageError as exc:
    print(exc.code, exc)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    setting = "target: " if "serve" in use else ""
    assert done.stdout == f"missing-package {setting}{package} is not installed: {WHERE}\n", done.stderr
