"""The commands of docs/certificates.md are run unchanged, from top to bottom."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.bed.tunnels import OURS

PAGE = (Path(__file__).parents[2] / "docs" / "certificates.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("box.example.com", "localhost").splitlines()
]


def test_the_commands_of_the_page_do_what_it_says(bed: Bed, echo_target: Target) -> None:
    def shell(command: str) -> tuple[str, ...]:
        return ("bash", "-c", command.replace("wstunnel-py", shlex.join(OURS), 1))

    bridge = None
    for command in COMMANDS:
        if command.startswith("wstunnel-py serve"):
            places = f"--listen 127.0.0.1:0 --target 127.0.0.1:{echo_target.port}"
            bridge = bed.start(*shell(f"exec {command} {places}"))
            demanded = "token" if "--token-file" in command else "client certificate"
            port = bridge.wait_for_line(rf"ready on wss?://127.0.0.1:(\d+) .*auth: {demanded}\b")[1]
        elif command.startswith("wstunnel-py connect"):
            assert bridge is not None
            assert bed.check(*shell(command.replace(":8081", f":{port}")), stdin=b"hello").stdout == b"hello"
        else:
            bed.check(*shell(command))
    made = {path.name for path in bed.folder.iterdir() if not re.match(r"\d{3}-", path.name)}
    assert made == {
        "pki", "localhost.pem", "localhost.key", "alice.pem", "alice.key", "alice.token", "new.token", "bridge.tokens",
        "image_host_key", "image_host_key.pub", "known_hosts",
    }  # fmt: skip
    assert (bed.folder / "bridge.tokens").read_text() == (bed.folder / "new.token").read_text()
    assert "my-image ssh-ed25519 " in (bed.folder / "known_hosts").read_text()
