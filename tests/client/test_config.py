"""The config file: where it is looked for, its tables of hosts, and what is said about its mistakes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme

from tests.bed.processes import Bed
from tests.bed.tunnels import OURS
from tests.client.test_settings import error_of, headers_of, settings_of, url_of
from tunnel.client.config import config_path

pytestmark = pytest.mark.usefixtures("names_of_options")

EXAMPLE = """
port = 9000
ping-interval = 5
proxy = "none"
headers = { X-Global = "g" }

[hosts.build]
url = "wss://build.test/ssh"
headers = { X-Build = "b" }
ca-file = "ca.pem"

[hosts.templated]
url = "wss://{host}.own.test:{port}"
port = 7
connect-timeout = 2.5

[hosts."*.e2b"]
headers = { e2b-traffic-access-token = "traffic" }

[hosts."*.team.e2b"]
url = "wss://{port}-{host}.team.test"
verbose = true
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config file at its usual place, with the example in it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "wstunnel-py" / "config.toml"
    path.parent.mkdir()
    path.write_text(EXAMPLE)
    return path


# ---- finding it


def test_the_config_file_is_looked_for_in_the_xdg_folder(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_path() == str(config)
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert config_path() == "/home/somebody/.config/wstunnel-py/config.toml"


@pytest.mark.parametrize("folder", ["no-such-folder", "a-file"])
def test_a_config_file_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / folder))
    assert url_of("box") == "wss://8081-box.e2b.app"


def test_a_named_config_file_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    assert error_of("--config", str(path), "box") == f"{path}: there is no such file"
    assert error_of("box", WSTUNNEL_PY_CONFIG=str(path)) == f"{path}: there is no such file"


