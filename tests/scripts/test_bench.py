"""scripts/bench: how it reports samples, what it leaves out, and that it measures."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchlib.goals import Goal, goals
from benchlib.machine import noise
from benchlib.page import END, PAGE, README, beginning, record, replaced
from benchlib.peers import PEERS, RIVALS, missing
from benchlib.plot import svg
from benchlib.quantities import QUANTITIES, ROWS
from benchlib.report import NOISE, TIMES, closing, ratio_shown, table
from benchlib.results import Results
from tests.bed.earlier import ROOT
from tests.bed.processes import Bed

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


def test_a_file_that_holds_no_run_is_refused_in_one_line(bed: Bed, tmp_path: Path) -> None:
    empty = tmp_path / "empty.json"
    empty.write_text("{}")
    finished = bed.run(*BENCH, "--from", str(empty))
    assert finished.status == 2 and re.fullmatch(r"bench: --from .*empty\.json: .*\n", finished.stderr)


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
