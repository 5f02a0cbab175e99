"""Settings of the provider: the same layers for every command, and which names are sandboxes of E2B."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.client.test_layers import COMMANDS, FLAGS, TERMINALS, folder, toml
from tunnel.client.options import parse_command_line
from tunnel.client.sandbox import ProvidedSandbox
from tunnel.client.settings import resolve
from tunnel.errors import UsageError
from tunnel.pty.client.access import locate_sandbox
from tunnel.ssh.config import generate

__all__ = ["folder"]  # a fixture
KEY = {"E2B_API_KEY": "e2b_key"}
SETTINGS = {
    "api-domain": [f"d{n}.test" for n in range(4)],
    "api-url": [f"https://api{n}.test" for n in range(4)],
    "api-key-file": [f"token{n}" for n in range(4)],
    "sandbox-timeout": ["10", "20", "30", "40"],
    "keep-alive": ["open", "never", "open", "never"],
    "wake": ["always", "never", "always", "never"],
}
READS: dict[str, Callable[[Any], object]] = {
    "api-domain": lambda sandbox: sandbox.domain,
    "api-url": lambda sandbox: sandbox.api.name,
    "api-key-file": lambda sandbox: sandbox.api.key,
    "sandbox-timeout": lambda sandbox: sandbox.timeout,
    "keep-alive": lambda sandbox: sandbox.keep_alive,
    "wake": lambda sandbox: sandbox.wake,
}


def sandbox_of(command: str, words: list[str], environ: Mapping[str, str]) -> Any:
    settings = COMMANDS[command](words, environ)
    return settings.access.sandbox if command in TERMINALS else settings.sandbox


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", SETTINGS)
def test_every_command_takes_the_nearest_layer(folder: Path, command: str, name: str) -> None:
    read, values = READS[name], SETTINGS[name]
    near: list[str] = []
    if name == "api-key-file":
        values = [str(folder / value) for value in values]
    else:
        near = ["--api-key-file", str(folder / "token0")]  # that of the environment is not for any API
    option, entry, environment, config = values
    environ = {FLAGS[name].variable: environment}
    file = folder / "wstunnel-py" / "config.toml"
    found = []
    for nearest in range(4):
        file.write_text(toml(name, config) + (f"[hosts.box]\n{toml(name, entry)}" if nearest <= 1 else ""))
        file.chmod(0o600)
        words = [*near, *((f"--{FLAGS[name].flag}", option) if nearest == 0 else ())]
        found.append(read(sandbox_of(command, words, environ if nearest <= 2 else {})))
    file.unlink()
    expected = [read(sandbox_of(command, [*near, f"--{FLAGS[name].flag}", value], {})) for value in values]
    assert found == expected
    alias = FLAGS[name].alias
    if alias:
        assert read(sandbox_of(command, near, {alias: environment})) == expected[2]
        assert read(sandbox_of(command, near, {alias: environment, FLAGS[name].variable: config})) == expected[3]


def sandbox(host: str, *words: str, **environ: str) -> ProvidedSandbox | None:
    return resolve(host, parse_command_line(words)[0], {**KEY, **environ}).sandbox


def test_a_name_without_a_url_of_ones_own_is_a_sandbox_if_there_is_a_key(folder: Path) -> None:
    own = "wss://{host}.example.com"
    for host in ("abc", "abc.e2b", "ABC.E2B"):
        found = sandbox(host)
        assert found is not None and (found.id.lower(), found.domain) == ("abc", "e2b.app")
    assert resolve("abc", {}, {}).sandbox is None
    assert sandbox("abc", "--url", own) is sandbox("abc", WSTUNNEL_PY_URL=own) is None
    assert sandbox("abc.e2b", WSTUNNEL_PY_URL=own) is not None
    assert sandbox("abc", "--provider", "e2b", WSTUNNEL_PY_URL=own) is not None
    assert sandbox("abc", "--provider", "none") is sandbox("abc.e2b", WSTUNNEL_PY_PROVIDER="none") is None
    assert sandbox("wss://abc.example.com") is sandbox("abc", "--url", "wss://box") is None
    assert sandbox("wss://abc.example.com", WSTUNNEL_PY_PROVIDER="e2b") is None
    assert sandbox("abc.e2b", "--url", own) is None
    file = folder / "wstunnel-py" / "config.toml"
    file.write_text(f'[hosts."*.team.e2b"]\nurl = "{own}"\n')
    assert sandbox("abc.team.e2b") is None and sandbox("abc.e2b") is not None
    file.write_text(f'[hosts."*.e2b"]\nprovider = "none"\n[hosts.box]\nurl = "{own}"\n[hosts."*.own"]\nurl = "{own}"\n')
    assert sandbox("abc.e2b") is sandbox("box") is sandbox("abc.own") is None
    assert sandbox("abc") is not None


def test_the_url_is_made_of_the_domain(folder: Path) -> None:
    environ = {**KEY, "E2B_DOMAIN": "cloud.test:8443"}
    assert str(resolve("abc", {}, environ).address) == "wss://8081-abc.cloud.test:8443"
    found = resolve("abc", {}, environ).sandbox
    assert found is not None and found.api.name == "https://api.cloud.test:8443"


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"E2B_DOMAIN": "a/b"}, "E2B_DOMAIN: 'a/b' is not a domain"),
        ({"E2B_DOMAIN": "a.test:99999"}, "E2B_DOMAIN: 'a.test:99999' is not a domain such as e2b.app"),
        ({"E2B_DOMAIN": "a..b", "E2B_API_URL": "https://x"}, "E2B_DOMAIN: 'a..b' is not a domain such as e2b.app"),
        ({"E2B_DOMAIN": "https://e2b.app"}, "E2B_DOMAIN: 'https://e2b.app' is not a domain such as e2b.app"),
        ({"E2B_API_URL": "https://u:p@x"}, "E2B_API_URL: the URL of an API must not hold a user name or password"),
        ({"E2B_API_URL": "https://x?key"}, "E2B_API_URL: the URL of an API cannot have a query, a fragment or spaces"),
        ({"E2B_API_KEY": "two words"}, "E2B_API_KEY: it must hold one key: a line of printable ASCII without spaces"),
        ({"WSTUNNEL_PY_KEEP_ALIVE": "x"}, "WSTUNNEL_PY_KEEP_ALIVE: 'x' is not one of active, open, never"),
        ({"WSTUNNEL_PY_SANDBOX_TIMEOUT": "0"}, "'0' is not a whole number of seconds from 1 to 86400"),
        ({"E2B_API_KEY_FILE": "/nowhere", "E2B_API_KEY": ""}, "E2B_API_KEY_FILE: cannot use /nowhere: "),
    ],
)
def test_an_unusable_value_is_reported_under_the_name_of_its_setting(environ: dict[str, str], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        sandbox("abc", **environ)
    assert line in str(caught.value) and "words" not in str(caught.value).replace("two words", "")


def test_a_program_is_told_the_variable_that_it_has_set() -> None:
    environ = {**KEY, "E2B_API_URL": "ftp://x"}
    with pytest.raises(UsageError) as caught:
        locate_sandbox("abc", token=None, headers=None, provider=None, ca_file=None, proxy=None, environ=environ)
    assert str(caught.value) == "E2B_API_URL: the URL of an API must begin with https:// or http://"


def test_a_key_in_clear_text_causes_a_warning() -> None:
    def warnings(url: str) -> list[str]:
        return resolve("abc", {}, {**KEY, "E2B_API_URL": url}).warnings

    assert warnings("http://localhost:3000") == warnings("http://127.0.0.1:3000") == warnings("https://api.test") == []
    (line,) = warnings("http://api.test")
    assert line == "the API key from E2B_API_KEY is sent unencrypted: http://api.test"


def test_ssh_sends_nothing_by_itself_to_sandboxes(folder: Path) -> None:
    file = folder / "wstunnel-py" / "config.toml"
    file.write_text(
        '[hosts.box]\nurl = "wss://box.test"\n[hosts."*.own"]\nurl = "wss://{host}.test"\nprovider = "e2b"\n'
        '[hosts."*.not"]\nprovider = "none"\n'
    )
    text = generate([], {}, "wstunnel-py", {}).text
    found = {block.split()[0]: "ServerAliveInterval 0" in block for block in text.split("Host ")[1:]}
    assert found == {"box": False, "*.own": True, "*.not": False, "*.e2b": True}
