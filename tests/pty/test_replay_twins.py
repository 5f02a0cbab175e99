"""The browser's filter of replays does what the one of ``shell`` does."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

from tests.bed.earlier import ROOT
from tests.bed.processes import Bed, program
from tests.pty.replayed import FRAGMENTS
from tunnel.pty.client.replay import Replay

SCRIPT = """
const { Replay } = await import(process.argv[2]);
const { readFileSync } = await import("node:fs");
const results = JSON.parse(readFileSync(process.argv[3], "utf8")).map(({ size, restore, pieces }) => {
  const replay = new Replay(size);
  const out = [];
  let over = size === 0;
  const note = (parts) => out.push(...parts.map((each) => Buffer.from(each)));
  if (restore !== null) note(replay.restore(Buffer.from(restore, "latin1")));
  for (const piece of pieces) {
    const data = Buffer.from(piece, "latin1");
    if (over) out.push(data);
    else note(replay.feed(data));
    over = !replay.running;
  }
  return [Buffer.concat(out).toString("latin1"), replay.alternate];
});
process.stdout.write(JSON.stringify(results));
"""
Case = dict[str, object]


def a_case(chance: random.Random) -> Case:
    long = (
        b"\x1bPq" + b"x" * 5000,
        b"\x1b]52;c;" + b"QUJD" * 2000,
        b"\x1b]0;" + "é⚛".encode() * 2000,
        b"\x1b[" + b"1" * 5000,
    )
    fragments = (*FRAGMENTS, *long) if chance.random() < 0.2 else FRAGMENTS
    output = b"".join(chance.choices(fragments, k=chance.randint(1, 14)))
    cuts = sorted(chance.randint(0, len(output)) for _ in range(chance.randint(0, 6)))
    pieces = [output[start:end] for start, end in zip([0, *cuts], [*cuts, len(output)], strict=True)]
    return {
        "size": chance.randint(0, len(output)),
        "restore": chance.choice(FRAGMENTS).decode("latin-1") if chance.random() < 0.3 else None,
        "pieces": [piece.decode("latin-1") for piece in pieces],
    }


def in_python(case: Case) -> list[object]:
    size, restore, pieces = case["size"], case["restore"], case["pieces"]
    assert isinstance(size, int) and isinstance(pieces, list)
    replay, out = Replay(size), b""
    if isinstance(restore, str):
        out += replay.restore(restore.encode("latin-1"))
    for piece in pieces:
        out += replay.feed(piece.encode("latin-1"))
    return [out.decode("latin-1"), replay.alternate]


def test_the_filters_of_shell_and_page_show_the_same(bed: Bed) -> None:
    chance = random.Random(20)
    cases = [a_case(chance) for _ in range(4000)]
    (bed.folder / "cases.json").write_text(json.dumps(cases))
    script = bed.folder / "run.mjs"
    script.write_text(SCRIPT)
    module = ROOT / "tunnel" / "pty" / "web" / "replay.js"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "replay.mjs"  # Node.js tells modules by their names
        copy.write_bytes(module.read_bytes())
        done = bed.check(program("node"), str(script), str(copy), str(bed.folder / "cases.json"))
    found = json.loads(done.text)
    assert len(found) == len(cases)
    assert [(case, one) for case, one in zip(cases, found, strict=True) if one != in_python(case)][:3] == []
