"""Listening sockets: where they are bound, whose a socket's file is, and what is left when one cannot be opened."""

from __future__ import annotations

import os
import select
import socket
import stat
from pathlib import Path

import pytest

from tunnel.errors import DialError, UsageError
from tunnel.net.address import TCPAddress, UnixAddress
from tunnel.net.listening import BACKLOG, ListeningSocket, open_listening


def listen(*texts: str, mode: int = 0o600) -> list[ListeningSocket]:
    return open_listening([(text, "listen") for text in texts], unix_mode=mode)


def failure(*texts: str) -> DialError:
    with pytest.raises(DialError) as caught:
        listen(*texts)
    assert caught.value.code == "listen"
    return caught.value


@pytest.mark.parametrize("has_poll", [True, False])
def test_a_port_of_an_address_is_listened_on_without_waiting(has_poll: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_poll:
        monkeypatch.delattr(select, "poll")
    (listener,) = listen("127.0.0.1:0")
    try:
        assert isinstance(listener.address, TCPAddress)
        assert (listener.address.host, listener.sock.getblocking()) == ("127.0.0.1", False)
        assert listener.address.port == listener.sock.getsockname()[1] > 0
        assert listener.has_connection() is False
        with socket.create_connection(("127.0.0.1", listener.address.port), 20):
            assert listener.has_connection() is True
    finally:
        listener.close()
    assert listener.sock.fileno() == -1


def test_the_system_is_asked_for_connections_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Recording:
        def register(self, sock: socket.socket, events: int) -> None:
            asked.append(events)

        def poll(self, milliseconds: int) -> list[object]:
            asked.append(milliseconds)
            return []

    def waits(*arguments: object) -> list[list[object]]:
        asked.append(arguments)
        return [[], [], []]

    (listener,) = listen("127.0.0.1:0")
    monkeypatch.setattr(select, "poll", Recording)
    assert not listener.has_connection()
    monkeypatch.delattr(select, "poll")
    monkeypatch.setattr(select, "select", waits)
    assert not listener.has_connection()
    assert asked == [select.POLLIN, 0, ([listener.sock], [], [], 0)]
    listener.close()


@pytest.mark.parametrize("host", ["", "*"])
def test_every_address_is_one_socket(host: str) -> None:
    (listener,) = listen(f"{host}:0")
    try:
        assert isinstance(listener.address, TCPAddress)
        hosts = ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ("127.0.0.1",)
        for each in hosts:
            socket.create_connection((each, listener.address.port), 20).close()
    finally:
        listener.close()


def test_without_both_families_in_one_socket_every_address_is_that_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    (listener,) = listen("*:0")
    assert isinstance(listener.address, TCPAddress) and listener.address.host == "0.0.0.0"
    listener.close()


def test_a_name_with_several_addresses_gets_a_socket_for_each_and_doubles_count_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []

    def addresses(host: str, port: int, **options: object) -> list[object]:
        asked.append((host, port, options))
        one = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        return [one, one, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port))]

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    listeners = listen("several.test:0")
    assert [str(listener.address).partition(":")[0] for listener in listeners] == ["127.0.0.1", "127.0.0.2"]
    assert asked == [("several.test", 0, {"type": socket.SOCK_STREAM, "flags": socket.AI_PASSIVE})]
    for listener in listeners:
        listener.close()


