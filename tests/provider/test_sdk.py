"""E2B's own SDKs, unmodified, against the test cloud, which shows that its answers can be trusted."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.provider.cloud import Cloud
from tests.provider.machines import PAUSED, RUNNING

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the SDK's own dependencies say while they are imported
    import e2b

NODE = Path(__file__).parents[1] / "interop" / "node"


@pytest.fixture
def environment(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The SDKs find sandboxes by one URL here, and name the sandbox in headers, as no resolver knows the names."""
    environ = {**cloud.environment(), "E2B_SANDBOX_URL": f"http://127.0.0.1:{cloud.edge.port}"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return environ


def test_the_python_sdk_makes_wakes_lists_and_kills_sandboxes(cloud: Cloud, environment: dict[str, str]) -> None:
    sandbox = e2b.Sandbox.create("ssh-ready", timeout=120, network={"allow_public_traffic": False})
    machine = cloud.machines[sandbox.sandbox_id]
    assert (sandbox.sandbox_domain, sandbox.traffic_access_token) == (cloud.domain, machine.traffic_token)
    assert sandbox.commands.run("echo $((40+2))").stdout == "42\n"
    sandbox.set_timeout(600)
    assert machine.ends - time.time() == pytest.approx(600, abs=5)
    assert e2b.Sandbox.connect(sandbox.sandbox_id, timeout=60).sandbox_id == sandbox.sandbox_id
    assert machine.ends - time.time() == pytest.approx(600, abs=20)  # connecting only ever extends
    assert sandbox.get_info().state == e2b.SandboxState.RUNNING
    sandbox.pause()
    assert machine.state == PAUSED
    listed = e2b.Sandbox.list(query=e2b.SandboxQuery(state=[e2b.SandboxState.PAUSED])).next_items()
    assert [each.sandbox_id for each in listed] == [sandbox.sandbox_id]
    again = e2b.Sandbox.connect(sandbox.sandbox_id, timeout=90)
    assert machine.state == RUNNING
    assert machine.ends - time.time() == pytest.approx(90, abs=5)
    assert again.commands.run("echo $((6*7))").stdout == "42\n"
    assert again.kill() is True
    assert again.kill() is False
    with pytest.raises(e2b.NotFoundException):
        e2b.Sandbox.connect(sandbox.sandbox_id)
    assert e2b.Sandbox.list().next_items() == []


def test_the_python_sdk_is_refused_as_by_e2b(
    cloud: Cloud, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        cloud.create()
    pages = e2b.Sandbox.list(limit=2)
    assert [len(pages.next_items()), len(pages.next_items()), pages.has_next] == [2, 1, False]
    monkeypatch.setenv("E2B_API_KEY", "e2b_" + "f" * 40)
    with pytest.raises(e2b.AuthenticationException):
        e2b.Sandbox.list().next_items()


def test_the_javascript_sdk_makes_wakes_lists_and_kills_sandboxes(
    bed: Bed, cloud: Cloud, environment: dict[str, str]
) -> None:
    script = """
        import { Sandbox } from 'e2b'
        const sandbox = await Sandbox.create('ssh-ready', {
          timeoutMs: 120_000, network: { allowPublicTraffic: false }
        })
        const seen = { private: !!sandbox.trafficAccessToken }
        seen.out = (await sandbox.commands.run('echo $((40+2))')).stdout
        await sandbox.setTimeout(600_000)
        await sandbox.pause()
        const paused = await Sandbox.list({ query: { state: ['paused'] } }).nextItems()
        seen.paused = paused.map((each) => each.sandboxId === sandbox.sandboxId)
        const again = await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 90_000 })
        seen.again = (await again.commands.run('echo $((6*7))')).stdout
        seen.killed = [await again.kill(), await again.kill()]
        seen.gone = await Sandbox.connect(sandbox.sandboxId).catch((error) => error.name)
        console.log(JSON.stringify(seen))
    """
    program = shutil.which("node")
    assert program, "node is missing: scripts/test installs it"
    folder = bed.folder / "javascript"
    folder.mkdir()
    (folder / "node_modules").symlink_to(NODE / "node_modules")
    (folder / "run.mjs").write_text(script)
    seen = json.loads(bed.check(program, str(folder / "run.mjs"), env=environment).text)
    assert seen == {
        "private": True, "out": "42\n", "paused": [True], "again": "42\n", "killed": [True, False],
        "gone": "SandboxNotFoundError",
    }  # fmt: skip
