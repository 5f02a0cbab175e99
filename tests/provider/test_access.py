"""Access to a sandbox before it is dialled: it is woken, with its tokens, from the cache if that is still valid."""

from __future__ import annotations

import json
import os
import ssl
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Finished, ticks
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS
from tests.provider.cloud import KEY, Cloud, Fault
from tests.provider.machines import PAUSED, PAUSING, RUNNING
from tunnel.provider.answers import Access
from tunnel.provider.cache import Cache, cache_folder

Connect = Callable[..., Finished]
NOBODY = "i" + "0" * 19


@pytest.fixture
def connect(bed: Bed, tunnel_environ: dict[str, str]) -> Connect:
    """Run ``connect`` with these words, which end with the host, and send it a word to echo."""

    def run(*words: str, **more: str) -> Finished:
        return bed.run(*OURS, "connect", *words, stdin=b"hello", env={**tunnel_environ, **more})

    return run


def assert_echoed(finished: Finished, *lines: str) -> None:
    assert (finished.status, finished.stdout, finished.stderr.splitlines()) == (0, b"hello", [*lines])


def cached(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "wstunnel-py" / "sandboxes").iterdir())


def test_with_a_key_alone_ssh_reaches_a_paused_private_sandbox(
    bed: Bed, sshd: Sshd, tmp_path: Path, cloud_tls: tuple[ssl.SSLContext, Path]
) -> None:
    context, ca_file = cloud_tls
    with Cloud(bed, sshd.port, context) as cloud:
        machine = cloud.create(real=True, network={"allowPublicTraffic": False}, autoPause=True)
        machine.pause()
        config = sshd.write_client_config(tmp_path / "config", (*OURS, "%h"))
        env = {**cloud.environment(), "SSL_CERT_FILE": str(ca_file), "XDG_CACHE_HOME": str(tmp_path)}
        ssh = ("ssh", "-F", str(config))
        for word in ("one", "two"):
            finished = bed.check(*ssh, machine.id, f"echo {word}", env=env)
            assert (finished.text, finished.stderr) == (f"{word}\n", "")
        assert machine.state == RUNNING
        assert [(each.method, each.path, each.body) for each in cloud.requests] == [
            ("POST", f"/sandboxes/{machine.id}/connect", {"timeout": 300})
        ]
        assert all(KEY not in head for head in cloud.edge.heads)
        assert bed.check(*ssh, f"{machine.id}.e2b", "echo three", env=env).text == "three\n"
        assert len(cloud.requests) == 1


