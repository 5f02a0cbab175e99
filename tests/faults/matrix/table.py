"""What docs/reliability.md says in its tables: what a user sees of each fault, at each stage, for each kind of tunnel.

A cell is an outcome: `GOES_ON`, `KILLED`, or a code of `tunnel.errors.CODES` with its exit code. If the
combination is left out, the cell is the mark of a reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.faults.matrix.scene import STAGES
from tunnel.errors import CODES

HEADINGS = {"plain": "Plain tunnels", "resumable": "Sessions", "TLS": "Sessions over TLS"}
KINDS = tuple(HEADINGS)
GOES_ON, KILLED = "continues", "killed"
_NOT_YET = "(a)"
_NOT_PLAIN = "(b)"
_NOT_REPEATED = "(c)"
_LITTLE = "(d)"
_SAME = "(e)"
REASONS = {
    _NOT_YET: "The fault needs something that does not exist yet at this stage: a session, output or a target.",
    _NOT_PLAIN: "A plain tunnel has only one connection; a second one is another tunnel.",
    _NOT_REPEATED: "Nobody else can read the request, so nobody can repeat it.",
    _LITTLE: "The tunnel needs little memory at this stage, and only for a moment.",
    _SAME: "The same as at dial: modules that the client loads while the bridge answers also need a descriptor.",
}


@dataclass(frozen=True)
class Row:
    """A fault: what it is, the cells of each kind by stage, what limits it, and what is left behind when it is over.

    ``slow`` are the stages whose run takes long, and so belongs to the long form.
    """

    what: str
    limit: str
    left: str
    cells: dict[str, tuple[str, str, str, str, str]]
    slow: tuple[str, ...] = ()


def _all(*cells: str) -> dict[str, tuple[str, str, str, str, str]]:
    return {kind: _five(cells) for kind in KINDS}


def _kinds(plain: tuple[str, ...], resumable: tuple[str, ...], tls: tuple[str, ...] = ()) -> dict[
    str, tuple[str, str, str, str, str]
]:  # fmt: skip
    return {"plain": _five(plain), "resumable": _five(resumable), "TLS": _five(tls or resumable)}


def _five(cells: tuple[str, ...]) -> tuple[str, str, str, str, str]:
    dial, handshake, banner, bulk, end = map(_spelled, cells)
    return dial, handshake, banner, bulk, end


def _spelled(cell: str) -> str:
    """Return a cell with the exit code in front of each code."""
    parts = [f"{CODES[part][0]} {part}" if part in CODES else part for part in cell.split(" or ")]
    return " or ".join(parts)


_ON = (GOES_ON, GOES_ON, GOES_ON)
_LOST = ("lost", "lost", "lost")
_PING = "`--ping-interval` plus `--ping-timeout`; 13 s in a session that is sending"
_DIALLING = "`--connect-timeout`"
NOTHING = "nothing"

ROWS: dict[str, Row] = {
    "cut": Row(
        "client and bridge receive a RST", "at once; `--reconnect-for`", NOTHING,
        _kinds(("tcp-refused", "hung-up", *_LOST), ("tcp-refused", "hung-up", *_ON)),
    ),
    "FIN": Row(
        "client and bridge receive a FIN", "at once; `--reconnect-for`", NOTHING,
        _kinds(("hung-up", "not-http", *_LOST), ("hung-up", "not-http", *_ON), ("hung-up", "hung-up", *_ON)),
    ),
    "RST": Row(
        "the client receives a RST, the bridge nothing", f"client: at once; bridge: {_PING}", NOTHING,
        _kinds(("tcp-refused", "hung-up", *_LOST), ("tcp-refused", "hung-up", *_ON)),
    ),
    "half-close": Row(
        "the bridge receives a FIN, the client nothing", f"{_DIALLING}; later {_PING}; at the end 60 s", NOTHING,
        _kinds(
            ("answer-timeout", "answer-timeout", "silent", "silent", "silent"),
            ("answer-timeout", "answer-timeout", *_ON),
        ),
        slow=("end",),
    ),
    "stall": Row(
        "all packets are lost from now on", f"{_DIALLING}; later {_PING}; at the end 60 s", NOTHING,
        _kinds(
            ("tcp-timeout", "answer-timeout", "silent", "silent", "silent"), ("tcp-timeout", "answer-timeout", *_ON)
        ),
        slow=("end",),
    ),
    "delay": Row("no packet arrives for a while", f"{_DIALLING}; later {_PING}", NOTHING, _all(GOES_ON, GOES_ON, *_ON)),
    "duplicate": Row(
        "someone repeats the request that resumed the session", "at once: status 409", NOTHING,
        _kinds((_NOT_PLAIN,) * 5, (_NOT_YET, _NOT_YET, *_ON), (_NOT_REPEATED,) * 5),
    ),
    "slow reader": Row(
        "nobody reads the client's output for a while", "15 min without any progress", NOTHING,
        _all(_NOT_YET, _NOT_YET, *_ON),
    ),
    "full disk": Row(
        "the client cannot write its log (`--log-file`; at dial and handshake) or its output (later)",
        "at once", NOTHING,
        _all(GOES_ON, GOES_ON, "output", "output", "output"),
    ),
    "EMFILE, client": Row(
        "the client can open no more files, and its connection is cut", "`--reconnect-for`", NOTHING,
        _all("resources", _SAME, *_ON),
    ),
    "EMFILE, bridge": Row(
        "the bridge can open no more files; at the handshake, it can open one more", _DIALLING, NOTHING,
        _all("answer-timeout", "overloaded", *_ON),
    ),
    "ENOMEM, client": Row(
        "the client gets no more memory while much data is unacknowledged", "at once", NOTHING,
        _kinds(
            (_LITTLE, _LITTLE, _LITTLE, GOES_ON, _LITTLE), (_LITTLE, _LITTLE, _LITTLE, f"{GOES_ON} or memory", _LITTLE)
        ),
    ),
    "ENOMEM, bridge": Row(
        "the bridge gets no more memory while much data is unacknowledged",
        "it pauses reading until data is acknowledged", NOTHING,
        _all(_LITTLE, _LITTLE, _LITTLE, GOES_ON, _LITTLE),
    ),
    "silent target": Row(
        "the target accepts no connection (handshake), sends nothing for a while, or sends nothing more (end)",
        "`--dial-timeout`; at the end 15 min; otherwise none, because ssh has its own", NOTHING,
        _all(_NOT_YET, "not-ready", GOES_ON, GOES_ON, "time-limit"),
        slow=("end",),
    ),
    "hanging DNS": Row(
        "a DNS lookup hangs: for the bridge (dial, and later when the client reconnects) or the target (handshake)",
        f"{_DIALLING}; `--dial-timeout`; `--reconnect-for`", NOTHING,
        _kinds(("answer-timeout", "not-ready", *_LOST), ("answer-timeout", "not-ready", *_ON)),
    ),
    "clock jump": Row(
        "the wall clocks of both ends jump ahead by a year and back",
        "none: no limit depends on the wall clock", NOTHING,
        _all(GOES_ON, GOES_ON, *_ON),
    ),
    "SIGSTOP, client": Row("the client is stopped for a while", _PING, NOTHING, _all(GOES_ON, GOES_ON, *_ON)),
    "SIGSTOP, bridge": Row(
        "the bridge is stopped for a while", f"{_DIALLING}; later {_PING}", NOTHING, _all(GOES_ON, GOES_ON, *_ON)
    ),
    "SIGKILL, client": Row(
        "the client is killed", "at once", "the session, for `--resume-for`; then the target receives a RST",
        _all(KILLED, KILLED, KILLED, KILLED, KILLED),
    ),
    "SIGKILL, bridge": Row(
        "the bridge is killed", "at once; `--reconnect-for`", NOTHING,
        _kinds(("tcp-refused", "hung-up", *_LOST), ("tcp-refused", "hung-up", "given-up", "given-up", "given-up")),
    ),
    "SIGKILL, target": Row(
        "the target refuses the connection (handshake) or breaks it (later)", "at once", NOTHING,
        _all(_NOT_YET, "bad-gateway", *(("target-lost or undelivered",) * 3)),
    ),
}  # fmt: skip


def cells() -> Iterator[tuple[str, str, str, str]]:
    """Yield fault, kind, stage and outcome of each cell that is not left out."""
    for fault, row in ROWS.items():
        for kind in KINDS:
            for stage, cell in zip(STAGES, row.cells[kind], strict=True):
                if cell not in REASONS:
                    yield fault, kind, stage, cell


def rendered() -> str:
    """Return the tables as the page has them."""
    lines = ["| fault | what happens | time limit | left behind |", "|---|---|---|---|"]
    lines += [f"| {fault} | {row.what} | {row.limit} | {row.left} |" for fault, row in ROWS.items()]
    for kind in KINDS:
        lines += ["", f"### {HEADINGS[kind]}", "", f"| fault | {' | '.join(STAGES)} |", "|---" * 6 + "|"]
        lines += [f"| {fault} | {' | '.join(row.cells[kind])} |" for fault, row in ROWS.items()]
    lines += ["", "Combinations that are left out:", ""]
    lines += [f"- {mark} {reason}" for mark, reason in REASONS.items()]
    used = sorted({part.split()[1] for *_, cell in cells() for part in cell.split(" or ") if part[0].isdigit()})
    lines += ["", "Each message is one line on standard error that begins with `wstunnel-py: `. Words in braces are"]
    lines += ["filled in.", ""]
    lines += ["| exit code | name | text |", "|---|---|---|"]
    lines += [f"| {CODES[code][0]} | {code} | {CODES[code][1].replace(':g}', '}')} |" for code in used]
    return "\n".join(lines)
