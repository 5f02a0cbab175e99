"""``templates/e2b/connect.py --sandbox``, with E2B's own SDK, and the line that it prints."""

from __future__ import annotations

import shlex
import sys

from tests.bed.earlier import ROOT
from tests.bed.processes import Bed
from tests.provider.cloud import KEY, Cloud
from tests.provider.machines import RUNNING

CONNECT = (sys.executable, str(ROOT / "templates" / "e2b" / "connect.py"))


def test_connect_prints_how_to_reach_an_existing_sandbox(bed: Bed, cloud: Cloud) -> None:
    machine = cloud.create(real=True, autoPause=True, network={"allowPublicTraffic": False})
    machine.pause()
    env = {**cloud.environment(), "E2B_SANDBOX_URL": f"http://127.0.0.1:{cloud.edge.port}"}
    text = bed.check(*CONNECT, "--sandbox", machine.id, env=env).text
    assert machine.state == RUNNING
    first, *exports, last = [line for line in text.splitlines() if "known_hosts" not in line]
    assert first == "# on the machine that runs ssh, E2B_API_KEY must be set as it is here"
    assert exports == [f"export E2B_DOMAIN={cloud.domain}", f"export E2B_API_URL={cloud.url}"]
    assert shlex.split(last)[-1] == f"user@{machine.id}"
    assert KEY not in text and machine.traffic_token not in text
    assert (machine.state, [each.method for each in cloud.requests]) == (RUNNING, ["POST"])
    finished = bed.run(*CONNECT, "--sandbox", "i" + "0" * 19, env=env)
    assert finished.status == 69 and finished.stderr.count("\n") == 1