def test_what_was_said_once_is_kept_for_its_user_alone(cloud: Cloud, connect: Connect, tmp_path: Path) -> None:
    machine = cloud.create(network={"allowPublicTraffic": False})
    for _ in range(2):
        assert_echoed(connect(machine.id))
    assert len(cloud.requests) == 1
    (file,) = cached(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert KEY not in file.read_text() and machine.traffic_token in file.read_text()


def rewrite(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_bytes(os.urandom(100)),
        lambda path: path.write_text("[" * 30_000),
        lambda path: path.write_text(json.dumps({"asked": 0, "until": 1e12, "access": {}})),
        lambda path: rewrite(path, access={"domain": "a b"}),
        lambda path: rewrite(path, access=[]),
        lambda path: rewrite(path, asked=10**400),
        lambda path: rewrite(path, until=10**400),
        lambda path: path.chmod(0o644),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: path.parent.chmod(0o500),
    ],
    ids=["cut", "noise", "deep", "old", "no-domain", "no-object", "asked", "until", "readable", "folder", "read-only"],
)
def test_a_file_that_is_wrong_costs_a_call_and_no_more(
    cloud: Cloud, connect: Connect, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    machine = cloud.create(network={"allowPublicTraffic": False})
    assert_echoed(connect(machine.id))
    (file,) = cached(tmp_path)
    spoil(file)
    assert_echoed(connect(machine.id))
    assert len(cloud.requests) in (1, 2)  # 1: a folder that cannot be written can still be read
    file.parent.chmod(0o700)


def test_many_at_once_leave_one_whole_file(
    bed: Bed, cloud: Cloud, tunnel_environ: dict[str, str], tmp_path: Path
) -> None:
    machine = cloud.create(network={"allowPublicTraffic": False})
    clients = [bed.start(*OURS, "connect", machine.id, stdin=subprocess.PIPE, env=tunnel_environ) for _ in range(6)]
    for client in clients:
        client.feed(b"x")
        client.end_input()
    for client in clients:
        assert client.wait(20) == 0, client.log()
    (file,) = cached(tmp_path)
    assert json.loads(file.read_text())["access"]["trafficAccessToken"] == machine.traffic_token


def test_another_key_and_another_api_have_access_of_their_own(cloud: Cloud, connect: Connect, tmp_path: Path) -> None:
    machine = cloud.create()
    assert_echoed(connect(machine.id))
    other = "e2b_" + "a" * 40
    cloud.keys.add(other)
    assert_echoed(connect(machine.id, E2B_API_KEY=other))
    assert_echoed(connect(machine.id, E2B_API_URL=cloud.url.replace("127.0.0.1", "localhost")))
    assert (len(cloud.requests), len(cached(tmp_path))) == (3, 3)


def test_what_an_edge_does_not_take_any_more_is_asked_for_again(cloud: Cloud, connect: Connect) -> None:
    machine = cloud.create(network={"allowPublicTraffic": False}, autoPause=True)
    assert_echoed(connect(machine.id))
    machine.rotate()  # 403
    assert_echoed(connect(machine.id))
    machine.pause()  # 502
    assert_echoed(connect(machine.id))
    assert [status for _, status in cloud.edge.answers] == [101, 403, 101, 502, 101]
    assert len(cloud.requests) == 3


def test_nothing_is_asked_again_of_what_only_just_came(cloud: Cloud, connect: Connect) -> None:
    machine = cloud.create()
    machine.ports = {}  # it is still starting
    finished = connect(machine.id)
    assert (finished.status, len(cloud.requests)) == (69, 1)
    assert "The sandbox is running but port is not open" in finished.stderr


def test_a_sandbox_whose_time_is_half_over_is_given_more(cloud: Cloud, connect: Connect) -> None:
    machine = cloud.create()
    assert_echoed(connect("--sandbox-timeout", "4", machine.id))
    time.sleep(2.2)
    assert_echoed(connect("--sandbox-timeout", "4", machine.id))
    assert len(cloud.asked("connect")) == 2
    assert cloud.requests[0].body == {"timeout": 4}


# ---- what the API refuses


def test_an_api_that_refuses_is_reported_in_one_line(cloud: Cloud, connect: Connect) -> None:
    machine = cloud.create()
    unknown = f"Sandbox \"{NOBODY}\" doesn't exist or you don't have access to it"
    finished = connect(NOBODY)
    line = f"{cloud.url} has no sandbox {NOBODY}: {unknown}; wstunnel-py sandboxes lists yours"
    assert (finished.status, finished.stderr) == (69, f"wstunnel-py: {line}\n")
    finished = connect(machine.id, E2B_API_KEY="e2b_" + "f" * 40)
    line = f"{cloud.url} refused the API key from E2B_API_KEY: Unauthorized, please check your credentials."
    assert (finished.status, finished.stderr) == (77, f"wstunnel-py: {line}\n")
    cloud.faults.append(Fault("connect", 429, {"code": 429, "message": "you have reached the limit"}))
    finished = connect(machine.id)
    line = f"{cloud.url} answered 429: you have reached the limit; wstunnel-py sandboxes lists those that run"
    assert (finished.status, finished.stderr) == (75, f"wstunnel-py: {line}\n")
    cloud.faults[:] = [Fault("connect", 400, {"code": 400, "message": "Timeout cannot be greater than 24 hours"})]
    finished = connect(machine.id)
    assert (finished.status, finished.stderr.count("\n")) == (2, 1)
    assert "Timeout cannot be greater than 24 hours" in finished.stderr
    assert cloud.edge.answers == []


def test_tokens_stay_while_a_call_is_only_put_off(cloud: Cloud, connect: Connect) -> None:
    machine = cloud.create(network={"allowPublicTraffic": False})
    assert_echoed(connect(machine.id))
    for status in (409, 429):
        cloud.faults[:] = [Fault("connect", status, {"code": status, "message": "not now"})]
        assert connect("--sandbox-timeout", "3000", machine.id).status == 75  # which asks for more time
        assert_echoed(connect(machine.id))


def test_a_sandbox_that_changes_its_state_is_waited_for_on_request(cloud: Cloud, connect: Connect) -> None:
    machine = cloud.create()
    machine.state = PAUSING
    finished = connect(machine.id)
    assert finished.status == 75
    assert finished.stderr.startswith(f"wstunnel-py: sandbox {machine.id} is changing state: ")
    assert "see --wait" in finished.stderr
    cloud.faults.append(Fault("connect", 409, {"code": 409, "message": "being paused"}, times=2))
    machine.state = PAUSED
    finished = connect("--wait", "60", machine.id)
    line = f"wstunnel-py: not up yet (sandbox {machine.id} is changing state: being paused); trying for 60 s"
    assert_echoed(finished, line)


@pytest.mark.parametrize("has_access", [False, True])
def test_a_wait_outlasts_an_api_that_fails_and_warns_once(
    bed: Bed, cloud: Cloud, connect: Connect, tunnel_environ: dict[str, str], has_access: bool
) -> None:
    machine = cloud.create()
    if has_access:
        assert_echoed(connect(machine.id))
    ports, machine.ports = machine.ports, {}  # it is still starting
    cloud.faults.append(Fault("connect", 503, {"code": 503, "message": "no capacity"}))
    client = bed.start(*OURS, "connect", "--wait", "60", machine.id, stdin=subprocess.PIPE, env=tunnel_environ)
    for _ in ticks(20):
        if cloud.edge.answers.count((8081, 502)) >= 3:
            break
    machine.ports = ports
    client.feed(b"hello")
    client.end_input()
    assert (client.wait(20), client.out.read_text()) == (0, "hello"), client.log()
    lines = client.err.read_text().splitlines()
    assert sorted(line.partition(" (")[0].partition(" http")[0] for line in lines) == [
        "wstunnel-py: not up yet", "wstunnel-py: warning: request to",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (Fault(status=500, body={"code": 500, "message": "Error when getting\nsnapshot"}),
         "it answered 500: Error when getting snapshot"),
        (Fault(status=200, body=b"<html>"), "its answer is not JSON"),
        (Fault(status=200, body=[]), "its answer is not a JSON object"),
        (Fault(status=200, body=b"[" * 100_000), "its answer is not JSON"),
        (Fault(status=200, body={"trafficAccessToken": "a\r\nb"}), "its answer has an invalid token"),
        (Fault(status=200, body={"trafficAccessToken": 7}), "trafficAccessToken in its answer is not a string"),
        (Fault(status=200, body={"domain": "evil.test/x?"}), "its answer has an invalid domain"),
        (Fault(status=200, body={"domain": "a..b"}), "its answer has an invalid domain"),
        (Fault(status=200, body={"domain": "a.test:99999"}), "its answer has an invalid domain"),
        (Fault(raw=b"SSH-2.0-OpenSSH\r\n"), "it did not answer in HTTP"),
        (Fault(raw=b""), "it did not answer in HTTP"),
    ],
)  # fmt: skip
def test_an_api_that_fails_causes_a_warning_and_the_sandbox_is_dialled(
    cloud: Cloud, connect: Connect, fault: Fault, problem: str
) -> None:
    machine = cloud.create()
    cloud.faults.append(fault)
    finished = connect(machine.id)
    assert (finished.status, finished.stdout) == (0, b"hello")
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"wstunnel-py: warning: request to {cloud.url} failed: {problem}")
    assert line.endswith("; connecting anyway")
    assert connect("--quiet", machine.id).stderr == ""


