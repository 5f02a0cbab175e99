"""One order of layers for every command, also for credentials: option, host entry, environment, config, default."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tunnel.client.options import DOCTOR_OPTIONS, FORWARD_OPTIONS, OPTIONS, PTY_OPTIONS, SHELL_OPTIONS, Option
from tunnel.client.options import parse_command_line as parse
from tunnel.client.settings import resolve
from tunnel.errors import UsageError
from tunnel.pty.shell.settings import resolve as resolve_terminal
from tunnel.ssh.config import CONFIG_SSH_OPTIONS, generate

Run = Callable[[list[str], Mapping[str, str]], Any]


def tunnel_of(options: tuple[Option, ...]) -> Run:
    return lambda words, environ: resolve("box", parse(words, options)[0], environ)


def terminal_of(options: tuple[Option, ...]) -> Run:
    return lambda words, environ: resolve_terminal("box", parse(words, options)[0], options=options, environ=environ)


COMMANDS: dict[str, Run] = {
    "connect": tunnel_of(OPTIONS),
    "forward": tunnel_of(FORWARD_OPTIONS),
    "doctor": tunnel_of(DOCTOR_OPTIONS),
    "shell": terminal_of(SHELL_OPTIONS),
    "pty ps": terminal_of(PTY_OPTIONS),
}
TUNNELS, TERMINALS = ("connect", "forward", "doctor"), ("shell", "pty ps")


def header(name: str) -> Callable[[Any], object]:
    """Return what reads a header of what a command resolved to."""

    def read(settings: Any) -> object:
        place = getattr(settings, "place", settings)
        return dict(place.headers).get(name)

    return read


def url(settings: Any) -> object:
    return str(getattr(settings, "place", None) or settings.address)


def plain(name: str) -> Callable[[Any], object]:
    """Read a setting where it is kept: with the settings, or with those for HTTP."""

    def read(settings: Any) -> object:
        return getattr(getattr(settings, "http_options", settings), name, None) or getattr(settings, name, None)

    return read


# Option, the commands that have it, two or more values as they are written, and what reads it.
TEMPLATES = [f"{{}}://{each}.test/{{host}}" for each in ("option", "entry", "environment", "config")]
SETTINGS: list[tuple[str, tuple[str, ...], list[str], Callable[[Any], object]]] = [
    ("url", TUNNELS, [each.replace("{}", "ws", 1) for each in TEMPLATES], url),
    ("pty-url", TERMINALS, [each.replace("{}", "http", 1) for each in TEMPLATES], url),
    ("connect-timeout", (*TUNNELS, *TERMINALS), ["1.0", "2.0", "3.0", "4.0"], plain("connect_timeout")),
    ("proxy", (*TUNNELS, *TERMINALS), [f"http://p{n}" for n in range(4)], plain("proxy")),
    ("ca-file", (*TUNNELS, *TERMINALS), [f"/ca{n}" for n in range(4)], plain("ca_file")),
    ("client-cert", (*TUNNELS, *TERMINALS), [f"/cert{n}" for n in range(4)], plain("client_cert")),
    ("reconnect-for", TUNNELS, ["1.0", "2.0", "3.0", "4.0"], plain("reconnect_for")),
    ("wait", ("connect",), ["1.0", "2.0", "3.0", "4.0"], plain("wait")),
    ("pty-reconnect-for", ("shell",), ["1.0", "2.0", "3.0", "4.0"], plain("reconnect_for")),
    ("token-file", TUNNELS, [f"token{n}" for n in range(4)], header("Authorization")),
    ("pty-token-file", TERMINALS, [f"token{n}" for n in range(4)], header("X-Access-Token")),
    ("header", (*TUNNELS, *TERMINALS), [f"X-Key: {n}" for n in range(4)], header("X-Key")),
]
FLAGS = {option.name: option for option in (*OPTIONS, *SHELL_OPTIONS)}


def toml(name: str, value: str) -> str:
    if name == "header":
        key, _, text = value.partition(": ")
        return f'headers = {{ {key} = "{text}" }}\n'
    return f"{name} = {value}\n" if re.fullmatch(r"[\d.]+", value) else f'{name} = "{value}"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user, where the config file and tokens are."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "wstunnel-py").mkdir()
    for number in range(4):
        token = tmp_path / f"token{number}"
        token.touch(mode=0o600)
        token.write_text(f"secret{number}")
    return tmp_path


CASES = [(command, name, values, read) for name, commands, values, read in SETTINGS for command in commands]


@pytest.mark.parametrize(("command", "name", "values", "read"), CASES, ids=[f"{each[0]}-{each[1]}" for each in CASES])
def test_every_command_takes_the_nearest_layer(
    folder: Path, command: str, name: str, values: list[str], read: Callable[[Any], object]
) -> None:
    if name.endswith("token-file"):
        values = [str(folder / value) for value in values]
    option, entry, environment, config = values
    words = [f"--{FLAGS[name].flag}", option]
    environ = {FLAGS[name].variable: environment}
    file = folder / "wstunnel-py" / "config.toml"
    found = []
    for nearest in range(5):  # each layer alone with those below it
        file.write_text(
            (toml(name, config) if nearest <= 3 else "") + (f"[hosts.box]\n{toml(name, entry)}" if nearest <= 1 else "")
        )
        file.chmod(0o600)
        found.append(read(COMMANDS[command](words if nearest == 0 else [], environ if nearest <= 2 else {})))
    expected = [read(COMMANDS[command]([f"--{FLAGS[name].flag}", value], {})) for value in values]
    assert found[:4] == expected
    assert len(set(map(str, found))) == 5  # the default is none of them


@pytest.mark.parametrize("layer", range(5))
def test_config_ssh_counts_by_the_same_layers(folder: Path, layer: int) -> None:
    values = (1200, 2400, 3600, 4800)
    text = f"reconnect-for = {values[3]}\n" if layer <= 3 else ""
    text += "[hosts.box]\nurl = 'ws://h.test/{host}'\n" + (f"reconnect-for = {values[1]}\n" if layer <= 1 else "")
    (folder / "wstunnel-py" / "config.toml").write_text(text)
    given = parse(["--reconnect-for", str(values[0])] if layer == 0 else [], CONFIG_SSH_OPTIONS)[0]
    environ = {"WSTUNNEL_PY_RECONNECT_FOR": str(values[2])} if layer <= 2 else {}
    written = generate(["box"], given, "wstunnel-py", environ).text
    assert f"ServerAliveCountMax {(*values, 600)[layer] // 60}\n" in written


SECRETS = {"WSTUNNEL_PY_TOKEN": "t", "WSTUNNEL_PY_PTY_TOKEN": "t", "WSTUNNEL_PY_HEADER": "X-Key: k"}


@pytest.mark.parametrize("command", [*COMMANDS])
@pytest.mark.parametrize("layer", ["operand", "option", "host entry"])
def test_no_command_sends_what_is_for_all_hosts_to_a_literal_url(folder: Path, command: str, layer: str) -> None:
    terminal = command in TERMINALS
    literal = "https://evil.test" if terminal else "wss://evil.test"
    file = folder / "wstunnel-py" / "config.toml"
    key = "pty-url" if terminal else "url"
    file.write_text("headers = { X-All = 'a' }\nclient-cert = '/cert'\n")
    if layer == "host entry":
        file.write_text(f"{file.read_text()}[hosts.box]\n{key} = '{literal}'\nheaders = {{ X-Own = 'o' }}\n")
    file.chmod(0o600)
    options = {"shell": SHELL_OPTIONS, "pty ps": PTY_OPTIONS, "forward": FORWARD_OPTIONS, "doctor": DOCTOR_OPTIONS}
    given = parse(["--url", literal] if layer == "option" else [], options.get(command, OPTIONS))[0]
    host = literal if layer == "operand" else "box"
    settings: Any
    if terminal:
        settings = resolve_terminal(host, given, options=options[command], environ=SECRETS)
    else:
        settings = resolve(host, given, SECRETS)
    own = {"X-Own": "o"} if layer == "host entry" else {}
    assert dict(getattr(settings, "place", settings).headers) == own
    assert plain("client_cert")(settings) is None
    (note,) = settings.notes
    where = "the environment or the config file's top level"
    assert note == f"not sent to a literal URL: header, client-cert, token from {where}"


def test_a_value_from_a_pattern_is_named_after_it_even_with_a_literal_url(folder: Path) -> None:
    file = folder / "wstunnel-py" / "config.toml"
    file.write_text("[hosts.'*.Box']\nca-file = '/nowhere'\n")
    assert resolve("a.box", {"url": "wss://h.test/"}, {}).origins["ca_file"] == f"{file}: hosts.*.Box: ca-file"


def test_an_error_names_the_setting_as_its_author_wrote_it(folder: Path) -> None:
    file = folder / "wstunnel-py" / "config.toml"
    missing = f"cannot use {folder / 'none'}: No such file or directory"
    file.write_text(f"token-file = '{folder / 'none'}'\n[hosts.Own]\ntoken-file = '{folder / 'none'}'\n")
    lines = []
    for host, given, environ in (
        ("box", {"token-file": str(folder / "none")}, {}),
        ("own", {}, {}),
        ("box", {}, {"WSTUNNEL_PY_TOKEN_FILE": str(folder / "none")}),
        ("box", {}, {}),
    ):
        with pytest.raises(UsageError) as caught:
            resolve(host, given, environ)  # type: ignore[arg-type]  # a dict of texts is one of values
        assert (caught.value.code, caught.value.setting, caught.value.exit_code) == ("file", "token_file", 2)
        lines.append(str(caught.value))
    assert lines == [
        f"token_file: {missing}",
        f"{file}: hosts.Own: token-file: {missing}",
        f"WSTUNNEL_PY_TOKEN_FILE: {missing}",
        f"{file}: token-file: {missing}",
    ]
