"""Compressed request bodies (``Content-Encoding``), which E2B's SDKs can send for files.

aiohttp's own decompression would start before the token is checked, and accepts truncated data. Here a handler
decompresses as it reads, in small pieces, so a body cannot expand in memory.
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
    """The body of a request does not match its headers: the client's fault."""


class Inflated:
    """A request body that `readany` and `iter_any` decompress; everything else is passed on to ``raw``.

    Both raise BrokenBody if the data is not compressed with ``encoding``, one of `ENCODINGS`.
    """

    def __init__(self, raw: StreamReader, encoding: str) -> None:
        self._raw = raw
        self._gzip = encoding == "gzip"
        self._inflater: zlib._Decompress | None = None  # None before each member of a gzip file
        self._packed = b""  # read, but not decompressed yet
        self._begun = False
        self._more = False  # whether the inflater holds output back

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    async def readany(self) -> bytes:
        """Return the next data, or nothing at the end."""
        while True:
            if not self._packed and not self._more:
                self._packed = await self._raw.readany()
                if not self._packed:
                    if self._inflater is not None:
                        raise BrokenBody("the compressed body is truncated")
                    return b""  # some clients send the header with an empty body
            else:
                await asyncio.sleep(0)  # let others run: a small body can expand to a large one
            data = self._inflate()
            if data:
                return data

    async def iter_any(self) -> AsyncIterator[bytes]:
        """Yield all data."""
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
            raise BrokenBody("there is data after the compressed body")
        self._begun = True
        if self._gzip:
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        # Some clients omit the zlib header (RFC 9110 section 8.4.1.2); its method is always 8.
        headless = self._packed[0] & 0x0F != 8
        return zlib.decompressobj(-zlib.MAX_WBITS if headless else zlib.MAX_WBITS)
