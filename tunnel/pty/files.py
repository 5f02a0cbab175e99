"""``/files``: reading and writing files, as far as the SDKs' ``files.read`` and ``files.write`` do over HTTP.

The file is read and written by cat, run as the user who asks, so the kernel decides what that user may do. An upload
is complete before its file is touched. Metadata (``X-Metadata-…``) is not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import IO, cast

from aiohttp import BadContentDispositionHeader, BadContentDispositionParam, BodyPartReader, hdrs, web

from tunnel.pty import framing
from tunnel.pty.connection import Connection
from tunnel.pty.file_shares import Leave, Slots, Spool
from tunnel.pty.file_tool import READ, WRITE, Refused, Tool
from tunnel.pty.framing import ConnectError
from tunnel.pty.users import User, Users, asked_user, expand
from tunnel.server.shares import Source

FILE_LIMIT = 1 << 30  # bytes of an upload
FILES_LIMIT = 100  # files of one upload
UPLOAD_LIMIT = 3600.0  # seconds from an upload's beginning until all of it has come
IDLE_LIMIT = 60.0  # seconds in which something has to come or go
_ERROR_LIMIT = 1000  # characters
_QUOTED_NAME = re.compile(r';[ \t]*filename[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"', re.IGNORECASE)

# What a client writes there is its own affair, and nothing for our log.
warnings.filterwarnings("ignore", category=BadContentDispositionHeader)
warnings.filterwarnings("ignore", category=BadContentDispositionParam)


class FileService:
    """The handlers of ``GET /files`` and ``POST /files``."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._reading = Slots(displace=True)  # they take as long as clients like
        self._writing = Slots(displace=False)
        self._spool = Spool()

    async def get(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "Cache-Control": "no-store"})
        try:
            user = self._user(request)
            path = _path(user, request.query.get("path"))
            async with (
                _judged(request, Leave()) as leave,
                self._reading.take(_source(request), leave),
                _tool(READ, path, user, None) as tool,
            ):
                await _download(request, response, path, tool, leave)
        except (Refused, ConnectionResetError) as exc:
            if isinstance(exc, Refused) and not response.prepared:
                return _error(exc)
            if request.transport is not None:
                request.transport.abort()  # the only way left to tell that this is not all
        return response

    async def post(self, request: web.Request) -> web.StreamResponse:
        source = _source(request)
        written = []
        try:
            user = self._user(request)
            # The slot of a helper process is taken when there is something to write.
            async with _judged(request, Leave(UPLOAD_LIMIT)) as leave:
                with self._spool.enter(source, leave) as reserve:
                    async with contextlib.aclosing(_uploads(request, user, reserve)) as uploads:
                        async for path, spool in uploads:
                            leave.has_all = True
                            async with self._writing.take(source, leave):
                                with leave.committed():
                                    written.append(await _store(user, path, spool))
                            leave.has_all = False
        except Refused as exc:
            return _error(exc)
        return web.json_response(written)

    def _user(self, request: web.Request) -> User:
        try:
            return self._users.choose(request.query.get("username") or asked_user(request.headers.get("Authorization")))
        except ConnectError as exc:
            raise Refused(framing.STATUS[exc.code], exc.message) from exc


def _source(request: web.Request) -> Source:
    """Return whom a request counts for."""
    return cast(Connection, request.protocol).client.source


def _judged(request: web.Request, leave: Leave) -> Leave:
    """Return ``leave``; the request's connection has as much to show for its place as that."""
    cast(Connection, request.protocol).judge_by(leave.standing)
    return leave


def _tool(script: str, path: str, user: User, stdin: IO[bytes] | None) -> Tool:
    try:
        return Tool(script, path, user, stdin)
    except OSError as exc:
        raise Refused(503, f"cannot start a process: {exc.strerror}") from exc


