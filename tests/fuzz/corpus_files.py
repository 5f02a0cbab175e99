"""The corpus: files as text where that can be read, else as hexadecimal digits (``.hex``) with comments behind a #."""

from __future__ import annotations

from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def read(name: str) -> dict[str, bytes]:
    """Return the inputs of a target by their names."""
    return {path.stem: _content(path) for path in sorted((CORPUS / name).iterdir())}


def _content(path: Path) -> bytes:
    if path.suffix != ".hex":
        return path.read_bytes()
    return bytes.fromhex("".join(line.partition("#")[0] for line in path.read_text().splitlines()))
