"""Bodies of requests that came compressed (``Content-Encoding``), as E2B's SDKs send files when they are told to.

aiohttp would decompress them by itself, before anybody has looked at the request's token, and takes the end of a
stream that was cut off for a proper one. Here nothing is decompressed until a handler reads it, a little at a time, so
that a body cannot grow in memory whatever it was packed from.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import StreamReader

ENCODINGS = ("gzip", "deflate")
_PIECE = 64 << 10  # bytes that one read returns at most


class BrokenBody(Exception):
    """The body of a request is not what its headers say: the client's fault."""


class Inflated:
    """A request's body, decompressed while it is read with `readany` or `iter_any`; in all else it is ``raw``.

    Both raise BrokenBody for what was not compressed as ``encoding``, one of `ENCODINGS`, says.
    """

    def __init__(self, raw: StreamReader, encoding: str) -> None:
        self._raw = raw
        self._gzip = encoding == "gzip"
        self._inflater: zlib._Decompress | None = None  # None: between two members of a gzip file, or before the first
        self._packed = b""  # what was read and is not decompressed yet
        self._begun = False
        self._more = False  # whether the inflater holds output back

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    async def readany(self) -> bytes:
        """Return what comes next, or nothing at the end."""
        while True:
            if not self._packed and not self._more:
                self._packed = await self._raw.readany()
                if not self._packed:
                    if self._inflater is not None:
                        raise BrokenBody("the compressed body ends too early")
                    return b""  # no body at all is an empty one, which some clients send with the header nevertheless
            else:
                await asyncio.sleep(0)  # a small body may make a long loop
            data = self._inflate()
            if data:
                return data

    async def iter_any(self) -> AsyncIterator[bytes]:
        while data := await self.readany():
            yield data

    def _inflate(self) -> bytes:
        inflater = self._inflater = self._inflater or self._begin()
        try:
            data = inflater.decompress(self._packed, _PIECE)
        except zlib.error:
            raise BrokenBody("the body is not compressed as its Content-Encoding says") from None
        self._packed = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        self._more = len(data) == _PIECE and not inflater.eof
        if inflater.eof:
            self._inflater = None
        return data

    def _begin(self) -> zlib._Decompress:
        # A gzip file may have several members (RFC 1952 section 2.2).
        if self._begun and not self._gzip:
            raise BrokenBody("something follows the compressed body")
        self._begun = True
        if self._gzip:
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        # Some clients leave out the zlib header (RFC 9110 section 8.4.1.2), of which 8 is the method.
        headless = self._packed[0] & 0x0F != 8
        return zlib.decompressobj(-zlib.MAX_WBITS if headless else zlib.MAX_WBITS)
