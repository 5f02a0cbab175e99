"""Certificates at the embedded SSH server: who may log in, from where, and to do what."""

from __future__ import annotations

from pathlib import Path

from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS, WEBSOCAT_CLIENT, Bridge, Route, start_embedded
from tests.ssh.authority import make_key, public, sign, with_keys
from tests.ssh.conftest import route_to, write_keys

DENIED = "Permission denied (publickey)"


def trusting(bed: Bed, sshd: Sshd, *lines: str) -> Route:
    """A server whose authorized_keys has these lines."""
    keys = write_keys(bed.folder / "keys", *lines)
    return route_to(bed, sshd, start_embedded(bed, sshd, "--authorized-keys", str(keys)))


def assert_refused(bed: Bed, route: Route, key: Path, reason: str) -> None:
    finished = bed.run(*with_keys(route, key), "echo in")
    assert finished.status == 255 and DENIED in finished.stderr and finished.text == "", finished
    line = route.bridge.process.wait_for_line(f"ssh-refused .*{reason}")[0]
    assert "internal error" not in route.bridge.process.log(), line


def test_a_certificate_is_for_its_addresses(bed: Bed, sshd: Sshd) -> None:
    authority, near, far = (make_key(bed, name) for name in ("authority", "near", "far"))
    sign(bed, authority, near, "-O", "source-address=192.0.2.0/24,127.0.0.0/8")
    sign(bed, authority, far, "-O", "source-address=192.0.2.0/24,2001:db8::/32")
    route = trusting(bed, sshd, f"cert-authority {public(authority)}")
    assert bed.check(*with_keys(route, near), "echo in").text == "in\n"
    assert_refused(bed, route, far, "not valid for clients at 127.0.0.1")
    # The client may try another key.
    assert bed.check(*with_keys(route, far, near), "echo in").text == "in\n"


def test_a_certificate_with_addresses_is_of_no_use_where_the_address_is_unknown(
    bed: Bed, sshd: Sshd, short_folder: Path
) -> None:
    authority, key, free = (make_key(bed, name) for name in ("authority", "member", "free"))
    sign(bed, authority, key, "-O", "source-address=0.0.0.0/0,::/0")
    keys = write_keys(bed.folder / "keys", f"cert-authority {public(authority)}", public(free))
    path = short_folder / "bridge"
    options = ("--target", "embedded", "--authorized-keys", str(keys), "--host-key", str(sshd.folder / "host"))
    process = bed.start(*OURS, "serve", "--listen", f"unix:{path}", *options)
    process.wait_for_line("ready on")
    command = (*WEBSOCAT_CLIENT, "--ws-c-uri=ws://bridge.test/", "-", f"ws-c:unix:{path}")
    route = Route(sshd.write_client_config(bed.folder / "ssh_config", command), Bridge("", process))
    assert bed.check(*with_keys(route, free), "echo in $SSH_CONNECTION").text == "in\n"
    assert_refused(bed, route, key, "limited to certain addresses, but the client's address is unknown")
    assert bed.check(*with_keys(route, key, free), "echo in").text == "in\n"


def test_ipv6_clients_are_known(bed: Bed, sshd: Sshd) -> None:
    authority, key = make_key(bed, "authority"), make_key(bed, "member")
    sign(bed, authority, key, "-O", "source-address=::1/128")
    keys = write_keys(bed.folder / "keys", f"cert-authority {public(authority)}")
    bridge = start_embedded(bed, sshd, "--authorized-keys", str(keys), "--listen", "[::1]:0")
    port = bridge.process.wait_for_line(r"ws://\[::1\]:(\d+)")[1]
    route = route_to(bed, sshd, Bridge(f"ws://[::1]:{port}", bridge.process))
    assert bed.check(*with_keys(route, key), "echo $SSH_CLIENT").text.startswith("::1 ")


def test_a_certificate_that_is_not_for_this_admits_nobody(bed: Bed, sshd: Sshd) -> None:
    authority = make_key(bed, "authority")
    route = trusting(bed, sshd, f"cert-authority {public(authority)}")
    for number, (options, principals, reason) in enumerate(
        (
            (("-O", "critical:unheard-of=1"), "me", "Unrecognized critical option: unheard-of"),
            (("-O", "verify-required"), "me", "Unrecognized critical option: verify-required"),
            (("-V", "20200101:20200102"), "me", "Certificate expired"),
            (("-V", "+1h:+2h"), "me", "not yet valid"),
            ((), "somebody-else", "principal mismatch"),
        )
    ):
        key = make_key(bed, f"member-{number}")
        sign(bed, authority, key, *options, principals=principals)
        assert_refused(bed, route, key, reason)


def test_a_stranger_s_certificate_admits_nobody(bed: Bed, sshd: Sshd) -> None:
    """Neither does the CA's own key, nor a key without its certificate."""
    authority, stranger, key = (make_key(bed, name) for name in ("authority", "stranger", "member"))
    route = trusting(bed, sshd, f"cert-authority {public(authority)}")
    sign(bed, stranger, key)
    assert_refused(bed, route, key, "none of the client's keys")
    assert bed.run(*with_keys(route, authority), "true").status == 255


def test_principals_are_names_and_not_patterns(bed: Bed, sshd: Sshd) -> None:
    authority, key, other = (make_key(bed, name) for name in ("authority", "member", "other"))
    sign(bed, authority, key, principals="staff")
    sign(bed, authority, other, principals="me")
    route = trusting(bed, sshd, f'cert-authority,principals="guests,staff" {public(authority)}')
    assert bed.check(*with_keys(route, key), "echo in").text == "in\n"
    assert bed.run(*with_keys(route, other), "echo in").status == 255


def test_a_certificate_gives_no_more_than_both_allow(bed: Bed, sshd: Sshd) -> None:
    authority, wide, narrow = (make_key(bed, name) for name in ("authority", "wide", "narrow"))
    sign(bed, authority, wide)
    sign(bed, authority, narrow, "-O", "clear")
    forward = ("-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1")
    route = trusting(bed, sshd, f"cert-authority,no-pty {public(authority)}")
    assert bed.run(*with_keys(route, wide, options=forward), "true").status == 0
    assert bed.run(*with_keys(route, narrow, options=forward), "true").status == 255
    for key in (wide, narrow):
        assert "PTY allocation request failed" in bed.run(*with_keys(route, key, options=("-tt",)), "tty").stderr
    agent = ("-A", "-o", f"IdentityAgent={sshd.folder}/none")
    assert bed.check(*with_keys(route, narrow, options=agent), "echo ${SSH_AUTH_SOCK-none}").text == "none\n"