def test_an_address_of_ipv6_keeps_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which a machine need not have, so that none is bound."""
    address = ("fe80::1%eth0", 0, 0, 7)
    bound: list[object] = []

    def create(*arguments: object, **options: object) -> socket.socket:
        bound.append((*arguments, options["family"]))
        return socket.socket()

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", address)])
    monkeypatch.setattr(socket, "create_server", create)
    (listener,) = listen("[fe80::1%eth0]:0")
    listener.close()
    assert bound == [(address, socket.AF_INET6)]


def test_many_may_wait_to_be_accepted(monkeypatch: pytest.MonkeyPatch, short_folder: Path) -> None:
    backlogs: list[int] = []
    genuine = socket.create_server

    def create(*arguments: object, **options: object) -> socket.socket:
        backlogs.append(options["backlog"])  # type: ignore[arg-type]
        return genuine(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "create_server", create)
    for listener in listen("127.0.0.1:0", "*:0"):
        listener.close()
    assert backlogs == [BACKLOG, BACKLOG]


def test_a_port_that_is_taken_is_named_with_the_reason_and_nothing_stays_open(short_folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = failure(f"unix:{short_folder}/first", "127.0.0.1:0", f"127.0.0.1:{port}")
        assert str(error) == f"cannot listen on 127.0.0.1:{port}: Address already in use"
    assert not (short_folder / "first").exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_of_several_addresses_none_stays_open_if_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as other:
        port = other.getsockname()[1]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.1", "127.0.0.2")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        before = len(os.listdir("/proc/self/fd"))
        assert "already in use" in str(failure(f"several.test:{port}"))
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_port_of_all_addresses_that_is_taken_is_named_with_a_star() -> None:
    (other,) = listen("*:0")
    assert isinstance(other.address, TCPAddress)
    assert str(failure(f":{other.address.port}")) == (
        f"cannot listen on *:{other.address.port}: Address already in use"
    )
    other.close()


def test_an_unknown_or_foreign_host_to_listen_on_is_reported() -> None:
    assert str(failure("192.0.2.1:0")).startswith("cannot listen on 192.0.2.1:0: ")
    assert str(failure(f"{'x' * 64}.test:0")).startswith(f"cannot listen on {'x' * 64}.test:0: ")


def test_an_invalid_address_is_a_usage_error_of_the_setting() -> None:
    with pytest.raises(UsageError) as caught:
        open_listening([("127.0.0.1:0", "first"), ("nonsense", "second")], unix_mode=0o600)
    assert caught.value.setting == "second"


# ---- Unix sockets


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_unix_socket_has_the_mode_it_is_to_have_and_its_file_goes_with_it(short_folder: Path, mode: int) -> None:
    path = short_folder / "socket"
    umask = os.umask(0o022)
    try:
        (listener,) = listen(f"unix:{path}", mode=mode)
        assert os.umask(0o022) == 0o022, "the umask is what it was"
    finally:
        os.umask(umask)
    assert listener.address == UnixAddress(str(path))
    info = path.lstat()
    assert stat.S_ISSOCK(info.st_mode) and stat.S_IMODE(info.st_mode) == mode
    assert listener.file == (info.st_dev, info.st_ino)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert listener.has_connection()
    listener.close()
    assert not path.exists()


def test_a_file_that_took_the_place_of_the_sockets_own_is_left_alone(short_folder: Path) -> None:
    path = short_folder / "socket"
    (listener,) = listen(f"unix:{path}")
    path.rename(short_folder / "moved")
    path.write_text("somebody else's")
    listener.close()
    assert path.read_text() == "somebody else's"
    (gone,) = listen(f"unix:{short_folder}/gone")
    (short_folder / "gone").unlink()
    gone.close()


def test_a_socket_that_was_handed_over_keeps_its_file_unless_it_owns_it(short_folder: Path) -> None:
    for owns, known in ((False, None), (True, None), (True, (0, 0))):
        path = short_folder / f"{owns}{known is None}"
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        listener = ListeningSocket(sock, owns_path=owns, file=known)
        assert not sock.getblocking()
        listener.close()
        assert path.exists() is not (owns and known is None)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(short_folder / "by default"))
    ListeningSocket(sock).close()
    assert (short_folder / "by default").exists()


def test_a_socket_that_nobody_listens_on_any_more_is_replaced(short_folder: Path) -> None:
    path = short_folder / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    (listener,) = listen(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()


def test_a_socket_that_somebody_listens_on_is_not_replaced(short_folder: Path) -> None:
    path = short_folder / "socket"
    (first,) = listen(f"unix:{path}")
    before = len(os.listdir("/proc/self/fd"))
    assert str(failure(f"unix:{path}")) == f"cannot listen on unix:{path}: Address already in use"
    assert len(os.listdir("/proc/self/fd")) == before
    assert path.exists()
    first.close()


def test_a_socket_whose_listener_is_busy_is_not_replaced(short_folder: Path) -> None:
    path = short_folder / "socket"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        clients = []
        for _ in range(5):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            clients.append(client)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break
        assert "Address already in use" in str(failure(f"unix:{path}"))
        for client in clients:
            client.close()
    assert path.exists()


def test_a_file_that_is_no_socket_is_never_removed(short_folder: Path) -> None:
    path = short_folder / "file"
    path.write_text("mine")
    error = failure(f"unix:{path}")
    assert str(error) == f"cannot listen on unix:{path}: a file that is not a socket exists there"
    assert path.read_text() == "mine"


def test_a_path_that_is_too_long_says_so(short_folder: Path) -> None:
    path = short_folder / ("x" * 200)
    assert str(failure(f"unix:{path}")) == f"cannot listen on unix:{path}: AF_UNIX path too long"


def test_a_folder_that_is_not_there_leaves_the_umask_as_it_was(short_folder: Path) -> None:
    umask = os.umask(0o022)
    try:
        assert "No such file or directory" in str(failure(f"unix:{short_folder}/none/socket"))
        assert os.umask(umask) == 0o022
    finally:
        os.umask(umask)


def test_where_there_are_no_unix_sockets_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    assert str(failure("unix:/x")) == "cannot listen on unix:/x: this platform has no Unix sockets"