def test_an_api_that_is_down_causes_a_warning_and_the_last_tokens_are_used(cloud: Cloud, connect: Connect) -> None:
    machine = cloud.create(network={"allowPublicTraffic": False})
    assert_echoed(connect("--sandbox-timeout", "1", machine.id))
    time.sleep(0.6)
    machine.extend(300)
    down = {"E2B_API_URL": "http://127.0.0.1:1"}
    finished = connect("--sandbox-timeout", "1", machine.id, **down)
    assert finished.status == 77  # those of another API are not known
    cloud.faults.append(Fault(status=503, body={"code": 503, "message": "no capacity"}))
    finished = connect("--sandbox-timeout", "1", machine.id)
    assert (finished.status, finished.stdout) == (0, b"hello")
    assert "it answered 503: no capacity; connecting anyway" in finished.stderr


def test_the_key_follows_no_redirect(bed: Bed, cloud: Cloud, connect: Connect) -> None:
    machine = cloud.create()
    with Cloud(bed, 1) as other:
        for status in (301, 307, 308):
            cloud.faults[:] = [Fault(status=status, headers={"Location": f"{other.url}/x?key={KEY}"})]
            finished = connect(machine.id)
            assert f"it answered {status} and points to {other.url}/x; redirects are not followed" in finished.stderr
            assert KEY not in finished.stderr
        assert other.requests == []


def test_a_provider_is_not_asked_where_none_is_wanted(cloud: Cloud, connect: Connect) -> None:
    machine = cloud.create()
    assert_echoed(connect("--provider", "none", machine.id))
    url = f"ws://8081-{machine.id}.{cloud.domain}"
    assert_echoed(connect(url))
    assert_echoed(connect("--url", url, machine.id))
    # A template of the user's own says where hosts are: by their names alone they are nobody's sandboxes.
    assert_echoed(connect(machine.id, WSTUNNEL_PY_PROVIDER="none"))
    assert cloud.requests == []
    finished = connect("--provider", "e2b", url)
    assert finished.status == 2 and "give its ID as HOST" in finished.stderr


# ---- secrets


