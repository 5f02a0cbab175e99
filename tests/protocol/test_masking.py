"""Masking: the C extension and the pure-Python fallback agree, and the extension is really found."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from tunnel.protocol.masking import load_extension, mask_in_python


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_the_fallback_is_xor_with_the_repeated_key(data: bytes, mask: bytes) -> None:
    assert mask_in_python(data, mask) == bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    assert mask_in_python(mask_in_python(data, mask), mask) == data


@given(st.binary(max_size=3000), st.binary(min_size=4, max_size=4))
def test_the_extension_and_the_fallback_agree(data: bytes, mask: bytes) -> None:
    extension = load_extension()
    assert extension is not None, "websockets was installed without its C extension"
    assert extension(memoryview(data), mask) == mask_in_python(memoryview(data), mask)


def test_the_extension_comes_without_the_package_around_it() -> None:
    code = (
        "import sys; from tunnel.protocol import masking as m;"
        "assert m.apply_mask is not m.mask_in_python; print('websockets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
