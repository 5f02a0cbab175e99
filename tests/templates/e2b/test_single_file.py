"""The template with the single file in it, and E2B's own page with one line changed, both run on one machine."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.built import Built
from tests.bed.processes import Bed
from tests.bed.tunnels import OURS, WEBSOCAT
from tests.templates.e2b.programs import TEMPLATE, carry_out, make_key, serialised
from tests.templates.machine import Machine

pytestmark = pytest.mark.timeout(600)  # the first test to ask for the machine makes it

PAGE = (TEMPLATE / "README.md").read_text()
DOWNLOADS = "https://github.com/wstunnel-py/wstunnel-py/releases/latest/download"


@pytest.fixture(scope="module")
def machine(folder: Path, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Bed(tmp_path_factory.mktemp("machine")) as bed:
        options = ("--public-key", str(make_key(folder, bed)), "--bridge", str(built.archive))
        template = serialised(bed, folder, "python", *options)
        machine = Machine(bed)
        carry_out(machine, template, folder)
        bridge = machine.start(template["startCmd"], "user")
        bridge.wait_for_line(r"bridge ready on ws://0\.0\.0\.0:8081 → 127\.0\.0\.1:2222")
        yield machine


def log_in(machine: Machine, folder: Path, client: str) -> str:
    settings = [f"IdentityFile={folder / 'key'}", f"ProxyCommand={client}", "BatchMode=yes", "LogLevel=ERROR"]
    settings += ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentityAgent=none", "IdentitiesOnly=yes"]
    words = [word for setting in settings for word in ("-o", setting)]
    finished = machine.run_from_its_network("ssh", "-F", "none", *words, "user@box", "id -un")
    return finished.text or finished.stderr


def test_the_key_logs_in_without_pip_in_the_image(machine: Machine, folder: Path) -> None:
    assert log_in(machine, folder, " ".join((*OURS, "connect", "ws://127.0.0.1:8081"))) == "user\n"
    assert machine.do("ls /opt/wstunnel-py").text.split() == ["start.sh", "wstunnel-py"]
    assert machine.do("ls ~/.cache/wstunnel-py | wc -l", "user").text == "1\n"


@pytest.fixture
def downloads(built: Built) -> Iterator[str]:
    """The address from which the release's files can be downloaded here."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=built.folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_page_s_template_works_with_one_line_changed(machine: Machine, folder: Path, downloads: str) -> None:
    (block,) = re.findall(r"```diff\n(.*?)```", PAGE, re.DOTALL)
    assert (block.count("\n-"), block.count("\n+")) == (0, 1) and block.startswith("-"), "one line"
    *steps, start = re.findall(r"^[+ ] .*?'([^']+)'", block, re.MULTILINE)
    steps = [step for step in steps if step != "root"]
    assert [step.split()[0] for step in (*steps, start)] == ["curl", "chmod", "sudo"]
    for step in steps:
        machine.do(step.replace(DOWNLOADS, downloads), connected=True)
    sshd = machine.start("mkdir -p /run/sshd; exec /usr/sbin/sshd -D -e -o ListenAddress=127.0.0.1:22", "root")
    sshd.wait_for_line("Server listening")
    bridge = machine.start(start.replace(":8081", ":8082"), "user")  # as the other one is there, too
    bridge.wait_for_line("listening on ws://0.0.0.0:8082")
    url = "ws://127.0.0.1:8082"
    assert log_in(machine, folder, f"{WEBSOCAT} --binary -B 65536 - {url}") == "user\n"
    assert log_in(machine, folder, " ".join((*OURS, "connect", url))) == "user\n"