def test_the_key_is_shown_nowhere(bed: Bed, cloud: Cloud, tunnel_environ: dict[str, str], tmp_path: Path) -> None:
    machine = cloud.create(network={"allowPublicTraffic": False})
    cloud.faults.append(Fault("connect", 500, {"code": 500, "message": f"your key {KEY} broke"}, times=1))
    log = tmp_path / "log"
    client = bed.start(
        *OURS, "connect", "-v", "--log-file", str(log), machine.id, stdin=subprocess.PIPE, env=tunnel_environ
    )
    client.wait_for_line("403")
    again = bed.start(
        *OURS, "connect", "-v", "--log-file", str(log), machine.id, stdin=subprocess.PIPE, env=tunnel_environ
    )
    again.wait_for_line("input and output are connected")
    command = Path(f"/proc/{again.pid}/cmdline").read_text()
    again.feed(b"x")
    again.end_input()
    assert again.wait(20) == 0
    for text in (client.log(), again.log(), log.read_text(), command, *cloud.edge.heads):
        assert KEY not in text
    assert "your key [secret] broke" in client.log()
    for text in (client.log(), again.log(), log.read_text(), command):
        assert machine.traffic_token not in text and machine.envd_token not in text
    assert all(machine.envd_token not in head for head in cloud.edge.heads)


def test_a_key_file_is_looked_at(bed: Bed, cloud: Cloud, tunnel_environ: dict[str, str], tmp_path: Path) -> None:
    machine = cloud.create()
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    del tunnel_environ["E2B_API_KEY"]
    for mode, status, line in (
        (0o600, 0, ""),
        (0o644, 0, f"wstunnel-py: warning: other users can read the api key file {file}: chmod 600 it\n"),
        (0o666, 2, f"wstunnel-py: E2B_API_KEY_FILE: cannot use {file}: its mode is 0666, so other users may "
                   "write to it: chmod 600\n"),
    ):  # fmt: skip
        file.chmod(mode)
        finished = bed.run(
            *OURS, "connect", machine.id, stdin=b"hello", env={**tunnel_environ, "E2B_API_KEY_FILE": str(file)}
        )
        assert (finished.status, finished.stderr) == (status, line)
    file.chmod(0o600)
    file.write_text("two words\n")
    finished = bed.run(*OURS, "connect", "--api-key-file", str(file), machine.id, stdin=b"hello", env=tunnel_environ)
    assert finished.status == 2 and "it must hold one key" in finished.stderr and "words" not in finished.stderr
    finished = bed.run(*OURS, "connect", machine.id, stdin=b"hello", env=tunnel_environ)
    line = "wstunnel-py: the provider requires an API key: E2B_API_KEY or --api-key-file\n"
    assert (finished.status, finished.stderr) == (2, line)


def test_a_key_for_all_goes_to_no_api_that_one_host_has(
    bed: Bed, cloud: Cloud, tunnel_environ: dict[str, str], tmp_path: Path
) -> None:
    machine = cloud.create()
    config = tmp_path / "config.toml"
    config.write_text(f'[hosts."*.other"]\nprovider = "e2b"\napi-url = "{cloud.url}"\n')
    for words in (("--config", str(config), f"{machine.id}.other"), ("--api-domain", "cloud.test", machine.id)):
        finished = bed.run(*OURS, "connect", *words, stdin=b"hello", env=tunnel_environ)
        assert finished.status == 2
        assert "from the environment or the config file's top level is not sent to this API" in finished.stderr
    assert cloud.requests == []
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text(KEY)
    config.write_text(f'{config.read_text()}api-key-file = "key"\n')
    finished = bed.run(
        *OURS, "connect", "--config", str(config), f"{machine.id}.other", stdin=b"hello",
        env={**tunnel_environ, "E2B_API_KEY": "e2b_of_another_cloud", "E2B_API_URL": "", "E2B_DOMAIN": ""},
    )  # fmt: skip
    assert_echoed(finished)


def test_access_that_was_stored_by_a_wrong_clock_is_not_used(
    tmp_path: Path,
) -> None:
    cache, now = Cache(str(tmp_path), "api", "key"), time.time()
    for asked, until, is_used in (
        (now, now + 300, True),
        (now - 86000, now + 300, True),
        (now - 86500, now + 300, False),
        (now + 100, now + 400, False),
        (now, now + 90000, False),
        (now, float("inf"), False),
        (now, float("nan"), False),
        (now, now - 1, False),
    ):
        cache.store("i", Access(None, None, None, asked, until))
        assert (cache.load("i") is not None) is is_used


def test_a_home_that_is_not_there_gets_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == str(tmp_path / ".cache" / "wstunnel-py" / "sandboxes")
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    assert cache_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == str(tmp_path / "cache" / "wstunnel-py" / "sandboxes")
