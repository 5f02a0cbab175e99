"""Output in locales whose encoding lacks some of the characters that the program prints."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.tunnels import OURS
from tunnel.cli.group import COMMANDS
from tunnel.net.standard_streams import readable

NOWHERE = "ws://127.0.0.1:1"
POSIX = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
LOCALES = {
    "POSIX": ("ascii", POSIX),
    "ISO-8859-1": ("iso8859-1", {"PYTHONIOENCODING": "iso8859-1"}),
    "ISO-8859-15": ("iso8859-15", {"PYTHONIOENCODING": "iso8859-15:strict"}),
    "cp1252": ("cp1252", {"PYTHONIOENCODING": "cp1252"}),
    "cp437": ("cp437", {"PYTHONIOENCODING": "cp437"}),
    "ASCII": ("ascii", {"PYTHONIOENCODING": "ascii:replace"}),
    "UTF-8": ("utf-8", {"PYTHONIOENCODING": "utf-8"}),
}
FEW = ("POSIX", "cp437", "UTF-8")
GROUPS = {
    "pty": ("ps", "kill"),
    "keys": ("token", "host", "show"),
    "certs": ("ca", "server", "client", "renew", "show"),
}
ALL_HELP = """
import json, sys
from tunnel.cli.main import main
from tunnel.net.standard_streams import open_standard_streams
open_standard_streams()
sys.exit(max(main([*words, "--help"]) for words in json.loads(sys.argv[1])))
"""


@pytest.fixture(params=LOCALES)
def locale(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, str]]:
    """The name of an encoding, and the environment that asks for it."""
    return LOCALES[request.param]


def decoded(data: bytes, encoding: str) -> str:
    """The text, which must be one in the encoding, and have nothing in it that could not be written."""
    text = data.decode(encoding)
    assert "�" not in text
    assert "\\u" not in text and "\\x" not in text
    return text


def test_every_help_can_be_read(bed: Bed, locale: tuple[str, Mapping[str, str]]) -> None:
    encoding, environ = locale
    commands = [[], *([name] for name in COMMANDS), *([name, sub] for name, subs in GROUPS.items() for sub in subs)]
    done = bed.run(sys.executable, "-c", ALL_HELP, json.dumps(commands), env=environ)
    assert (done.status, done.stderr) == (0, "")
    text = decoded(done.stdout, encoding)
    assert text.count("Usage: wstunnel-py") == len(commands)
    assert f"COMMAND [OPTIONS] {readable('…', encoding).decode(encoding)}\n" in text


def test_a_doctors_report_can_be_read(bed: Bed, locale: tuple[str, Mapping[str, str]]) -> None:
    encoding, environ = locale
    done = bed.run(*OURS, "doctor", NOWHERE, env=environ)
    assert (done.status, done.stderr) == (69, "")
    marks = [line.split()[0] for line in decoded(done.stdout, encoding).splitlines() if " ms " in line]
    assert marks == (["✓", "✓", "✗"] if encoding == "utf-8" else ["ok", "ok", "!!"])


def test_a_report_for_programs_is_json_in_every_locale(bed: Bed) -> None:
    for environ in ({"PYTHONIOENCODING": "utf-8"}, {"PYTHONIOENCODING": "ascii"}):
        done = bed.run(*OURS, "doctor", "--json", NOWHERE, env=environ)
        assert (json.loads(done.stdout)["ok"], done.stderr) == (False, "")


@pytest.mark.parametrize("name", FEW)
def test_lines_of_services_can_be_read(bed: Bed, name: str) -> None:
    encoding, environ = LOCALES[name]
    arrow = "→" if encoding == "utf-8" else "->"
    bridge = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", "--target", "127.0.0.1:1", env=environ)
    forward = bed.start(*OURS, "forward", "0", NOWHERE, env=environ)
    bridge.wait_for_line("bridge ready on")
    forward.wait_for_line("try:")
    assert f" {arrow} 127.0.0.1:1 (" in decoded(bridge.err.read_bytes(), encoding)
    assert f" {arrow} {NOWHERE}; try:" in decoded(forward.out.read_bytes(), encoding)
    for process in (bridge, forward):
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.parametrize("name", FEW)
def test_a_log_file_can_be_read_where_it_is_written(bed: Bed, tmp_path: Path, name: str) -> None:
    encoding, environ = LOCALES[name]
    log = tmp_path / "log"
    finished = bed.run(*OURS, "--log-file", str(log), NOWHERE, env=environ)
    assert finished.status == 69
    assert "refused the connection" in decoded(log.read_bytes(), encoding)


def test_a_path_that_is_no_text_comes_out_as_it_went_in(bed: Bed, tmp_path: Path) -> None:
    for number, environ in enumerate((POSIX, {"LC_ALL": "C.UTF-8"})):
        path = bytes(tmp_path) + b"/k\xff\xc3\xb6%d" % number
        done = bed.run(*OURS, "keys", "token", os.fsdecode(path), env=environ)
        assert (done.status, done.stderr) == (0, "")
        assert done.stdout.startswith(path + b"  a new token")


def test_an_option_takes_a_path_that_is_no_text(bed: Bed, tmp_path: Path) -> None:
    token = tmp_path / "tök"
    token.write_text("abcdefgh")
    token.chmod(0o600)
    for environ in (POSIX, {"LC_ALL": "C.UTF-8"}):
        done = bed.run(*OURS, "--token-file", str(token), NOWHERE, env=environ)
        assert (done.status, done.stderr.count("\n")) == (69, 1)


def test_signs_that_another_encoding_has_stay() -> None:
    assert readable("a → b \u2013 c \xd7 d", "cp1252") == b"a -> b \x96 c \xd7 d"
    assert readable("\u201cdon\u2019t\u201d … ≥ 5 日", "ascii") == b'"don\'t" ... >= 5 \\u65e5'
    assert readable("k\udcff", "utf-8") == b"k\xff"