def test_a_named_config_file_replaces_the_usual_one(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("port = 1\n")
    assert url_of("box") == "wss://9000-box.e2b.app"
    assert url_of("--config", str(other), "box") == "wss://1-box.e2b.app"


# ---- what it says


@pytest.mark.usefixtures("config")
def test_top_level_options_apply_to_all_hosts_unless_overridden() -> None:
    assert settings_of("box").ping_interval == 5.0
    assert settings_of("box", WSTUNNEL_PY_PING_INTERVAL="6").ping_interval == 6.0
    assert settings_of("--ping-interval", "7", "box", WSTUNNEL_PY_PING_INTERVAL="6").ping_interval == 7.0


@pytest.mark.usefixtures("config")
def test_a_named_host_goes_before_the_environments_template() -> None:
    environ = {"WSTUNNEL_PY_URL": "ws://env.test/"}
    assert url_of("build", **environ) == "wss://build.test/ssh"
    assert url_of("--url", "ws://given.test/", "build", **environ) == "ws://given.test"
    assert url_of("box", **environ) == "ws://env.test"


@pytest.mark.usefixtures("config")
def test_a_named_host_has_options_of_its_own() -> None:
    settings = settings_of("templated")
    assert str(settings.address) == "wss://templated.own.test:7"
    assert settings.connect_timeout == 2.5


@pytest.mark.usefixtures("config")
def test_the_part_that_the_star_of_a_pattern_matches_becomes_the_host() -> None:
    assert url_of("abc.e2b") == "wss://9000-abc.e2b.app"


def test_a_sandbox_is_known_by_its_id_with_e2b_behind_it_without_any_file() -> None:
    assert url_of("abc.e2b") == url_of("Abc.E2B").lower() == "wss://8081-abc.e2b.app"
    assert url_of("abc.e2b", WSTUNNEL_PY_URL="wss://{host}.edge.test") == "wss://abc.edge.test"
    assert url_of("--url", "wss://{port}-{host}.own.test", "abc.e2b") == "wss://8081-abc.own.test"


def test_a_table_for_one_sandbox_does_not_change_what_its_name_means(config: Path) -> None:
    config.write_text('[hosts."Abc.e2b"]\nuser = "me"\nport = 7\n[hosts."b.e2b"]\nurl = "wss://{host}.own.test"\n')
    assert url_of("abc.e2b") == "wss://7-abc.e2b.app"
    assert url_of("b.e2b") == "wss://b.e2b.own.test"
    assert url_of(".e2b", "--url", "wss://own.test") == "wss://own.test"


def test_a_table_of_the_file_replaces_what_is_known_without_it(config: Path) -> None:
    config.write_text('[hosts."*.E2B"]\nport = 5\n[hosts."x.e2b"]\nurl = "wss://x.test"\n[hosts."*"]\nport = 6\n')
    assert url_of("abc.e2b") == "wss://5-abc.e2b.app"
    assert url_of("x.e2b") == "wss://x.test"
    config.write_text('[hosts."*"]\nport = 6\n')
    assert url_of("abc.e2b") == "wss://8081-abc.e2b.app"
    assert url_of("abc") == "wss://6-abc.e2b.app"


def test_upper_and_lower_case_are_the_same_as_ssh_does_not_keep_them(config: Path) -> None:
    config.write_text('[hosts.Build]\nport = 1\n[hosts."*.E2B"]\nport = 2\n')
    assert url_of("build") == "wss://1-build.e2b.app"
    assert url_of("Abc.e2b") == "wss://2-Abc.e2b.app"


@pytest.mark.usefixtures("config")
def test_the_longest_pattern_wins() -> None:
    assert url_of("abc.team.e2b") == "wss://9000-abc.team.test"
    assert settings_of("abc.team.e2b").verbose


@pytest.mark.usefixtures("config")
def test_a_pattern_wants_something_in_the_place_of_its_star() -> None:
    assert error_of(".e2b").startswith("'.e2b' cannot be part of a URL")


def test_files_are_relative_to_the_config_file(config: Path) -> None:
    assert settings_of("build").ca_file == str(config.parent / "ca.pem")


def test_a_file_may_be_in_the_home_folder(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    config.write_text('ca-file = "~/ca.pem"\n')
    assert settings_of("box").ca_file == "/home/somebody/ca.pem"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_file(config: Path, tmp_path: Path, encoding: str) -> None:
    token = tmp_path / "token"
    token.write_bytes("t0ken\r\n".encode(encoding))
    token.chmod(0o600)
    config.write_bytes(f'token-file = "{token}"\r\n[hosts."büro"]\r\nurl = "ws://b/"\r\n'.encode(encoding))
    settings = settings_of("x")
    assert settings.headers == [("Authorization", "Bearer t0ken")]
    assert str(settings_of("büro").address) == "ws://b"


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_byte_order_mark_alone_is_an_empty_file(config: Path, tmp_path: Path, data: bytes) -> None:
    config.write_bytes(data)
    settings_of("x")
    token = tmp_path / "token"
    token.write_bytes(data)
    token.chmod(0o600)
    assert error_of("--token-file", str(token), "x") == f"--token-file: {token}: there is no token in it"


@pytest.mark.parametrize("data", [b"caf\xe9", b"\xff\xfe\x00", b"t0ken\xef\xbb\xbf"])
def test_a_token_that_is_no_text_is_refused(config: Path, tmp_path: Path, data: bytes) -> None:
    token = tmp_path / "token"
    token.write_bytes(data)
    token.chmod(0o600)
    assert "must hold one token" in error_of("--token-file", str(token), "x")


# ---- secrets


@pytest.mark.usefixtures("config")
def test_secrets_for_all_hosts_go_to_urls_of_templates_only() -> None:
    assert headers_of("box") == {"X-Global": "g"}
    assert headers_of("abc.e2b") == {"e2b-traffic-access-token": "traffic", "X-Global": "g"}
    assert headers_of("templated") == {"X-Global": "g"}
    assert headers_of("build") == {"X-Build": "b"}
    assert headers_of("ws://evil.test/") == {}


def test_a_literal_url_gets_the_secrets_of_the_table_with_its_hosts_exact_name(config: Path) -> None:
    config.write_text('[hosts."gw.test"]\nheaders = { X-Key = "k" }\n[hosts."*"]\nheaders = { X-All = "a" }\n')
    assert headers_of("wss://gw.test/x") == {"X-Key": "k"}
    assert headers_of("wss://evil.test/x") == {}
    assert headers_of("box") == {"X-All": "a"}


def test_a_token_file_belongs_to_its_host(config: Path) -> None:
    token = config.parent / "token"
    token.touch(mode=0o600)
    token.write_text("s3cret")
    config.write_text('[hosts.build]\nurl = "wss://build.test"\ntoken-file = "token"\n')
    assert headers_of("build", WSTUNNEL_PY_TOKEN="other") == {"Authorization": "Bearer s3cret"}
    assert headers_of("box", WSTUNNEL_PY_TOKEN="other") == {"Authorization": "Bearer other"}
    token.write_text("")
    assert error_of("build") == f"{config}: hosts.build: token-file: {token}: there is no token in it"


# ---- mistakes

BACKSLASH = """; inside "…" a backslash begins an escape: write / instead, or put the value into '…'"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = ", "Invalid value (at end of document)"),
        ("prot = 1", "there is no option 'prot'; did you mean port?"),
        ("zzzz = 1", "there is no option 'zzzz'"),
        ("config = 'x'", "there is no option 'config'"),
        ("stdio-threads = true", "there is no option 'stdio-threads'"),
        ("header = 'A: b'", "there is no option 'header'; did you mean headers?"),
        ("port = true", "port: True is not a port number from 1 to 65535"),
        ("port = 70000", "port: 70000 is not a port number from 1 to 65535"),
        ("url = 5", "url: 5 is not a string"),
        ("url = ''", "url: the value is empty"),
        ('ca-file = "a\\u0000b"', "ca-file: the value has characters that are not printable"),
        ('ca-file = "C:\\temp"', "ca-file: the value has characters that are not printable" + BACKSLASH),
        ('ca-file = "C:\\Users"', "Invalid hex value (at line 1, column 16)" + BACKSLASH),
        ('ca-file = "C:\\Data"', "Unescaped '\\' in a string (at line 1, column 16)" + BACKSLASH),
        ("insecure = 'yes'", "insecure must be true or false"),
        ("ping-interval = -1", "ping-interval: -1 is not a number of seconds above 0, up to 86400"),
        ("ping-interval = true", "ping-interval: True is not a number of seconds above 0, up to 86400"),
        ("proxy = 'socks9://x'", "proxy: a proxy's URL must begin with http://, socks5:// or socks5h://"),
        ("headers = 'A: b'", "headers must be a table of strings"),
        ("headers = { A = 1 }", "headers must be a table of strings"),
        ("headers = { Host = 'x' }", "headers: the header Host belongs to the handshake and cannot be set"),
        ("hosts = 1", "hosts must be a table"),
        ("[hosts]\nbuild = 1", "hosts.build must be a table"),
        ("[hosts.'*.*']", "hosts.*.*: a pattern can have only one *"),
        ("[hosts.build]\nprot = 1", "hosts.build: there is no option 'prot'; did you mean port?"),
        ("[host.build]\nport = 1", "there is no option 'host'; the table of a host is [hosts.NAME]"),
        ("[build]\nurl = 'ws://h.test'", "there is no option 'build'; the table of a host is [hosts.NAME]"),
        (
            "[hosts.box.example.com]\nport = 1",
            "hosts.box: there is no option 'example'; a name with dots needs quotes: [hosts.\"box.example.com\"]",
        ),
        (
            "[hosts.box.test]",
            "hosts.box: there is no option 'test'; a name with dots needs quotes: [hosts.\"box.test\"]",
        ),
        (
            "[hosts.build]\n[hosts.a]\n[hosts.Build]",
            "hosts.Build: hosts.build is the same host, as case is ignored: remove one of them",
        ),
        (
            "[hosts.'*.E2B']\n[hosts.'*.e2b']",
            "hosts.*.e2b: hosts.*.E2B is the same host, as case is ignored: remove one of them",
        ),
    ],
)
def test_a_mistake_is_named_with_the_file_and_the_key(config: Path, text: str, said: str) -> None:
    config.write_text(text)
    assert error_of("box") == f"{config}: {said}"


def test_a_url_that_is_none_is_named_with_the_place_that_it_is_from(config: Path) -> None:
    config.write_text(
        "url = 'ws://{sandbox}'\n[hosts.box]\nurl = 'https://h.test/'\n[hosts.me]\nurl = 'ws://me:pw@h'\n"
    )
    assert error_of("box") == (
        f"{config}: hosts.box: url: https://h.test/: a tunnel's URL must begin with wss://, not https://"
    )
    assert error_of("me").startswith(f"{config}: hosts.me: url: a URL must not hold a user name or password")
    assert error_of("xyz").startswith(f"{config}: url: ws://{{sandbox}}: a URL template may contain")
    assert error_of("xyz", WSTUNNEL_PY_URL="h.test") == (
        "WSTUNNEL_PY_URL: h.test: a tunnel's URL must begin with ws:// or wss://"
    )
    assert error_of("a b", WSTUNNEL_PY_URL="ws://{host}/").startswith("'a b' cannot be part of a URL")


def test_a_number_beyond_all_bounds_is_a_mistake_like_others(config: Path) -> None:
    config.write_text("ping-interval = 1" + "0" * 400)
    assert error_of("box").startswith(f"{config}: ping-interval: 1000")
    config.write_text("ping-interval = 1" + "0" * 5000)
    assert error_of("box").startswith(f"{config}: Exceeds the limit")
    config.write_text("ping-interval = " + "[" * 50_000)
    assert error_of("box").startswith(f"{config}: maximum recursion depth exceeded")


def test_a_file_that_is_no_text_or_too_large_is_refused(config: Path) -> None:
    config.write_bytes(b"\xff\xfe")
    assert error_of("box").startswith(f"{config}: 'utf-8' codec can't decode byte 0xff")
    config.write_bytes(b"#" * 2_000_000)
    assert error_of("box") == f"{config}: the file is larger than 1048576 bytes"


def test_a_folder_in_its_place_is_refused(config: Path) -> None:
    config.unlink()
    config.mkdir()
    assert error_of("box") == f"{config}: Is a directory"


# ---- who else can read and write it


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('headers = { X-Key = "k" }\n', 1),
        ('[hosts.box]\nheaders = { e2b-traffic-access-token = "t" }\n', 1),
        ('proxy = "http://user:hunter2@p.test:3128"\n', 1),
        ('[hosts.box]\nurl = "ws://x.test/ssh?token=hunter2"\n', 1),
        ('proxy = "http://p.test:3128"\nport = 1\n[hosts.box]\nurl = "ws://x.test"\n', 0),
    ],
)
def test_a_file_with_secrets_that_others_can_read_causes_a_warning_in_one_line(
    bed: Bed, config: Path, text: str, count: int
) -> None:
    config.write_text(text)
    for mode, expected in ((0o644, count), (0o640, count), (0o604, count), (0o600, 0)):
        config.chmod(mode)
        finished = bed.run(*OURS, "connect", "--connect-timeout", "1", "--url", "ws://127.0.0.1:1/", "box", stdin=b"")
        warning = f"wstunnel-py: warning: other users can read the secrets in {config}: chmod 600 it\n"
        assert finished.stderr.count("warning") == finished.stderr.count(warning) == expected
        assert "hunter2" not in finished.stderr


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o666, 0o664])
def test_a_file_that_others_can_write_is_refused(config: Path, mode: int) -> None:
    config.write_text("port = 1\n")
    config.chmod(mode)
    assert error_of("box") == f"{config}: its mode is {mode:04o}, so other users may write to it: chmod 600"


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o666])
def test_a_token_file_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret")
    path.chmod(mode)
    reason = f"its mode is {mode:04o}, so other users may write to it: chmod 600"
    assert error_of("--token-file", str(path), "box") == f"--token-file: cannot use {path}: {reason}"


def test_the_null_device_is_an_empty_file() -> None:
    assert settings_of("--config", "/dev/null", "box").headers == []


@pytest.mark.parametrize("option", ["--config", "--token-file", "--ca-file", "--client-cert", "--client-key"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_config_path_that_is_not_a_file_ends_the_command_at_once(
    bed: Bed, tmp_path: Path, option: str, kind: str
) -> None:
    path = tmp_path / "no-file"
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    good = tmp_path / "cert.pem"
    trustme.CA().issue_cert("x.test").private_key_and_cert_chain_pem.write_to_path(str(good))
    words = ["--client-cert", str(good)] if option == "--client-key" else []
    finished = bed.run(*OURS, "connect", *words, option, str(path), "wss://127.0.0.1:1/", stdin=b"", seconds=20)
    reason = {
        "pipe": "it is a pipe, not a regular file",
        "device": "it is a device, not a regular file",
        "folder": "Is a directory",
    }[kind]
    said = f"{path}: {reason}" if option == "--config" else f"{option}: cannot use {path}: {reason}"
    assert (finished.status, finished.stderr.lower()) == (2, f"wstunnel-py: {said}\n".lower())


def test_other_commands_wait_for_no_pipe_either(bed: Bed, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    for words in (
        ["doctor", "--token-file", path, "ws://127.0.0.1:1/"],
        ["forward", "--token-file", path, "0", "ws://127.0.0.1:1/"],
        ["shell", "--token-file", path, "http://127.0.0.1:1/"],
        ["shell", "--ca-file", path, "https://127.0.0.1:1/"],
        ["config-ssh", "--config", path],
        ["connect", "--log-file", path, "ws://127.0.0.1:1/"],
        ["websocat", "--basic-auth-file", path, "-", "ws://127.0.0.1:1/"],
        ["certs", "show", path],
        ["keys", "show", path],
    ):
        finished = bed.run(*OURS, *map(str, words), stdin=b"", seconds=20)
        assert finished.status in (1, 2, 255), words
        assert "pipe" in finished.stderr + finished.text or "No such device" in finished.stderr, words
