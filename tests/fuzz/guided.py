"""One target under atheris, which looks for inputs that reach new code. It ends with status 0 if it finds no fault.

python -m tests.fuzz.guided NAME FOLDER SECONDS

FOLDER is where atheris keeps inputs that reach something new; a fault is written to FOLDER/fault-….
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.fuzz import corpus_files, mutation


def main(name: str, folder: Path, seconds: int) -> None:
    atheris: Any = importlib.import_module("atheris")  # there are no types for it, and not a wheel for every platform
    inputs = folder / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(folder)  # as atheris ends the process without any clean-up
    with atheris.instrument_imports(include=["tunnel"]):
        from tests.fuzz.targets import load

        target = load(name)
    for entry, data in corpus_files.read(name).items():
        (inputs / entry).write_bytes(data)
    tokens = folder / "tokens"
    tokens.write_text("".join(f'"{_escaped(token)}"\n' for token in target.tokens))
    options = [f"-max_total_time={seconds}", f"-max_len={mutation.SIZE_LIMIT}", "-timeout=10", "-print_final_stats=1"]
    atheris.Setup(
        [sys.argv[0], *options, f"-dict={tokens}", f"-artifact_prefix={folder}/fault-", str(inputs)],
        lambda data: mutation.run(target, data),
    )
    atheris.Fuzz()


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
