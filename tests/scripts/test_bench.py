"""scripts/bench: how it reports samples, what it leaves out, and that it measures."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchlib.goals import Goal, goals
from benchlib.lab import BenchError
from benchlib.machine import noise
from benchlib.page import END, PAGE, README, beginning, record, replaced
from benchlib.peers import PEERS, RIVALS, missing
from benchlib.plot import svg
from benchlib.quantities import QUANTITIES, ROWS
from benchlib.report import NOISE, TIMES, closing, ratio_shown, table
from benchlib.results import Results
from benchlib.scale import DESCRIPTORS, allow_descriptors
from tests.bed.earlier import ROOT
from tests.bed.processes import Bed, running

BENCH = (sys.executable, str(ROOT / "scripts" / "bench"))


def results(**samples: dict[str, list[float]]) -> Results:
    return Results({key.replace("_", "-"): found for key, found in samples.items()})


DOWNLOADS = results(
    ssh_download={"direct": [1.0, 1.02, 0.98], "ours": [1.05, 1.06, 1.07], "websocat": [1.01, 1.0, 1.03]}
)


def test_a_difference_that_the_rounds_themselves_show_is_marked_as_noise() -> None:
    row = ROWS["ssh-download"]
    assert ratio_shown(DOWNLOADS, row, "websocat") == f"{NOISE}1.01{TIMES}"
    assert ratio_shown(DOWNLOADS, row, "ours") == f"1.06{TIMES}"


def test_a_single_round_shows_no_difference() -> None:
    single = results(ssh_download={"direct": [1.0], "ours": [2.0]})
    assert ratio_shown(single, ROWS["ssh-download"], "ours") == f"{NOISE}2.00{TIMES}"


def test_a_rate_is_worse_when_it_is_smaller() -> None:
    rates = results(raw_download={"direct": [4e9], "ours": [1e9]})
    assert rates.ratio(ROWS["raw-download"], "ours", "direct") == 4


def test_a_goal_is_met_by_its_value_or_where_nobody_can_tell_the_difference() -> None:
    found = {goal.says: goal for goal in goals(DOWNLOADS, tls=False)}
    assert found["ssh download, ours to direct"].met and found["ssh download, ours to direct"].limit == 1.08
    assert not Goal("x", 1.2, 1.0).met
    assert Goal("x", 1.01, 1.0, in_noise=True).met
    assert Goal("x", 3000, 2500, at_least=True).met


def test_goals_over_tls_compare_with_the_best_peer_of_the_run() -> None:
    uploads = results(ssh_upload={"ours": [0.8] * 3, "wstunnel": [1.0] * 3, "websocat": [1.2] * 3})
    (goal,) = goals(uploads, tls=True)
    assert goal.says == "ssh upload, ours to wstunnel" and goal.met and goal.limit == 0.9


@pytest.mark.parametrize(
    ("load", "stolen", "says"), [("0.10", 0.0, "quiet"), ("3.00", 0.0, "noisy"), ("0.10", 0.2, "noisy")]
)
def test_the_machine_is_called_noisy_for_its_load_and_for_what_its_host_takes(
    load: str, stolen: float, says: str
) -> None:
    assert noise(DOWNLOADS, stolen, f"{load} 1 1").startswith(says)


def test_rounds_that_spread_make_a_noisy_machine() -> None:
    assert noise(results(ssh_download={"direct": [1.0, 2.0, 3.0]}), 0.0, "0.1 0 0").startswith("noisy")


def test_a_peer_that_is_not_on_the_path_is_named_as_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert set(RIVALS) <= set(missing(PEERS.values()))
    (tmp_path / "chisel").touch(mode=0o755)
    assert "chisel" not in missing(PEERS.values())


def test_a_plot_is_well_formed_and_has_a_bar_for_each_peer() -> None:
    picture = ElementTree.fromstring(svg(DOWNLOADS, ["direct", "ours", "websocat"]))
    assert len(picture.findall("{*}rect")) == 1 + 3


def test_a_plot_shows_a_service_for_terminals_once() -> None:
    echoes = results(pty_echo={"ours": [1.0], "envd": [2.0]})
    for peers in (["direct", "ours"], ["direct", "ours", "envd"]):
        picture = ElementTree.fromstring(svg(echoes, peers))
        assert len(picture.findall("{*}rect")) == 1 + 2


def test_every_row_can_be_reported_with_all_peers() -> None:
    everything = Results({row.key: {name: [1.0, 2.0] for name in PEERS} for row in QUANTITIES})
    lines = table(everything, list(PEERS), spread=True)
    assert len(lines) == 2 + len(QUANTITIES)
    assert {line.count("|") for line in lines} == {len(PEERS) + 2}
    assert goals(everything, tls=False) and goals(everything, tls=True)


def test_figures_go_between_their_marks_only() -> None:
    page = f"a\n{beginning('')}\nold\n{END}\nb\n{beginning(' --tls')}\nkeep\n{END}\n"
    changed = replaced(page, beginning(""), ["", "new", ""])
    assert changed == page.replace("old", "\nnew\n")
    assert replaced("no place", beginning(""), ["new"]) is None


@pytest.mark.parametrize("tls", [False, True])
def test_the_page_shows_what_the_script_says_of_its_last_run(tls: bool, bed: Bed) -> None:
    recorded = record(tls=tls)
    said = bed.check(*BENCH, "--from", str(recorded)).text if recorded.exists() else ""
    pages = [PAGE] if tls else [PAGE, README]
    shown = [path.read_text().partition(beginning(" --tls" * tls))[2].partition(END)[0].strip() for path in pages]
    assert bool(shown[0]) is recorded.exists()
    assert all(figures in said for figures in shown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"machine": 1, "peers": [], "samples": {}, "failures": []}',
        '{"machine": {}, "peers": ["another"], "samples": {"startup": {"another": [1]}}, "failures": []}',
        '{"machine": {}, "peers": ["direct"], "samples": {"startup": {"direct": ["1"]}}, "failures": []}',
    ],
)
def test_a_file_that_holds_no_run_is_refused_in_one_line(text: str, bed: Bed, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(text)
    finished = bed.run(*BENCH, "--from", str(other))
    assert finished.status == 2
    assert re.fullmatch(r"bench: --from .*other\.json: not a run that --json has written \(.*\)\n", finished.stderr)


def test_a_recording_that_cannot_be_read_is_named_in_one_line(bed: Bed, tmp_path: Path) -> None:
    finished = bed.run(*BENCH, "--from", str(tmp_path))
    assert finished.status == 2 and finished.stderr == f"bench: --from: [Errno 21] Is a directory: '{tmp_path}'\n"


@pytest.mark.parametrize("option", ["--json", "--plot"])
@pytest.mark.parametrize(("name", "says"), [("", "Is a directory"), ("none/run", "No such file or directory")])
def test_a_file_that_cannot_be_written_is_refused_before_the_run(
    option: str, name: str, says: str, bed: Bed, tmp_path: Path
) -> None:
    finished = bed.run(*BENCH, option, str(tmp_path / name))
    assert finished.status == 2 and finished.stderr.endswith(f"error: {option} {tmp_path / name}: {says}\n")
    assert not finished.stdout


def test_a_disk_that_is_full_after_the_run_is_reported_in_one_line_below_the_figures(bed: Bed) -> None:
    finished = bed.run(*BENCH, "--from", str(record(tls=False)), "--json", "/dev/full")
    assert finished.status == 1 and "In short:" in finished.text
    assert finished.stderr == "bench: cannot write the figures: [Errno 28] No space left on device\n"


def test_a_missing_ssh_is_named_in_one_line(bed: Bed, tmp_path: Path) -> None:
    finished = bed.run(*BENCH, "--only", "startup", env={"PATH": str(tmp_path)})
    assert finished.status == 1 and finished.stderr == "bench: ssh is missing: scripts/test installs it\n"


def test_a_folder_without_space_is_named_in_one_line(bed: Bed, tmp_path: Path) -> None:
    command = ("sh", "-c", 'ulimit -f 20; exec "$@"', "sh", *BENCH, "--only", "startup")
    finished = bed.run(*command, env={"TMPDIR": str(tmp_path)})
    folder = re.escape(str(tmp_path))
    assert finished.status == 1
    assert re.fullmatch(
        rf"bench: cannot install this checkout in {folder}/bench-\w+ \(set TMPDIR\): \[Errno 27\] File too large.*\n",
        finished.stderr,
    )
    assert not list(tmp_path.glob("bench-*"))


def test_only_as_many_descriptors_are_asked_for_as_the_run_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = (1024, 4096)

    def setrlimit(_: int, new: tuple[int, int]) -> None:
        nonlocal limits
        if new[1] > limits[1]:
            raise ValueError("not allowed to raise maximum limit")
        limits = new

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    with pytest.raises(BenchError, match="ulimit -Hn is 4096; 9000 tunnels need 19000"):
        allow_descriptors(9000)
    allow_descriptors(100)
    assert limits == (4096, 4096)
    limits = (1024, 1 << 20)
    allow_descriptors(100)
    assert limits == (DESCRIPTORS, 1 << 20)


@pytest.mark.timeout(400)
def test_a_run_that_is_interrupted_leaves_nothing(bed: Bed, tmp_path: Path) -> None:
    folder, recorded = tmp_path / "folder", tmp_path / "run.json"
    folder.mkdir()
    options = f"--only latency --peer ours --rounds 1000 --json {recorded}".split()
    bench = bed.start(*BENCH, *options, env={"TMPDIR": str(folder)})
    bench.wait_for_line("latency: 1000 rounds", 200)
    (laboratory,) = folder.iterdir()
    started = running(str(laboratory / "installed" / "bin" / "python3"))
    bench.send_signal(signal.SIGINT)
    assert bench.wait(60) == 128 + signal.SIGINT
    assert started and not running(str(laboratory / "installed" / "bin" / "python3"))
    assert not list(folder.iterdir()) and not recorded.exists()


@pytest.mark.timeout(400)
def test_what_fails_for_a_peer_is_a_failure_of_the_run_which_is_recorded(bed: Bed, tmp_path: Path) -> None:
    recorded = tmp_path / "run.json"
    options = f"--only sftp-download --peer direct --rounds 1 --size 1000 --json {recorded}".split()
    finished = bed.run("sh", "-c", 'ulimit -f 100000; exec "$@"', "sh", *BENCH, *options, seconds=200)
    assert finished.status == 1 and not finished.stderr
    (failure,) = json.loads(recorded.read_text())["failures"]
    assert failure.startswith("sftp-download, direct: [Errno 27] File too large")


@pytest.mark.timeout(400)
def test_a_run_that_measures_nothing_says_so(bed: Bed, tmp_path: Path) -> None:
    recorded = tmp_path / "run.json"
    finished = bed.run(*BENCH, *f"--only memory --peer nc --rounds 1 --json {recorded}".split(), seconds=200)
    assert finished.status == 1 and "left out: memory, because it fits none of direct" in finished.text
    assert finished.stderr == "bench: nothing was measured: choose another --only or --peer\n"
    assert not recorded.exists()


@pytest.mark.timeout(400)
def test_a_short_run_measures_all_that_it_is_asked_for_and_leaves_nothing(bed: Bed, tmp_path: Path) -> None:
    recorded, plot = tmp_path / "run.json", tmp_path / "run.svg"
    asked = ("ssh-download", "raw-upload", "request", "latency", "memory")
    run = bed.check(
        *BENCH,
        *("--rounds", "1", "--size", "1", "--tunnels", "20", "--peer", "ours", "--peer", "chisel"),
        *(word for name in asked for word in ("--only", name)),
        *("--json", str(recorded), "--plot", str(plot)),
        env={"PATH": os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if not has_chisel(part))},
        seconds=350,
    )
    assert "left out: chisel, because there is no chisel on the PATH" in run.text
    told = json.loads(recorded.read_text())
    assert told["failures"] == [] and told["peers"] == ["direct", "ours"]
    rows = {"ssh-download", "up-cpu", "request", "rtt-p99", "idle-bridge", "open-rate"}
    assert rows <= {key for key, found in told["samples"].items() if found["ours"]}
    assert "the machine was" in told["machine"]
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")
    assert closing(Results(told["samples"]), told["peers"], told["machine"])[0] in run.text


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("only", "rows"),
    [
        ("keystrokes", ("key-alone", "key-crowded", "key-ratio")),
        pytest.param("fairness", ("fair-down", "fair-up", "busy-down", "busy-up"), marks=pytest.mark.full),
    ],
)
def test_keystrokes_and_fairness_are_measured(only: str, rows: tuple[str, ...], bed: Bed, tmp_path: Path) -> None:
    recorded = tmp_path / "run.json"
    bed.check(*BENCH, *f"--rounds 1 --peer ours-plain --only {only} --json {recorded}".split(), seconds=350)
    samples = json.loads(recorded.read_text())["samples"]
    for row in rows:
        assert len(samples[row]["direct"]) == len(samples[row]["ours-plain"]) == 1


def has_chisel(folder: str) -> bool:
    return Path(folder, "chisel").exists()
