"""The next step behind the errors of ``connect``, as a user reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.bed.tunnels import OURS
from tests.client.conftest import answer, wait_for_end
from tests.conftest import StartBridge

NO_NAME = {"WSTUNNEL_PY_CONFIG": "/dev/null"}
TRAFFIC = "a private sandbox wants its traffic token: -H 'e2b-traffic-access-token: …', or headers in "


def step(bed: Bed, *words: str, **environ: str) -> str:
    """What follows the error itself in the one line that is told."""
    finished = bed.run(*OURS, "connect", *words, env=environ)
    assert finished.status and finished.stderr.count("\n") == 1
    assert "hunter" not in finished.stderr
    return finished.stderr.strip().partition("; ")[2]


@pytest.fixture
def guarded(start: StartBridge, tmp_path: Path) -> str:
    """The URL of a bridge that wants a token."""
    secret(tmp_path / "theirs", "open-sesame")
    return start("--token-file", str(tmp_path / "theirs")).url


def secret(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_a_bridge_that_wants_a_token_names_where_it_may_come_from(bed: Bed, guarded: str) -> None:
    assert step(bed, guarded) == "the bridge wants a token: --token-file, or WSTUNNEL_PY_TOKEN"
    sent = step(bed, "-H", "X-Key: hunter2", guarded)
    assert sent == (
        "it was sent the header X-Key (--header); the bridge wants a token: --token-file, or WSTUNNEL_PY_TOKEN"
    )


def test_a_token_that_is_wrong_is_told_by_where_it_is_from(bed: Bed, guarded: str, tmp_path: Path) -> None:
    file = secret(tmp_path / "ours", "hunter2")
    config = secret(tmp_path / "config.toml", f'[hosts.box]\nurl = "{guarded}"\ntoken-file = "ours"\n')
    template = {"WSTUNNEL_PY_URL": guarded}
    assert step(bed, "--token-file", file, guarded) == f"it was sent the token in {file} (--token-file)"
    assert step(bed, "box", WSTUNNEL_PY_TOKEN="hunter2", **template) == "it was sent the token of WSTUNNEL_PY_TOKEN"
    said = step(bed, "box", WSTUNNEL_PY_TOKEN_FILE=file, **template)
    assert said == f"it was sent the token in {file} (WSTUNNEL_PY_TOKEN_FILE)"
    said = step(bed, "--config", config, "box", WSTUNNEL_PY_TOKEN="hunter3")
    assert said == f"it was sent the token in {file} ({config}: hosts.box: token-file)"


def test_a_token_that_is_kept_from_a_literal_url_is_told_of(bed: Bed, guarded: str) -> None:
    said = step(bed, guarded, WSTUNNEL_PY_TOKEN="hunter2")
    assert said.startswith("credentials of the environment and of all hosts (token) are not sent to a URL that is")
    assert "give them on the command line, or in a table for this host in " in said


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_an_edge_that_refuses_may_want_the_traffic_token(bed: Bed, tmp_path: Path, status: str) -> None:
    with Target(answer(f"HTTP/1.1 {status}", "Content-Length: 0", then=wait_for_end)) as target:
        url = f"ws://127.0.0.1:{target.port}"
        config = secret(
            tmp_path / "c", f'[hosts.box]\nurl = "{url}"\nheaders = {{ e2b-traffic-access-token = "hunter2" }}\n'
        )
        bare, shown = step(bed, url), step(bed, "--config", config, "box")
    assert bare.startswith(TRAFFIC) and ("--token-file" in bare) == (status[:3] == "401")
    assert shown.startswith(f"it was sent the header e2b-traffic-access-token ({config}: hosts.box: headers)")
    assert TRAFFIC not in shown


def test_a_name_that_nobody_knows_came_from_the_default_template(bed: Bed) -> None:
    said = step(bed, "no-such-sandbox-xyz", **NO_NAME)
    assert said == (
        "'no-such-sandbox-xyz' went into the default URL, wss://{port}-{host}.e2b.app: see --url; "
        "wstunnel-py doctor no-such-sandbox-xyz tells more"
    )
    said = step(bed, "--url", "wss://{host}.invalid", "box")
    assert said == "wstunnel-py doctor box with the same options tells more"


def test_a_secret_in_the_query_is_not_repeated_for_the_doctor(bed: Bed) -> None:
    assert step(bed, "ws://127.0.0.1:1/x?key=hunter2") == "wstunnel-py doctor 'ws://127.0.0.1:1/x?…' tells more"


def test_quiet_wants_no_hints(bed: Bed, guarded: str) -> None:
    assert step(bed, "-q", guarded) == ""
