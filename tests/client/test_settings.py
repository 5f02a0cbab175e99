"""How the client reads command line and environment: values, errors, the URL, and which URL gets which secret."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trustme

from tunnel.client.address import parse_url
from tunnel.client.options import OPTIONS, SHELL_OPTIONS, parse_command_line
from tunnel.client.settings import Settings, resolve
from tunnel.errors import UsageError
from tunnel.pty.shell.settings import resolve as resolve_shell

pytestmark = pytest.mark.usefixtures("names_of_options")


def settings_of(*words: str, **environ: str) -> Settings:
    """Resolve a command line as `tunnel.cli.main` does, in an environment of just ``environ``."""
    given, operands = parse_command_line(words)
    (host,) = operands
    return resolve(host, given, environ)


def error_of(*words: str, **environ: str) -> str:
    """The line that a user is shown for a command line that cannot be used."""
    with pytest.raises(UsageError) as caught:
        settings_of(*words, **environ)
    assert caught.value.exit_code == 2
    return str(caught.value)


def url_of(*words: str, **environ: str) -> str:
    return str(settings_of(*words, **environ).address)


def headers_of(*words: str, **environ: str) -> dict[str, str]:
    return dict(settings_of(*words, **environ).headers)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text("s3cret\n")
    return path


# ---- the command line


def test_values_may_follow_an_equals_sign_or_stand_alone() -> None:
    assert settings_of("--ping-interval", "5", "--ping-timeout=7.5", "box").ping_timeout == 7.5
    assert settings_of("--ping-interval", "5", "--ping-timeout=7.5", "box").ping_interval == 5.0


def test_options_may_follow_the_host() -> None:
    assert url_of("box", "--port", "9000") == "wss://9000-box.e2b.app"


def test_nothing_after_two_hyphens_is_an_option() -> None:
    assert parse_command_line(["--", "--port", "-v"]) == ({}, ["--port", "-v"])


def test_short_options_may_be_grouped_and_joined_with_their_value() -> None:
    settings = settings_of("-4vHX-One: 1", "-H", "X-Two: 2", "box")
    assert settings.family == socket.AF_INET
    assert settings.verbose
    assert settings.headers == [("X-One", "1"), ("X-Two", "2")]


def test_a_flag_of_the_environment_can_be_undone() -> None:
    assert settings_of("box", WSTUNNEL_PY_INSECURE="1").insecure
    assert not settings_of("--no-insecure", "box", WSTUNNEL_PY_INSECURE="1").insecure


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--porxy=x"], "there is no option --porxy; did you mean --proxy?; see wstunnel-py connect --help"),
        (["--versoin"], "there is no option --versoin; did you mean --version?; see wstunnel-py connect --help"),
        (["--hlep"], "there is no option --hlep; did you mean --help?; see wstunnel-py connect --help"),
        (["--zzz"], "there is no option --zzz; see wstunnel-py connect --help"),
        (["--no-port"], "there is no option --no-port; did you mean --port?; see wstunnel-py connect --help"),
        (["-vx"], "there is no option -x; see wstunnel-py connect --help"),
        (["--verbose=yes"], "--verbose takes no value"),
        (["--port"], "--port needs a value: N"),
        (["-H"], "-H needs a value: 'NAME: VALUE'"),
        (["--url="], "--url: the value is empty"),
        (["--port", "0"], "--port: '0' is not a port number from 1 to 65535"),
        (["--port", "65536"], "--port: '65536' is not a port number from 1 to 65535"),
        (["--port", "0655350"], "--port: '0655350' is not a port number from 1 to 65535"),
        (["--port=-1"], "--port: '-1' is not a port number from 1 to 65535"),
        (["--port", "٨٠"], "--port: '٨٠' is not a port number from 1 to 65535"),
        (["--connect-timeout", "0"], "--connect-timeout: '0' is not a number of seconds above 0, up to 86400"),
        (["--connect-timeout", "nan"], "--connect-timeout: 'nan' is not a number of seconds above 0, up to 86400"),
        (["--ping-timeout", "inf"], "--ping-timeout: 'inf' is not a number of seconds above 0, up to 86400"),
        (["--wait", "-1"], "--wait: '-1' is not a number of seconds from 0 to 86400"),
        (["--ping-interval", "1e9"], "--ping-interval: '1e9' is not a number of seconds above 0, up to 86400"),
        (["--ping-interval", "soon"], "--ping-interval: 'soon' is not a number of seconds above 0, up to 86400"),
        (["-H", "no colon"], "-H: write a header as 'Name: value'"),
        (["-H", "Host: x"], "-H: the header Host belongs to the handshake and cannot be set"),
        (["-H", "a b: x"], "-H: 'a b' is not a valid name for an HTTP header"),
        (["-H", "X: secret\r\nY: z"], "-H: the value has characters that are not printable"),
        (["--proxy", "ftp://x"], "--proxy: a proxy's URL must begin with http://, socks5:// or socks5h://"),
        (["-4", "-6"], "--ipv4 and --ipv6 cannot be used together"),
        (["--client-key", "k"], "--client-key needs --client-cert"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_named(words: list[str], line: str) -> None:
    assert error_of("box", *words) == line


# ---- the environment


def test_every_option_has_a_variable() -> None:
    assert {option.variable for option in OPTIONS} >= {"WSTUNNEL_PY_URL", "WSTUNNEL_PY_CA_FILE", "WSTUNNEL_PY_IPV4"}
    settings = settings_of("box", WSTUNNEL_PY_PORT="1234", WSTUNNEL_PY_PING_INTERVAL="3", WSTUNNEL_PY_VERBOSE="on")
    assert (settings.address.host, settings.ping_interval, settings.verbose) == ("1234-box.e2b.app", 3.0, True)


def test_the_command_line_goes_before_the_environment() -> None:
    assert url_of("--port", "1", "box", WSTUNNEL_PY_PORT="2") == "wss://1-box.e2b.app"


def test_headers_of_the_environment_stand_one_a_line_and_join_those_of_the_command_line() -> None:
    headers = headers_of("-H", "x-one: mine", "box", WSTUNNEL_PY_HEADER="X-One: 1\nX-Two: 2\n")
    assert headers == {"x-one": "mine", "X-Two": "2"}


@pytest.mark.parametrize(
    ("variable", "word", "line"),
    [
        ("PORT", "http", "WSTUNNEL_PY_PORT: 'http' is not a port number from 1 to 65535"),
        ("INSECURE", "maybe", "WSTUNNEL_PY_INSECURE: 'maybe' is not yes or no"),
        ("URL", "", "WSTUNNEL_PY_URL: the value is empty"),
        ("HEADER", "A: 1\nsecret", "WSTUNNEL_PY_HEADER: write a header as 'Name: value'"),
        ("PROXY", "socks4://x", "WSTUNNEL_PY_PROXY: a proxy's URL must begin with http://, socks5:// or socks5h://"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, word: str, line: str) -> None:
    assert error_of("box", **{f"WSTUNNEL_PY_{variable}": word}) == line


# ---- the URL


def test_without_any_option_the_host_is_a_sandbox_of_e2b() -> None:
    assert url_of("abc123") == "wss://8081-abc123.e2b.app"


def test_the_nearest_template_is_used() -> None:
    assert url_of("box", WSTUNNEL_PY_URL="ws://{host}.test:{port}/x") == "ws://box.test:8081/x"
    assert url_of("--url", "ws://{host}/", "box", WSTUNNEL_PY_URL="ws://other/") == "ws://box"
    assert url_of("ws://literal:1/y", WSTUNNEL_PY_URL="ws://other/") == "ws://literal:1/y"


@pytest.mark.parametrize(
    ("url", "host_field", "port", "resource"),
    [
        ("ws://h", "h", 80, "/"),
        ("WSS://h", "h", 443, "/"),
        ("ws://h:80/", "h", 80, "/"),
        ("ws://h:443?q=1", "h:443", 443, "/?q=1"),
        ("wss://[::1]/a", "[::1]", 443, "/a"),
        ("wss://[::1]:8443", "[::1]:8443", 8443, "/"),
        ("ws://bücher.test/", "xn--bcher-kva.test", 80, "/"),
        ("ws://a_b.test/%20", "a_b.test", 80, "/%20"),
        ("ws://faß.de", "xn--fa-hia.de", 80, "/"),
        ("ws://h.test.:81", "h.test.:81", 81, "/"),
        ("wss://[fe80::1%25eth0]:8443/x", "[fe80::1]:8443", 8443, "/x"),
        ("wss://[fe80::1%br-12ab]", "[fe80::1]", 443, "/"),
    ],
)
def test_urls_are_taken_apart(url: str, host_field: str, port: int, resource: str) -> None:
    address = parse_url(url)
    assert (address.host_field, address.port, address.resource) == (host_field, port, resource)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("https://h/", "https://h/: a tunnel's URL must begin with wss://, not https://"),
        ("http://h/", "http://h/: a tunnel's URL must begin with ws://, not http://"),
        ("ssh://h/", "ssh://h/: a tunnel's URL must begin with ws:// or wss://"),
        ("ws://", "ws://: the host is missing"),
        ("ws://:80", "ws://:80: the host is missing"),
        ("ws://h:", "ws://h:: the port is not a number from 1 to 65535"),
        ("ws://h:0", "ws://h:0: the port is not a number from 1 to 65535"),
        ("ws://h:65536", "ws://h:65536: the port is not a number from 1 to 65535"),
        ("ws://h:8 1", "ws://h:8 1: the port is not a number from 1 to 65535"),
        ("ws://a b/", "ws://a b/: the host has characters that a host name cannot have"),
        ("ws://h\\x/", "ws://h\\x/: the host has characters that a host name cannot have"),
        ("ws://[::1", "ws://[::1: the IPv6 address is malformed"),
        ("ws://[h]", "ws://[h]: the IPv6 address is malformed"),
        ("ws://[::1]x", "ws://[::1]x: the IPv6 address is malformed"),
        ("ws://[::1%]", "ws://[::1%]: the zone of the IPv6 address is malformed"),
        ("ws://[::1%25a%2Fb]", "ws://[::1%25a%2Fb]: the zone of the IPv6 address is malformed"),
        ("ws://h..test", "ws://h..test: the host has nothing between two dots"),
        ("ws://.", "ws://.: the host has nothing between two dots"),
        ("ws://h/#top", "ws://h/#top: a WebSocket URL cannot have a #fragment"),
        ("ws://h/a b", "ws://h/a b: the path has characters that must be percent-encoded"),
        ("ws://h/a\r\nX: y", "ws://h/a X: y: the path has characters that must be percent-encoded"),
    ],
)
def test_a_wrong_url_is_named_with_its_fault(url: str, line: str) -> None:
    assert error_of(url) == line


@pytest.mark.parametrize("url", ["ws://user:hunter2@h/", "https://user:hunter2@h/", "user:hunter2@h/", "ws://u@h"])
def test_a_url_with_a_password_is_refused_and_not_repeated(url: str) -> None:
    line = "a URL must not hold a user name or password; use a token file or a header"
    assert error_of("--url", url, "box") == line


def test_a_zone_is_dialled_and_shown_but_not_sent() -> None:
    address = parse_url("wss://[fe80::1%25br-12ab]:8443/x")
    assert (address.host, address.plain_host, address.certificate_name) == ("fe80::1%br-12ab", "fe80::1", "fe80::1")
    assert str(address) == "wss://[fe80::1%25br-12ab]:8443/x"
    assert parse_url(str(address)) == address


def test_the_query_of_a_url_is_sent_but_not_shown() -> None:
    address = parse_url("wss://h/a?token=hunter2")
    assert address.resource == "/a?token=hunter2"
    assert str(address) == "wss://h/a?…"
    assert "hunter2" not in error_of("http://h/?token=hunter2")


@pytest.mark.parametrize(
    "host", ["a/b", "a@evil.test", "a:1", "-a", "a.", ".a", "a b", "ä", "{port}", "evil.test#", "a?b", ""]
)
def test_a_host_that_could_change_the_url_is_refused(host: str) -> None:
    line = error_of("--", host)
    assert line.startswith(f"{host!r} cannot be part of a URL")


@pytest.mark.parametrize(
    ("host", "step"),
    [("me@box", "leave out the user: box"),
     ("127.0.0.1:8081", "for an address with a port, put ws:// or wss:// in front"),
     ("box.test:1", "for an address with a port, put ws:// or wss:// in front"),
     ("::1", "only letters and digits, and . _ - between them, are allowed"),
     ("./token", "it looks like a file; a token's file is given with --token-file"),
     ("/etc/hosts", "it looks like a file; a token's file is given with --token-file"),
     ("ws//box:8081", "a URL begins with ws:// or wss://"),
     ("ws:/box:8081", "a URL begins with ws:// or wss://"),
     ("a:b", "only letters and digits, and . _ - between them, are allowed"),
     ("me@", "only letters and digits, and . _ - between them, are allowed")],
)  # fmt: skip
def test_a_host_in_another_programs_syntax_gets_a_hint_how_to_write_it(host: str, step: str) -> None:
    assert error_of("--", host) == f"{host!r} cannot be part of a URL: {step}"


def test_a_template_knows_two_placeholders_only() -> None:
    assert error_of("--url", "ws://{name}/", "box") == (
        "ws://{name}/: a URL template may contain {host} and {port}, but no other braces"
    )


# ---- secrets


def test_a_token_is_sent_as_bearer(token_file: Path) -> None:
    assert headers_of("--token-file", str(token_file), "box") == {"Authorization": "Bearer s3cret"}
    assert headers_of("box", WSTUNNEL_PY_TOKEN="other") == {"Authorization": "Bearer other"}


def test_a_token_file_of_the_command_line_goes_before_the_environments_token(token_file: Path) -> None:
    headers = headers_of("--token-file", str(token_file), "box", WSTUNNEL_PY_TOKEN="other")
    assert headers == {"Authorization": "Bearer s3cret"}


def test_secrets_of_the_environment_go_to_urls_of_templates_only(token_file: Path) -> None:
    environ = {"WSTUNNEL_PY_TOKEN": "s3cret", "WSTUNNEL_PY_HEADER": "X-Key: s3cret"}
    expected = {"X-Key": "s3cret", "Authorization": "Bearer s3cret"}
    assert headers_of("box", **environ) == expected
    assert headers_of("box", **environ, WSTUNNEL_PY_URL="ws://127.0.0.1:1/") == expected
    assert headers_of("ws://evil.test/", **environ) == {}
    assert headers_of("ws://evil.test/", WSTUNNEL_PY_TOKEN_FILE=str(token_file)) == {}


def test_secrets_of_the_command_line_go_to_any_url(token_file: Path) -> None:
    headers = headers_of("--token-file", str(token_file), "-H", "X: 1", "ws://h.test/")
    assert headers == {"X": "1", "Authorization": "Bearer s3cret"}


@pytest.mark.parametrize("content", [b"", b"\n \n", b"two words", b"one\ntwo\n", b"\xff\xfe", b"x" * 10_000])
def test_a_token_file_without_exactly_one_token_is_an_error(token_file: Path, content: bytes) -> None:
    token_file.write_bytes(content)
    line = error_of("--token-file", str(token_file), "box")
    assert line.startswith(f"--token-file: {token_file}: ")


@pytest.mark.parametrize("origin", ["--token-file", "WSTUNNEL_PY_TOKEN_FILE"])
def test_a_missing_token_file_is_an_error(tmp_path: Path, origin: str) -> None:
    path = str(tmp_path / "none")
    words, environ = (["--token-file", path], {}) if origin.startswith("-") else ([], {origin: path})
    assert error_of(*words, "box", **environ) == f"{origin}: cannot use {path}: No such file or directory"


def test_an_empty_token_in_the_environment_is_an_error() -> None:
    assert error_of("box", WSTUNNEL_PY_TOKEN="") == "WSTUNNEL_PY_TOKEN: there is no token in it"


def test_a_token_and_an_authorization_header_exclude_each_other() -> None:
    line = error_of("-H", "authorization: Basic eA==", "box", WSTUNNEL_PY_TOKEN="x")
    assert line == "give either a token or an Authorization header, not both"


def test_a_token_file_that_others_can_read_causes_a_warning(token_file: Path) -> None:
    assert settings_of("--token-file", str(token_file), "box").warnings == []
    token_file.chmod(0o644)
    (warning,) = settings_of("--token-file", str(token_file), "box").warnings
    assert warning == f"other users can read the token file {token_file}: chmod 600 it"


@pytest.mark.parametrize("apart", [True, False])
def test_a_key_that_others_can_read_causes_a_warning(tmp_path: Path, apart: bool) -> None:
    issued = trustme.CA().issue_cert("x.test")
    certificate, key = tmp_path / "cert.pem", tmp_path / ("key.pem" if apart else "cert.pem")
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key), append=not apart)
    certificate.chmod(0o644)
    words = ["--client-cert", str(certificate), *(["--client-key", str(key)] if apart else [])]
    given, _ = parse_command_line(words, SHELL_OPTIONS, "shell")
    for mode, expected in ((0o600, []), (0o644, [f"other users can read the key in {key}: chmod 600 it"])):
        key.chmod(mode)
        assert settings_of(*words, "wss://x.test/").warnings == expected
        assert resolve_shell("https://x.test/", given, environ={}).warnings == expected


def test_an_unverified_certificate_causes_a_warning() -> None:
    assert settings_of("--insecure", "box").warnings == ["the server's certificate is not checked (--insecure)"]
