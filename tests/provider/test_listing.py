"""``wstunnel-py sandboxes``, and what a shell completes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.bed.processes import Bed
from tests.bed.tunnels import OURS, PROGRAMS
from tests.provider.cloud import KEY, Cloud, Fault
from tunnel.cli.sandboxes import table
from tunnel.provider.answers import Details


def test_sandboxes_are_listed(bed: Bed, cloud: Cloud) -> None:
    command, env = (*OURS, "sandboxes"), cloud.environment()
    assert bed.check(*command, env=env).text == "SANDBOX  TEMPLATE  STATE  ENDS IN\n"
    runs = cloud.create(timeout=3000)
    sleeps = cloud.create(template="a\tlong\x1b[31m name")
    sleeps.started -= 100
    sleeps.pause()
    shown = bed.check(*command, env=env)
    assert (shown.text, shown.stderr) == (
        "SANDBOX               TEMPLATE          STATE    ENDS IN\n"
        f"{runs.id}  ssh-ready         running  50 min\n"
        f"{sleeps.id}  a long [31m name  paused   -\n",
        "",
    )
    listed = json.loads(bed.check(*command, "--json", env=env).text)
    assert [(each["id"], each["template"], each["state"]) for each in listed] == [
        (runs.id, "ssh-ready", "running"), (sleeps.id, "a long [31m name", "paused"),
    ]  # fmt: skip
    assert 2900 < listed[0]["ends_in"] <= 3000 and listed[1]["ends_in"] is None


def test_wide_characters_take_two_columns() -> None:
    lines = table([Details("i1", "箱の中", "running", 20.0), Details("i2", "e\u0301t", "paused", 0.0)])
    assert lines == [
        "SANDBOX  TEMPLATE  STATE    ENDS IN",
        "i1       箱の中    running  20 s",
        "i2       e\u0301t        paused   -",
    ]


def test_a_long_list_has_pages(bed: Bed, cloud: Cloud) -> None:
    ids = {cloud.create().id for _ in range(230)}
    listed = json.loads(bed.check(*OURS, "sandboxes", "--json", env=cloud.environment()).text)
    assert {each["id"] for each in listed} == ids
    assert len(cloud.asked("GET /v2/sandboxes")) == 3


def test_what_goes_wrong_is_reported_in_one_line(bed: Bed, cloud: Cloud) -> None:
    command = (*OURS, "sandboxes")
    finished = bed.run(*command)
    line = "wstunnel-py: the provider requires an API key: E2B_API_KEY or --api-key-file\n"
    assert (finished.status, finished.stderr) == (2, line)
    finished = bed.run(*command, env=cloud.environment("wrong"))
    assert finished.status == 77 and finished.stderr.startswith(
        f"wstunnel-py: {cloud.url} refused the API key from E2B_API_KEY: "
    )
    for body, problem in (
        ({}, "its answer is not a JSON array"),
        ([7], "its answer is not a JSON object"),
        ([{"sandboxID": "i", "state": "running"}], "its answer lacks the sandbox's id, state or end"),
        ([{"sandboxID": "i", "state": "running", "endAt": "soon"}], "its answer has an invalid time"),
        (b"x" * (5 << 20), "it did not answer in HTTP: its answer is longer than 4194304 bytes"),
    ):
        cloud.faults[:] = [Fault(status=200, body=body)]
        finished = bed.run(*command, env=cloud.environment())
        assert (finished.status, finished.stderr) == (69, f"wstunnel-py: request to {cloud.url} failed: {problem}\n")
    finished = bed.run(*command, env={**cloud.environment(), "E2B_API_URL": "ftp://x"})
    line = "wstunnel-py: E2B_API_URL: the URL of an API must begin with https:// or http://\n"
    assert (finished.status, finished.stderr) == (2, line)


def test_pages_that_overlap_or_come_again_do_not_repeat_a_sandbox(bed: Bed, cloud: Cloud) -> None:
    def entry(id: str) -> dict[str, str]:
        return {"sandboxID": id, "state": "running", "endAt": "2099-01-01T00:00:00Z"}

    pages = [[entry("a"), entry("b")], [], [entry("b"), entry("c")], [entry("b"), entry("c")]]
    for page in pages:  # the last one comes for ever
        times = float("inf") if page is pages[-1] else 1
        cloud.faults.append(Fault(status=200, body=page, headers={"X-Next-Token": "more"}, times=times))
    listed = json.loads(bed.check(*OURS, "sandboxes", "--json", env=cloud.environment()).text)
    assert [each["id"] for each in listed] == ["a", "b", "c"]
    assert len(cloud.requests) == 4


def completed(bed: Bed, env: dict[str, str], words: str) -> str:
    """What a shell shows for a command line that ends with Tab."""
    line = f"wstunnel-py {words}"
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1), "_WSTUNNEL_PY_COMPLETE": "bash_complete"}
    finished = bed.check(*OURS, env={"PATH": f"{PROGRAMS}:{os.environ['PATH']}", **env, **asked})
    assert finished.stderr == ""
    return finished.text


def test_a_shell_completes_them(bed: Bed, cloud: Cloud, tmp_path: Path) -> None:
    machine = cloud.create()
    env = {**cloud.environment(), "XDG_CONFIG_HOME": str(tmp_path)}
    for words in (f"shell {machine.id[:3]}", f"ssh {machine.id[:3]}", machine.id[:3]):
        assert completed(bed, env, words) == f"plain,{machine.id}\n"
    assert completed(bed, {**env, "E2B_API_KEY": "wrong"}, words) == "\n"
    asked = len(cloud.requests)
    assert completed(bed, {**env, "WSTUNNEL_PY_PROVIDER": "none"}, words) == "\n"
    folder = tmp_path / "wstunnel-py"
    folder.mkdir()
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_text(KEY)
    (folder / "config.toml").write_text('api-key-file = "key"\n')
    assert len(cloud.requests) == asked
    assert completed(bed, {**env, "E2B_API_KEY": ""}, words) == f"plain,{machine.id}\n"


def test_a_shell_does_not_wait_for_many_slow_pages(bed: Bed, cloud: Cloud) -> None:
    for _ in range(230):
        cloud.create()
    cloud.faults.append(Fault("GET", delay=1.0))
    assert completed(bed, cloud.environment(), "i") == "\n"
    assert len(cloud.requests) <= 2
