"""X-Forwarded-For: only trusted proxies are believed, up to the first address that is not one of them."""

from __future__ import annotations

import pytest

from tunnel.errors import UsageError
from tunnel.net.address import Client, client_of
from tunnel.net.forwarded import TrustedProxies

PROXY, STRANGER = client_of(("10.0.0.1", 5000)), client_of(("203.0.113.9", 5000))


def behind(peer: Client, *fields: str, trusted: tuple[str, ...] = ("10.0.0.0/8", "fd00::/8")) -> Client:
    return TrustedProxies(trusted).client(peer, fields)


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        (("192.0.2.1",), "192.0.2.1"),
        (("192.0.2.1:4711",), "192.0.2.1"),
        (("198.51.100.1, 192.0.2.1",), "192.0.2.1"),
        (("198.51.100.1", "192.0.2.1"), "192.0.2.1"),
        (("198.51.100.1, 192.0.2.1, 10.0.0.2",), "192.0.2.1"),
        (("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        (("2001:db8:1:2:3::4",), "2001:db8:1:2::/64"),
        (("[2001:db8:1:2:3::4]:4711",), "2001:db8:1:2::/64"),
        (("::ffff:192.0.2.1",), "192.0.2.1"),
        (("192.0.2.1, fd00::1",), "192.0.2.1"),
        (("192.0.2.1, unknown, 10.0.0.2",), "10.0.0.2"),
        (("unknown",), "10.0.0.1"),
        (("",), "10.0.0.1"),
        ((), "10.0.0.1"),
        ((", ,,",), "10.0.0.1"),
        (("192.0.2.1" * 1000,), "10.0.0.1"),
        (("192.0.2.1\x00",), "10.0.0.1"),
        (("fe80::1%eth0",), "10.0.0.1"),
        (("[fe80::1%" + "x" * 10_000 + "]:4711",), "10.0.0.1"),
    ],
)
def test_a_trusted_proxy_is_believed_up_to_the_first_address_that_is_none(fields: tuple[str, ...], source: str) -> None:
    assert behind(PROXY, *fields).source == source


@pytest.mark.parametrize(
    ("proxy", "fields", "source"),
    [
        (("fd00::1", 5000, 0, 0), ("192.0.2.1",), "192.0.2.1"),
        (("::ffff:10.0.0.1", 5000, 0, 0), ("192.0.2.1",), "192.0.2.1"),
        (("10.0.0.1", 5000), ("[2001:db8::1]:4711]",), "2001:db8::/64"),
        (("10.0.0.1", 5000), ("[fd00::2]:4711, [fd00::1]:4711",), "fd00::/64"),
        (("10.0.0.1", 5000), ("192.0.2.1:47:11",), "10.0.0.1"),
        (("10.0.0.1", 5000), ("2001:db8::1, ::ffff:10.0.0.9",), "2001:db8::/64"),
    ],
)
def test_proxies_and_clients_may_have_addresses_of_either_kind(
    proxy: tuple[object, ...], fields: tuple[str, ...], source: str
) -> None:
    assert behind(client_of(proxy), *fields).source == source


def test_a_stranger_is_not_believed() -> None:
    assert behind(STRANGER, "192.0.2.1") is STRANGER
    assert behind(PROXY, "192.0.2.1", trusted=()) is PROXY


def test_a_unix_socket_s_clients_are_believed_when_they_are_trusted() -> None:
    unix = client_of("")
    assert behind(unix, "192.0.2.1") is unix
    assert behind(unix, "192.0.2.1", trusted=("unix",)).source == "192.0.2.1"


def test_the_client_is_shown_with_its_address() -> None:
    assert behind(PROXY, "192.0.2.1").address == "192.0.2.1:0"
    assert behind(PROXY, "2001:db8::1").address == "[2001:db8::1]:0"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy.example.org", "", "10.0.0.0/33", "::/129"])
def test_an_invalid_network_is_reported(text: str) -> None:
    with pytest.raises(UsageError, match=r"trusted_proxy: .*: give a network such as 10\.0\.0\.0/8, or unix"):
        TrustedProxies([text])
