"""Masking of payloads (RFC 6455 section 5.3), with the C extension of ``websockets`` if there is one.

The extension's file is loaded without importing its package: that takes 40 ms, the file less than 1 ms, and a
ProxyCommand is started for every connection. The file may belong to another version of the package than the one in use
(the single file contains one without an extension), so it is tested before it is used. Pure Python is some fifty times
slower, but still faster than most networks.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from os.path import exists, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tunnel.protocol.frames import Buffer

    Mask = Callable[[Buffer, bytes], bytes]


def mask_in_python(data: Buffer, mask: bytes) -> bytes:
    """Return ``data`` XOR the 4-byte ``mask`` repeated; masking twice gives the data back."""
    n = len(data)
    repeated = mask * (n // 4) + mask[: n % 4]
    return (int.from_bytes(data, sys.byteorder) ^ int.from_bytes(repeated, sys.byteorder)).to_bytes(n, sys.byteorder)


def load_extension() -> Mask | None:
    """Return ``apply_mask`` of the C extension, or None if this platform has none."""
    name = "websockets.speedups"
    for path in _extension_files():
        loader = ExtensionFileLoader(name, path)
        try:
            module = loader.create_module(ModuleSpec(name, loader, origin=path))
            loader.exec_module(module)
            mask: Mask = module.apply_mask
            if _masks_well(mask):
                return mask
        except Exception:  # noqa: S112 - built for another interpreter, or something else with that name
            continue  # pure Python is only slower
    return None


def _extension_files() -> Iterator[str]:
    for folder in sys.path:
        for suffix in EXTENSION_SUFFIXES:
            path = join(folder, "websockets", "speedups" + suffix)
            if exists(path):
                yield path


# 35 bytes, so that every path of the extension is tested: 16 bytes, 8 bytes and single bytes.
_PLAIN = bytes(range(91, 126))
_MASKED = bytes.fromhex("47b7a5b8438b99847f8f9d807b83918c77879588739b89946f9f8d906b93819c679785")


def _masks_well(mask: Mask) -> bool:
    """Return whether ``mask`` masks known bytes correctly, in every kind of buffer."""
    key = b"\x1c\xeb\xf8\xe6"
    return all(mask(data, key) == _MASKED for data in (_PLAIN, bytearray(_PLAIN), memoryview(_PLAIN)))


apply_mask: Mask = load_extension() or mask_in_python
