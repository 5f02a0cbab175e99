"""The public Autobahn test suite against our bridge and our client, and the table of its results in docs/wire.md.

Its cases are run by `kosoku`: the suite's own program needs Python 2.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import websockets
from kosoku import FailureError, run_fuzzingclient, run_fuzzingserver

from tests.bed.earlier import ROOT
from tests.interop.message_echo import echo_as_client, echoing_bridge

LARGE, COMPRESSION = ("9.*",), ("12.*", "13.*")
ONE_PONG = {"2.10", "2.11"}  # of several pings that wait at once only the last is answered: RFC 6455, section 5.5.3
AT_ONCE = 8
Run = Callable[[Sequence[str] | None, Sequence[str]], "Results"]
Results = dict[str, str]  # case → "OK", "NON-STRICT", "INFORMATIONAL", or what is wrong


def at_the_bridge(cases: Sequence[str] | None, without: Sequence[str]) -> Results:
    async def run(url: str) -> Results:
        try:
            found = await run_fuzzingclient(url, cases=cases, exclude_cases=without, concurrency=AT_ONCE)
        except FailureError as exc:
            found = exc.results
        return results(found)

    with echoing_bridge() as port:
        found = asyncio.run(asyncio.wait_for(run(f"ws://127.0.0.1:{port}"), 100))
    return found


def at_the_client(cases: Sequence[str] | None, without: Sequence[str]) -> Results:
    async def run() -> Results:
        loop = asyncio.get_running_loop()
        async with run_fuzzingserver(cases=cases, exclude_cases=without, port=0) as server:
            url = f"ws://{server.address}:{server.port}"
            async with websockets.connect(f"{url}/getCaseCount", proxy=None) as connection:
                count = int(await connection.recv())
            with ThreadPoolExecutor(AT_ONCE) as pool:
                dialled = [f"{url}/runCase?case={number}&agent=ours" for number in range(1, count + 1)]
                await asyncio.gather(*(loop.run_in_executor(pool, echo_as_client, each) for each in dialled))
            async with websockets.connect(f"{url}/updateReports?agent=ours", proxy=None):
                pass  # which tells the server that all is done
            try:
                found = await server.get_result()
            except FailureError as exc:
                found = exc.results
        return results(found)

    return asyncio.run(asyncio.wait_for(run(), 100))


def results(found: object) -> Results:
    assert isinstance(found, list)
    return {
        case.case_id: case.behavior.value if case.passed else f"{case.behavior.value}, {case.behavior_close.value}"
        for case in found
    }


ROLES = pytest.mark.parametrize("run", [at_the_bridge, at_the_client])


def is_passed(result: str) -> bool:
    return "," not in result


def table() -> dict[str, tuple[int, int]]:
    """What docs/wire.md says: chapter → how many of its cases are passed, of how many."""
    page = (ROOT / "docs" / "wire.md").read_text()
    rows = re.findall(r"^\| ([0-9]+) \|[^|\n]*\| ([0-9]+) of ([0-9]+) \|$", page, re.MULTILINE)
    return {chapter: (int(passed), int(all_cases)) for chapter, passed, all_cases in rows}


def compare_with_the_table(found: Results) -> None:
    cases, passed = Counter[str](), Counter[str]()
    for case, result in found.items():
        chapter = case.partition(".")[0]
        cases[chapter] += 1
        passed[chapter] += is_passed(result)
    said = table()
    assert {chapter: (passed[chapter], cases[chapter]) for chapter in cases} == {
        chapter: said[chapter] for chapter in cases
    }


@ROLES
def test_the_suite_passes_but_for_pings_that_come_together(run: Run) -> None:
    found = run(None, (*LARGE, *COMPRESSION))
    assert {case: result for case, result in found.items() if not is_passed(result)} == dict.fromkeys(
        ONE_PONG, "FAILED, OK"
    )
    compare_with_the_table(found)


# kosoku does not close the files that these two send.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@ROLES
def test_compression_is_not_agreed_to(run: Run) -> None:
    assert run(["12.1.1", "13.7.18"], ()) == dict.fromkeys(["12.1.1", "13.7.18"], "UNIMPLEMENTED, OK")


@pytest.mark.full
@ROLES
def test_large_messages_pass(run: Run) -> None:
    compare_with_the_table(run(LARGE, ()))
