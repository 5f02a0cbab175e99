"""Addresses as they are written on the command line, and as clients are shown."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tunnel.errors import UsageError
from tunnel.net.address import (
    Address,
    Client,
    TCPAddress,
    UnixAddress,
    address_of,
    client_of,
    is_loopback,
    parse_address,
)


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
        ("unix:~root/socket", UnixAddress("/root/socket")),
        ("host:65535", TCPAddress("host", 65535)),
        ("X:0", TCPAddress("X", 0)),
        ("[fe80::1%25eth0]:22", TCPAddress("fe80::1%eth0", 22)),
        ("[fe80::1%eth0]:22", TCPAddress("fe80::1%eth0", 22)),
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
        ("ws://host:22", "'ws://host:22' is a URL: write HOST:PORT, without ws://"),
        ("ws://host/?to=wss://x", "'ws://host/?to=wss://x' is a URL: write HOST:PORT, without ws://"),
        ("a b:22", "'a b:22' is not HOST:PORT or unix:PATH"),
        ("unix:", "'unix:' has no path"),
        ("unix:a\0b", "'unix:a\\x00b' has no path"),
        ("[a:22", "'[a:22' is not HOST:PORT or unix:PATH"),
        ("a]:22", "'a]:22' is not HOST:PORT or unix:PATH"),
        ("a/b:22", "'a/b:22' is not HOST:PORT or unix:PATH"),
        ("me@host:22", "'me@host:22' is not HOST:PORT or unix:PATH"),
        ("[fe80::1%a b]:22", "'[fe80::1%a b]:22' is malformed: 'a b' cannot name a network interface"),
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


def test_a_host_that_is_no_name_says_why() -> None:
    with pytest.raises(UsageError, match=r"^listen: '\u00fc{64}:22' is malformed: the host cannot be written in IDNA"):
        parse_address("\u00fc" * 64 + ":22", "listen")


def test_a_home_that_is_not_known_is_the_settings_fault() -> None:
    with pytest.raises(UsageError) as caught:
        parse_address("unix:~no-such-user/socket", "listen")
    assert caught.value.setting == "listen"


def test_an_address_is_written_as_it_is_read() -> None:
    for text in ("127.0.0.1:22", "[::1]:22", "unix:/run/socket", "[fe80::1%eth0]:22"):
        assert str(parse_address(text, "listen")) == text


@pytest.mark.parametrize(
    ("address", "is_local"),
    [
        (UnixAddress("/x"), True),
        (TCPAddress("127.0.0.1", 1), True),
        (TCPAddress("127.9.9.9", 1), True),
        (TCPAddress("::1", 1), True),
        (TCPAddress("0.0.0.0", 1), False),
        (TCPAddress("192.0.2.1", 1), False),
        (TCPAddress("fe80::1%eth0", 1), False),
        (TCPAddress("::1%lo", 1), True),
    ],
)
def test_loopback_and_unix_sockets_are_reached_from_here_only(address: Address, is_local: bool) -> None:
    assert is_loopback(address) is is_local


def test_where_a_socket_is_bound_is_an_address(short_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert address_of(listener) == TCPAddress("127.0.0.1", listener.getsockname()[1])
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(short_folder / "socket"))
        assert address_of(unix) == UnixAddress(str(short_folder / "socket"))
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(b"\0name\xff")
        assert address_of(abstract) == UnixAddress("\x00name\\xff")
