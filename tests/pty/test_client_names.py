"""Services with unusual names: the names in TLS and in Host are the same as for the ProxyCommand."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

import tunnel
from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.bed.tunnels import OURS
from tests.client.conftest import over_tls, read_head
from tunnel.pty.client.endpoint import Endpoint


def test_a_final_dot_is_no_part_of_the_name_in_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    asked: list[str] = []

    def getaddrinfo(
        host: Any, *words: Any, **options: Any
    ) -> Any:  # not every resolver knows localhost with a final dot
        asked.append(host.decode() if isinstance(host, bytes) else host)
        return resolve("127.0.0.1", *words, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    seen: list[str | None] = []
    context.sni_callback = lambda tls, name, _: seen.append(name)
    ca_file = str(tmp_path / "ca.pem")

    async def ask(url: str) -> None:
        async with tunnel.AsyncSandbox(url, ca_file=ca_file) as sandbox:
            await sandbox.pty.list()

    with Target(over_tls(context, read_head)) as target:
        url = f"https://localhost.:{target.port}"
        with tunnel.Sandbox(url, ca_file=ca_file) as sandbox, pytest.raises(tunnel.ConnectionLost):
            sandbox.pty.list()
        assert f"Host: localhost.:{target.port}".encode() in target.result()  # type: ignore[operator]
    with Target(over_tls(context, read_head)) as target, pytest.raises(tunnel.ConnectionLost):
        asyncio.run(ask(f"https://localhost.:{target.port}"))
    assert set(seen) == {"localhost"}
    assert set(asked) == {"localhost."}


def test_the_zone_of_an_address_is_dialled_but_not_sent(bed: Bed) -> None:
    process = bed.start(*OURS, "serve", "--listen", "none", "--pty", "[::1]:0")
    port = process.wait_for_line(r"http://\[::1\]:(\d+)")[1]
    with tunnel.Sandbox(f"http://[::1%251]:{port}") as sandbox:
        assert sandbox.pty.list() == []


@pytest.mark.parametrize(
    ("url", "host_field", "name"),
    [
        ("https://[fe80::1%25br-12ab]/x", "[fe80::1]", "fe80::1"),
        ("http://[fe80::1%eth0]:49983", "[fe80::1]:49983", "fe80::1"),
        ("https://faß.test.", "xn--fa-hia.test.", "xn--fa-hia.test"),
    ],
)
def test_what_is_sent_to_others_of_a_host_name(url: str, host_field: str, name: str) -> None:
    address = Endpoint(url).address
    assert (address.host_field, address.certificate_name) == (host_field, name)
