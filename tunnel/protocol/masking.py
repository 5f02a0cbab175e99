"""Masking of payloads (RFC 6455, section 5.3), by the C extension of ``websockets`` where there is one.

The extension's file is loaded without importing the package around it: the package takes 40 ms to import, the file
less than one, and a ProxyCommand is started for every connection. Without it, pure Python is some fifty times slower
but still faster than most networks.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec, PathFinder
from os.path import exists, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tunnel.protocol.frames import Buffer

    Mask = Callable[[Buffer, bytes], bytes]


def mask_in_python(data: Buffer, mask: bytes) -> bytes:
    """Return ``data`` XOR the 4-byte ``mask`` repeated; masking twice gives the data back."""
    n = len(data)
    repeated = mask * (n // 4) + mask[: n % 4]
    return (int.from_bytes(data, sys.byteorder) ^ int.from_bytes(repeated, sys.byteorder)).to_bytes(n, sys.byteorder)


def load_extension() -> Mask | None:
    """Return ``apply_mask`` of the C extension, or None where this platform has none."""
    package = PathFinder.find_spec("websockets")
    for folder in (package and package.submodule_search_locations) or ():
        for suffix in EXTENSION_SUFFIXES:
            path = join(folder, "speedups" + suffix)
            if exists(path):
                name = "websockets.speedups"
                loader = ExtensionFileLoader(name, path)
                try:
                    module = loader.create_module(ModuleSpec(name, loader, origin=path))
                    loader.exec_module(module)
                except ImportError:
                    continue  # built for another interpreter: the Python way is correct, only slower
                mask: Mask = module.apply_mask
                return mask
    return None


apply_mask: Mask = load_extension() or mask_in_python
