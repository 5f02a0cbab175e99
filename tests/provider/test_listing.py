"""``wstunnel-py sandboxes``, and what a shell completes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.bed.processes import Bed
from tests.bed.tunnels import OURS, PROGRAMS
from tests.provider.cloud import Cloud, Fault


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


def test_a_shell_completes_them(bed: Bed, cloud: Cloud, tmp_path: Path) -> None:
    machine = cloud.create()
    env = {**cloud.environment(), "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "XDG_CONFIG_HOME": str(tmp_path)}
    for words in (f"shell {machine.id[:3]}", f"ssh {machine.id[:3]}", machine.id[:3]):
        line = f"wstunnel-py {words}"
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1), "_WSTUNNEL_PY_COMPLETE": "bash_complete"}
        assert bed.check(*OURS, env={**env, **asked}).text == f"plain,{machine.id}\n"
    assert bed.check(*OURS, env={**env, **asked, "E2B_API_KEY": "wrong"}).text == "\n"
