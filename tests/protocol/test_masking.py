"""Masking: the C extension and the pure-Python fallback agree, and the extension is really found."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import websockets
from hypothesis import given
from hypothesis import strategies as st

from tunnel.protocol.masking import apply_mask, load_extension, mask_in_python


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_the_fallback_is_xor_with_the_repeated_key(data: bytes, mask: bytes) -> None:
    assert mask_in_python(data, mask) == bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    assert mask_in_python(mask_in_python(data, mask), mask) == data


@given(st.binary(max_size=3000), st.binary(min_size=4, max_size=4))
def test_the_extension_and_the_fallback_agree(data: bytes, mask: bytes) -> None:
    extension = load_extension()
    assert extension is not None, "websockets was installed without its C extension"
    assert extension(memoryview(data), mask) == mask_in_python(memoryview(data), mask)


def test_payloads_of_any_alignment_are_masked_alike() -> None:
    data = bytes(range(64))
    for start in range(8):
        for end in range(start, 64):
            part = memoryview(bytearray(data))[start:end]
            assert mask_in_python(part, b"\x01\x02\x04\x08") == apply_mask(part, b"\x01\x02\x04\x08")


def folder_of(files: dict[str, bytes], where: Path) -> Path:
    (where / "websockets").mkdir()
    for name, content in {"__init__.py": b"", **files}.items():
        (where / "websockets" / name).write_bytes(content)
    return where


def test_without_the_extension_the_python_way_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(folder_of({}, tmp_path))])
    assert load_extension() is None
    monkeypatch.setattr(sys, "path", [])
    assert load_extension() is None


def test_an_extension_of_another_interpreter_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = next(
        path for folder in websockets.__path__ for path in sorted(Path(folder).glob("speedups*.so")) if path.exists()
    )
    first, last = f"speedups{EXTENSION_SUFFIXES[0]}", f"speedups{EXTENSION_SUFFIXES[-1]}"
    monkeypatch.setattr(sys, "path", [str(folder_of({first: b"no library"}, tmp_path))])
    assert load_extension() is None
    (tmp_path / "websockets" / last).write_bytes(genuine.read_bytes())
    extension = load_extension()
    assert extension is not None and extension(b"abcde", b"1234") == mask_in_python(b"abcde", b"1234")


def test_the_extension_comes_without_the_package_around_it() -> None:
    code = (
        "import sys; from tunnel.protocol import masking as m;"
        "assert m.apply_mask is not m.mask_in_python; print('websockets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
