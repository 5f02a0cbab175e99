"""The next step behind the errors of ``connect``, as a user reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.bed.tunnels import OURS, start_bridge
from tests.client.conftest import answer, wait_for_end
from tests.conftest import StartBridge

NO_NAME = {"WSTUNNEL_PY_CONFIG": "/dev/null"}
TRAFFIC = (
    "a private sandbox requires its traffic token: E2B_API_KEY and the sandbox's ID as HOST fetch it, "
    "or -H 'e2b-traffic-access-token: …', or headers in this host's table in "
)


def step(bed: Bed, *words: str, **environ: str) -> str:
    """What follows the error itself in the printed line."""
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
    template = {"WSTUNNEL_PY_URL": guarded}
    assert step(bed, "box", **template) == "the bridge requires a token: --token-file or WSTUNNEL_PY_TOKEN"
    sent = step(bed, "-H", "X-Key: hunter2", "box", **template)
    assert sent == (
        "it received the header X-Key (--header); the bridge requires a token: --token-file or WSTUNNEL_PY_TOKEN"
    )


def test_a_literal_url_is_told_only_of_what_is_sent_to_it(bed: Bed, guarded: str, tmp_path: Path) -> None:
    assert step(bed, guarded) == "the bridge requires a token: --token-file FILE"
    assert step(bed, "--url", guarded, "box") == "the bridge requires a token: --token-file FILE"
    config = secret(tmp_path / "config.toml", f'[hosts.box]\nurl = "{guarded}"\n')
    assert step(bed, "--config", config, "box") == "the bridge requires a token: --token-file FILE"


def test_an_error_about_a_wrong_token_says_where_the_token_is_from(bed: Bed, guarded: str, tmp_path: Path) -> None:
    file = secret(tmp_path / "ours", "hunter2")
    config = secret(tmp_path / "config.toml", f'[hosts.box]\nurl = "{guarded}"\ntoken-file = "ours"\n')
    template = {"WSTUNNEL_PY_URL": guarded}
    assert step(bed, "--token-file", file, guarded) == f"it received the token in {file} (--token-file)"
    assert step(bed, "box", WSTUNNEL_PY_TOKEN="hunter2", **template) == "it received the token from WSTUNNEL_PY_TOKEN"
    said = step(bed, "box", WSTUNNEL_PY_TOKEN_FILE=file, **template)
    assert said == f"it received the token in {file} (WSTUNNEL_PY_TOKEN_FILE)"
    said = step(bed, "--config", config, "box", WSTUNNEL_PY_TOKEN="hunter3")
    assert said == f"it received the token in {file} ({config}: hosts.box: token-file)"


def test_a_token_that_is_kept_from_a_literal_url_is_reported(bed: Bed, guarded: str) -> None:
    said = step(bed, guarded, WSTUNNEL_PY_TOKEN="hunter2")
    assert said.startswith(
        "credentials from the environment or the config file's top level (token) are not sent to a literal URL; "
    )
    assert "give them with --token-file, or in this host's table in " in said
    said = step(bed, "-H", "X: y", guarded, WSTUNNEL_PY_TOKEN="hunter2", WSTUNNEL_PY_CLIENT_CERT="/none")
    assert said == "it received the header X (--header); the bridge requires a token: --token-file FILE"


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_an_edge_that_refuses_may_want_the_traffic_token(bed: Bed, tmp_path: Path, status: str) -> None:
    with Target(answer(f"HTTP/1.1 {status}", "Content-Length: 0", then=wait_for_end)) as target:
        url = f"ws://127.0.0.1:{target.port}"
        config = secret(
            tmp_path / "c", f'[hosts.box]\nurl = "{url}"\nheaders = {{ e2b-traffic-access-token = "hunter2" }}\n'
        )
        bare, shown = step(bed, url), step(bed, "--config", config, "box")
    assert bare.startswith(TRAFFIC) and ("--token-file" in bare) == (status[:3] == "401")
    assert shown.startswith(f"it received the header e2b-traffic-access-token ({config}: hosts.box: headers)")
    assert TRAFFIC not in shown


def test_a_name_that_nobody_knows_came_from_the_default_template(bed: Bed) -> None:
    said = step(bed, "no-such-sandbox-xyz", **NO_NAME)
    assert said == (
        "'no-such-sandbox-xyz' was put into the default URL, wss://{port}-{host}.e2b.app: see --url; "
        "for details: wstunnel-py doctor no-such-sandbox-xyz"
    )
    said = step(bed, "--url", "wss://{host}.invalid", "box")
    assert said == "for details: wstunnel-py doctor box, with the same options"


def test_a_url_without_a_port_says_which_one_was_tried(bed: Bed) -> None:
    said = step(bed, "ws://127.0.0.1")
    assert said.startswith("the URL has no port, so 80 was tried; serve listens on 8081 by default; for details: ")
    assert step(bed, "--url", "ws://127.0.0.1/x", "box").startswith("the URL has no port, so 80 was tried; ")
    assert step(bed, "ws://127.0.0.1:80").startswith("for details: ")


def test_a_target_that_is_down_is_to_be_started(bed: Bed) -> None:
    said = step(bed, start_bridge(bed, "ours", 1).url)
    assert said == "start the SSH server there, or give the bridge another target: serve --target"


def test_a_misspelt_host_of_the_config_file_is_suggested(bed: Bed, tmp_path: Path) -> None:
    config = secret(tmp_path / "config.toml", '[hosts.build]\nurl = "ws://127.0.0.1:1"\n')
    said = step(bed, "--config", config, "buidl")
    template = "wss://{port}-{host}.e2b.app"
    default = f"'buidl' was put into the default URL, {template}, as it is not in {config}: see --url"
    assert said.startswith(f"did you mean build, a host of {config}?; {default}; for details: ")
    said = step(bed, "--config", config, "--url", "ws://{host}.invalid", "buidl")
    assert said.startswith(f"did you mean build, a host of {config}?; for details: ")
    assert "did you mean" not in step(bed, "--config", config, "no-such-sandbox-xyz")


def test_a_secret_in_the_query_is_not_repeated_for_the_doctor(bed: Bed) -> None:
    assert step(bed, "ws://127.0.0.1:1/x?key=hunter2") == "for details: wstunnel-py doctor 'ws://127.0.0.1:1/x?…'"


def test_quiet_wants_no_hints(bed: Bed, guarded: str) -> None:
    assert step(bed, "-q", guarded) == ""
