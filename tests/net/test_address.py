"""Addresses as they are written on the command line, and as clients are shown."""

from __future__ import annotations

import pytest

from tunnel.errors import UsageError
from tunnel.net.address import Client, TCPAddress, UnixAddress, client_of, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:22", TCPAddress("127.0.0.1", 22)),
        ("sandbox.test:8081", TCPAddress("sandbox.test", 8081)),
        ("[::1]:22", TCPAddress("::1", 22)),
        (":8081", TCPAddress("", 8081)),
        ("*:0", TCPAddress("*", 0)),
        ("unix:/run/a b.sock", UnixAddress("/run/a b.sock")),
        ("unix:relative:1", UnixAddress("relative:1")),
    ],
)
def test_addresses_are_a_host_and_a_port_or_a_path(text: str, address: TCPAddress | UnixAddress) -> None:
    assert parse_address(text, "listen") == address


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("8081", "'8081' is not HOST:PORT or unix:PATH"),
        ("host:", "'host:' is not HOST:PORT or unix:PATH"),
        ("host:65536", "'host:65536' is not HOST:PORT or unix:PATH"),
        ("host:-1", "'host:-1' is not HOST:PORT or unix:PATH"),
        ("host:٣", "'host:٣' is not HOST:PORT or unix:PATH"),
        ("::1:22", "'::1:22' is malformed: write an IPv6 address in brackets, as in [::1]:22"),
        ("[fe80::x]:22", "'[fe80::x]:22' is malformed: 'fe80::x' is not an IPv6 address"),
        ("ws://host:22", "'ws://host:22' is malformed: write an IPv6 address in brackets, as in [::1]:22"),
        ("a b:22", "'a b:22' is not HOST:PORT or unix:PATH"),
        ("unix:", "'unix:' names no path"),
        ("", "'' is not HOST:PORT or unix:PATH"),
    ],
)
def test_anything_else_is_a_usage_error_that_shows_it(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as failure:
        parse_address(text, "listen")
    assert str(failure.value) == f"listen: {problem}"
    assert failure.value.exit_code == 2


@pytest.mark.parametrize(
    ("sockaddr", "client"),
    [
        (("192.0.2.7", 5000), Client("192.0.2.7:5000", "192.0.2.7")),
        (("::ffff:192.0.2.7", 5000, 0, 0), Client("192.0.2.7:5000", "192.0.2.7")),
        (("2001:db8:1:2:3::4", 5000, 0, 0), Client("[2001:db8:1:2:3::4]:5000", "2001:db8:1:2::/64")),
        (("fe80::1%eth0", 5000, 0, 2), Client("[fe80::1%eth0]:5000", "fe80::/64")),
        ("", Client("unix", None)),
    ],
)
def test_a_client_counts_by_its_address_and_in_ipv6_by_its_network(sockaddr: object, client: Client) -> None:
    assert client_of(sockaddr) == client