async def _store(user: User, path: str, spool: IO[bytes]) -> dict[str, str]:
    spool.seek(0)
    async with _tool(WRITE, path, user, spool) as tool:
        while await tool.read():
            pass
        if await tool.wait() != 0:
            raise tool.refusal(path)
    return {"name": os.path.basename(path), "type": "file", "path": path}


async def _download(request: web.Request, response: web.StreamResponse, path: str, tool: Tool, leave: Leave) -> None:
    data = await tool.read()
    if not data and await tool.wait() != 0:
        raise tool.refusal(path)
    if not data:
        response.content_length = 0
    await response.prepare(request)
    while data:
        try:
            async with asyncio.timeout(IDLE_LIMIT):
                await response.write(data)
        except TimeoutError:
            raise Refused(408, f"nothing was taken for {IDLE_LIMIT:g} s") from None
        leave.moved(len(data))
        data = await tool.read()
    if await tool.wait() != 0:
        raise Refused(500, f"path '{path}' could not be read to its end")
    await response.write_eof()


async def _uploads(
    request: web.Request, user: User, reserve: Callable[[int], None]
) -> AsyncGenerator[tuple[str, IO[bytes]], None]:
    """Yield each uploaded file: its path, and a file with its bytes; raises Refused, as ``reserve`` does."""
    given = request.query.get("path")
    if request.content_type != "multipart/form-data":
        path = _path(user, given)
        with tempfile.TemporaryFile() as spool:
            await _receive(request.content.readany, spool, FILE_LIMIT, reserve)
            yield path, spool
        return
    left, count = FILE_LIMIT, 0
    try:
        parts = await request.multipart()
        while (part := await parts.next()) is not None:
            if not isinstance(part, BodyPartReader) or part.name != "file":
                raise Refused(400, "every part is a file, and called so")
            count += 1
            if count > FILES_LIMIT or (given is not None and count > 1):
                raise Refused(400, f"too many files: {FILES_LIMIT} at most, and one if the query names its path")
            path = _path(user, given or _name(part))
            with tempfile.TemporaryFile() as spool:
                left -= await _receive(part.read_chunk, spool, left, reserve)
                yield path, spool
    except (ValueError, AssertionError) as exc:
        raise Refused(400, f"no proper multipart/form-data: {exc}"[:_ERROR_LIMIT]) from exc


async def _receive(
    read: Callable[[], Awaitable[bytes]], spool: IO[bytes], limit: int, reserve: Callable[[int], None]
) -> int:
    """Fill ``spool`` and return the size; raises Refused."""
    size = 0
    while True:
        try:
            async with asyncio.timeout(IDLE_LIMIT):
                data = await read()
        except TimeoutError:
            raise Refused(408, f"nothing came for {IDLE_LIMIT:g} s") from None
        if not data:
            return size
        size += len(data)
        if size > limit:
            raise Refused(413, f"an upload may have {FILE_LIMIT} bytes")
        reserve(len(data))
        try:
            spool.write(data)
        except OSError as exc:
            raise Refused(507, f"no place for the upload: {exc.strerror}") from exc


def _name(part: BodyPartReader) -> str | None:
    """Return the path that a part of an upload names (RFC 7578 section 4.2)."""
    # aiohttp takes the slashes off the beginning of a quoted name, as browsers send none; here they make it absolute.
    disposition = part.headers.get(hdrs.CONTENT_DISPOSITION, "")
    match = _QUOTED_NAME.search(disposition)
    if match is None or "filename*" in disposition.lower():
        return part.filename
    return re.sub(r"\\(.)", r"\1", match[1])


def _path(user: User, path: str | None) -> str:
    if not path:
        raise Refused(400, "which path?")
    if "\0" in path:
        raise Refused(400, "a path has no NUL")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # a lone surrogate, which UTF-7 can spell
        raise Refused(400, "the path is no valid Unicode") from None
    return expand(user, path)


def _error(refused: Refused) -> web.Response:
    return web.json_response({"code": refused.status, "message": refused.message}, status=refused.status)
