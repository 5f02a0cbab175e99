"""The public API: every name is there, listed, documented and typed; `tunnel.serve` has every option of a bridge."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import os
import re
import rlcompleter
import sys
from collections.abc import Iterable
from itertools import count, takewhile
from pathlib import Path
from types import ModuleType
from typing import assert_type, get_type_hints

import paramiko
import pytest

import tunnel
from tests.bed.processes import Bed
from tests.bed.targets import Target
from tunnel.client.options import (
    FLAG,
    HEADERS,
    LIFETIME,
    LIMIT,
    OPTIONS,
    PATH,
    PORT,
    PROXY,
    SECONDS,
    SIZE,
    TEXT,
)
from tunnel.server.settings import BridgeSettings

FIELDS = {field.name: field for field in dataclasses.fields(BridgeSettings)}
PROCESS_ONLY = {"drain"}  # what happens on SIGTERM; from Python it is the argument of `Bridge.drain`


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in tunnel.__all__:
        assert name in dir(tunnel)
        assert name == "__version__" or inspect.getdoc(getattr(tunnel, name)), name
    for name in tunnel.ssh.__all__:
        assert name in dir(tunnel.ssh)
        assert inspect.getdoc(getattr(tunnel.ssh, name)), name
    with pytest.raises(AttributeError, match="no attribute 'sever'"):
        tunnel.sever  # type: ignore[attr-defined]  # noqa: B018


def shown(bed: Bed, program: str) -> str:
    return bed.check(sys.executable, "-c", program).text


def test_help_lists_every_public_name(bed: Bed) -> None:
    text = shown(bed, "import tunnel; help(tunnel)")
    missing = [name for name in tunnel.__all__ if name != "ssh" and not re.search(rf"\b{name}\b", text)]
    assert not missing
    assert {"connect", "paramiko_client"} <= set(re.findall(r"\w+", shown(bed, "import tunnel; help(tunnel.ssh)")))


@pytest.mark.parametrize(("name", "module"), [("tunnel", tunnel), ("tunnel.ssh", tunnel.ssh)])
def test_tab_offers_what_is_public_and_nothing_else(name: str, module: ModuleType) -> None:
    assert hasattr(tunnel, "client")  # which is loaded, and yet not offered
    completer = rlcompleter.Completer({"tunnel": tunnel})
    offered = takewhile(bool, (completer.complete(f"{name}.", at) for at in count()))
    names = {str(word).removeprefix(f"{name}.").rstrip("()") for word in offered}
    assert names == {each for each in module.__all__ if not each.startswith("_")}


# The types of the values of `tunnel.TunnelOptions`, by the kind of the option in the client's table.
KINDS: dict[str, object] = {
    TEXT: str, PROXY: str, PATH: str | os.PathLike[str], PORT: int, SIZE: int, LIFETIME: int, FLAG: bool,
    SECONDS: float, LIMIT: float,
}  # fmt: skip


def test_the_options_of_a_tunnel_are_those_of_the_client() -> None:
    options = [each for each in OPTIONS if each.name not in ("stdio-threads", "wait") and each.kind != HEADERS]
    hints = get_type_hints(tunnel.TunnelOptions)
    assert hints == {option.setting: KINDS[option.kind] for option in options}
    told = set(re.findall(r"``(\w+)``", inspect.getdoc(tunnel.TunnelOptions) or ""))
    assert set(hints) <= told


def test_help_works_without_the_extra_for_terminals(bed: Bed) -> None:
    program = "import sys; sys.modules['httpx'] = None; import tunnel; help(tunnel); print(dir(tunnel))"
    text = shown(bed, program)
    assert "serve(" in text and "'serve'" in text and "'Sandbox'" not in text
    program = "import sys; sys.modules['httpx'] = None; import tunnel; tunnel.Sandbox"
    assert 'httpx is not installed: see "Optional packages"' in bed.run(sys.executable, "-c", program).stderr


def test_dir_imports_nothing_of_ours(bed: Bed) -> None:
    program = "import tunnel, sys; dir(tunnel); print(sorted(name for name in sys.modules if 'tunnel' in name))"
    assert shown(bed, program) == "['tunnel']\n"


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(tunnel.__file__).parent / "py.typed").exists()


def test_serve_takes_every_option_of_a_bridge_with_the_same_default() -> None:
    parameters = inspect.signature(tunnel.serve).parameters
    assert set(parameters) == set(FIELDS) - PROCESS_ONLY
    assert {name: each.default for name, each in parameters.items()} == {
        name: field.default for name, field in FIELDS.items() if name not in PROCESS_ONLY
    }
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in parameters.values())


def test_serve_documents_every_parameter() -> None:
    told = set(re.findall(r"``(\w+)``", inspect.getdoc(tunnel.serve) or ""))
    assert set(inspect.signature(tunnel.serve).parameters) <= told


# A value of each option other than its default, to find it again in the settings.
OTHER: dict[str, object] = {
    "listen": "127.0.0.1:0", "unix_mode": "0660", "target": "127.0.0.1:9", "authorized_keys": "keys",
    "host_key": "host", "no_agent_forwarding": True, "path": "/here", "tls_cert": "cert", "tls_key": "key",
    "tls_client_ca": "ca", "token_file": Path("tokens"), "allow_origin": ["https://example.org", "*"],
    "trusted_proxy": "unix", "max_tunnels": 2, "max_detached": 3, "resume_for": 4.0, "resume_memory": 5,
    "handshake_timeout": 6.0, "dial_timeout": 7.0, "ping_interval": 8.0, "ping_timeout": 9.0, "max_message": 65536,
}  # fmt: skip


def test_every_parameter_of_serve_reaches_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[BridgeSettings] = []
    monkeypatch.setattr("tunnel.run.choose_target", taken.append)
    monkeypatch.setattr("tunnel.run.Bridge", lambda settings, target: None)
    tunnel.serve(**OTHER)  # type: ignore[arg-type]
    for name in set(FIELDS) - PROCESS_ONLY:
        value = OTHER[name]
        if isinstance(FIELDS[name].default, tuple):
            several = [value] if isinstance(value, str | Path) or not isinstance(value, Iterable) else value
            value = tuple(map(str, several))
        assert getattr(taken[0], name) == value


def test_an_address_may_stand_alone(echo_target: Target) -> None:
    async def work() -> None:
        async with tunnel.serve(listen="127.0.0.1:0", target=f"127.0.0.1:{echo_target.port}") as bridge:
            assert_type(bridge, tunnel.Bridge)
            reader, writer = await tunnel.open_connection(bridge.urls[0])
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
        with pytest.raises(tunnel.DialError):
            await tunnel.open_connection("ws://127.0.0.1:9")

    asyncio.run(asyncio.wait_for(work(), 20))


def typed() -> None:
    """What the type checker sees of the API; nobody runs it."""
    assert_type(tunnel.open_socket("box"), tunnel.TunnelSocket)
    assert_type(tunnel.ssh.paramiko_client("box"), paramiko.SSHClient)
    terminal = tunnel.Sandbox("box").pty.create()
    assert_type(terminal, tunnel.Terminal)
    assert_type(terminal.wait(), tunnel.Result)
    tunnel.open_socket("box", ca_file=Path("ca.pem"), connect_timeout=5)
    tunnel.open_socket("box", no_such_option=1)  # type: ignore[call-arg]
    tunnel.ssh.paramiko_client("box", tunnel_options={"no_resume": True})
    tunnel.serve(no_such_option=1)  # type: ignore[call-arg]
    tunnel.serve(max_tunnels="many")  # type: ignore[arg-type]
