"""Host names: IDNA without confusion of names, and zones that never leave the machine."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from tunnel.errors import UsageError
from tunnel.net.address import client_of, parse_address
from tunnel.net.listening import open_listening
from tunnel.net.names import is_zone, split_zone, to_ascii, zone_of
from tunnel.pki.names import server_names
from tunnel.pty.protocol.framing import ConnectError
from tunnel.pty.server.authentication import Guard
from tunnel.server.access import Origins, Tokens


@pytest.mark.parametrize(
    ("name", "ascii_name"),
    [
        ("faß.de", "xn--fa-hia.de"),
        ("FAẞ.de", "xn--fa-hia.de"),
        ("βόλος.example", "xn--nxasmm1c.example"),
        ("Müller.example.", "xn--mller-kva.example."),
        ("8081-box_1.bücher。example", "8081-box_1.xn--bcher-kva.example"),
        ("\uff45xample.com", "example.com"),
        ("plain_Name.example", "plain_Name.example"),
    ],
)
def test_names_are_written_by_idna_2008(name: str, ascii_name: str) -> None:
    assert to_ascii(name) == ascii_name


@pytest.mark.parametrize("zone", ["!", "~", "eth0", "X"])
def test_a_zone_may_have_any_visible_ascii_that_does_not_end_it(zone: str) -> None:
    assert is_zone(zone)
    for bad in ("", zone + " ", zone + "\x7f", zone + "/", zone + "%", zone + "[", zone + "]", zone + "é"):
        assert not is_zone(bad)


@pytest.mark.parametrize("place", [("::1", 1), ("::1", 1, 0, 0), ("::1", 1, 0, "x"), ("::1", 1, 0)])
def test_an_address_without_a_scope_has_no_zone(place: tuple[object, ...]) -> None:
    assert zone_of(place) == ""


def test_a_zone_is_the_interfaces_name_or_its_number_when_it_is_gone() -> None:
    index, name = socket.if_nameindex()[0]
    assert zone_of(("fe80::1", 1, 0, index)) == f"%{name}"
    assert zone_of(("fe80::1", 1, 0, 99_999)) == "%99999"


@pytest.mark.parametrize("name", ["faß.de", "FAẞ.de", "βόλος.example", "a\u200db.example", "ȺB.de"])
def test_without_the_package_what_would_become_another_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "idna", None)
    with pytest.raises(ValueError, match="need the package idna: install that, or write its ASCII form"):
        to_ascii(name)


@pytest.mark.parametrize("name", ["Müller.example", "bücher.example.", "例え.example"])
def test_without_the_package_all_other_names_are_the_same(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with_package = to_ascii(name)
    monkeypatch.setitem(sys.modules, "idna", None)
    assert to_ascii(name) == with_package


@pytest.mark.parametrize("package", [True, False])
@pytest.mark.parametrize("name", ["ü" * 64 + ".example", "xü\u2028.example"])
def test_an_invalid_name_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, package: bool) -> None:
    if not package:
        monkeypatch.setitem(sys.modules, "idna", None)
    with pytest.raises(ValueError, match="the host cannot be written in IDNA"):
        to_ascii(name)


def test_addresses_and_certificates_have_the_same_names() -> None:
    assert str(parse_address("faß.de:22", "target")) == "xn--fa-hia.de:22"
    assert server_names(["faß.de", "*.faß.de"])[0].value == "xn--fa-hia.de"
    with pytest.raises(UsageError, match="cannot be written in IDNA"):
        parse_address("\u0378:22", "target")


def test_who_may_call_and_what_the_service_is_called_have_the_same_names() -> None:
    origins = Origins(["https://Faß.example", "http://bücher.example:81"])
    origins.admit("https://xn--fa-hia.example")
    origins.admit("http://xn--bcher-kva.example:81")
    guard = Guard(Tokens([]), ["faß.example", "*.Bücher.example."], same_origin=False)
    for name in ("xn--fa-hia.example", "a.xn--bcher-kva.example:81", "a.xn--bcher-kva.example."):
        guard.check_source("/", CIMultiDictProxy(CIMultiDict({"Host": name})))
    with pytest.raises(ConnectError):
        guard.check_source("/", CIMultiDictProxy(CIMultiDict({"Host": "fass.example"})))
    with pytest.raises(UsageError, match=r"allow_origin: .* cannot be written in IDNA"):
        Origins(["https://ä-.example"])
    with pytest.raises(UsageError, match=r"pty_host: .* cannot be written in IDNA"):
        Guard(Tokens([]), ["*.ä-.example"], same_origin=False)


@pytest.mark.parametrize(
    ("written", "address", "zone"),
    [
        ("fe80::1", "fe80::1", ""),
        ("fe80::1%eth0", "fe80::1", "eth0"),
        ("fe80::1%25eth0", "fe80::1", "eth0"),
        ("fe80::1%br-12ab", "fe80::1", "br-12ab"),
        ("fe80::1%25br-12ab", "fe80::1", "br-12ab"),
        ("fe80::1%25eth0.100", "fe80::1", "eth0.100"),
        ("fe80::1%25my%2Dzone", "fe80::1", "my-zone"),
        ("fe80::1%2", "fe80::1", "2"),
        ("fe80::1%25", "fe80::1", "25"),
        ("fe80::1%2525", "fe80::1", "25"),
    ],
)
def test_a_zone_is_taken_apart(written: str, address: str, zone: str) -> None:
    assert split_zone(written) == (address, zone)
    assert is_zone(zone) == bool(zone)


@pytest.mark.parametrize("zone", ["%", "a%b", "a/b", "a]b", "a b", "ä"])
def test_a_malformed_zone_is_refused(zone: str) -> None:
    assert not is_zone(zone)
    with pytest.raises(UsageError, match=r"network interface|HOST:PORT|IPv6 address"):
        parse_address(f"[fe80::1%{zone}]:22", "listen")


def link_local() -> tuple[str, str]:
    """A link-local address of this machine, and its interface."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        lines = []
    for digits, _, _, scope, _, interface in map(str.split, lines):
        if scope == "20":
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)), interface
    pytest.skip("no interface has a link-local address")


@pytest.mark.parametrize("percent", ["%", "%25"])
def test_a_link_local_address_is_listened_at_on_its_link(percent: str) -> None:
    address, interface = link_local()
    (listening,) = open_listening([(f"[{address}{percent}{interface}]:0", "listen")], unix_mode=0o600)
    try:
        port = listening.sock.getsockname()[1]
        assert str(listening.address) == f"[{address}%{interface}]:{port}"
        with socket.create_connection((f"{address}%{interface}", port), 10):
            listening.sock.setblocking(True)
            connection, sockaddr = listening.sock.accept()
            connection.close()
        assert client_of(sockaddr).source == "fe80::/64"
    finally:
        listening.close()
