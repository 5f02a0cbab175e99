"""``/files``: reading and writing files, as far as the SDKs' ``files.read`` and ``files.write`` do over HTTP.

Files are read and written by helper processes that run as the user who asks, so the kernel decides what that user may
do. No file is touched before an upload is whole and well-formed. Metadata (``X-Metadata-…``) is not kept.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import IO, cast

from aiohttp import web
from aiohttp.http_exceptions import PayloadEncodingError

from tunnel.children.users import User, expand
from tunnel.pty.protocol import framing
from tunnel.pty.protocol.framing import ConnectError
from tunnel.pty.server import multipart
from tunnel.pty.server.connection import Connection
from tunnel.pty.server.file_shares import Leave, Slots, Spool
from tunnel.pty.server.file_tool import READ, WRITE, Refused, Tool
from tunnel.pty.server.users import Users, asked_user
from tunnel.server.shares import Source

FILE_LIMIT = 1 << 30  # bytes of an upload
FILES_LIMIT = 1000  # files of one upload
PATH_LIMIT = 4095  # bytes of a path, as the kernel has it
UPLOAD_LIMIT = 3600.0  # seconds from an upload's beginning until all of it has come
IDLE_LIMIT = 60.0  # seconds in which something has to come or go
_ERROR_LIMIT = 1000  # characters


@dataclass(slots=True)
class _Upload:
    """A file that came: where it goes, and its place in the file that holds the whole upload."""

    path: str
    start: int
    size: int = 0


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
                _tool(READ, path, user) as tool,
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
            async with _judged(request, Leave(UPLOAD_LIMIT)) as leave:
                with self._spool.enter(source, leave) as reserve, _spool_file() as spool:
                    uploads = await _receive(request, user, spool, reserve)
                    leave.has_all = True
                    # The slot of a helper process is taken when there is something to write.
                    async with self._writing.take(source, leave):
                        with leave.committed():
                            for upload in uploads:
                                written.append(await _store(user, upload, spool))
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


def _spool_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as exc:
        raise Refused(503, f"no place for the upload: {exc.strerror}") from exc


def _tool(script: str, path: str, user: User, stdin: IO[bytes] | None = None, size: int = 0) -> Tool:
    try:
        return Tool(script, path, user, stdin, size)
    except OSError as exc:
        raise Refused(503, f"cannot start a process: {exc.strerror}") from exc


async def _store(user: User, upload: _Upload, spool: IO[bytes]) -> dict[str, str]:
    spool.seek(upload.start)
    path = upload.path
    async with _tool(WRITE, path, user, spool, upload.size) as tool:
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


async def _receive(request: web.Request, user: User, spool: IO[bytes], reserve: Callable[[int], None]) -> list[_Upload]:
    """Fill ``spool`` with all files of an upload, and return which they are; raises Refused, as ``reserve`` does."""
    given = request.query.get("path")
    if request.content_type == "multipart/form-data":
        return await _receive_parts(request, given, user, spool, reserve)
    upload = _Upload(_path(user, given), 0)
    async for data in _body(request):
        _add(upload, data, spool, reserve)
    return [upload]


async def _receive_parts(
    request: web.Request, given: str | None, user: User, spool: IO[bytes], reserve: Callable[[int], None]
) -> list[_Upload]:
    uploads: list[_Upload] = []
    paths: set[str] = set()
    try:
        parser = multipart.Parser(request.headers["Content-Type"])
        async for piece in _body(request):
            for part in parser.feed(piece):
                if isinstance(part, bytes):
                    _add(uploads[-1], part, spool, reserve)
                    continue
                if part.name != "file":
                    raise Refused(400, "every part is a file, and called so")
                if len(uploads) >= (FILES_LIMIT if given is None else 1):
                    raise Refused(400, f"too many files: {FILES_LIMIT} at most, and one if the query names its path")
                path = _path(user, given or part.filename())
                if path in paths:
                    raise Refused(400, f"two files go to '{path}'")
                paths.add(path)
                uploads.append(_Upload(path, spool.tell()))
        parser.finish()
    except ValueError as exc:
        raise Refused(400, f"no proper multipart/form-data: {exc}"[:_ERROR_LIMIT]) from exc
    return uploads


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body as it comes; raises Refused when it stops coming, or breaks off."""
    while True:
        try:
            async with asyncio.timeout(IDLE_LIMIT):
                data = await request.content.readany()
        except TimeoutError:
            raise Refused(408, f"nothing came for {IDLE_LIMIT:g} s") from None
        except (PayloadEncodingError, web.RequestPayloadError) as exc:
            raise Refused(400, "the upload is not whole") from exc
        if not data:
            return
        yield data


def _add(upload: _Upload, data: bytes, spool: IO[bytes], reserve: Callable[[int], None]) -> None:
    """Add ``data`` to an upload, which is the last one in ``spool``; raises Refused."""
    upload.size += len(data)
    if upload.start + upload.size > FILE_LIMIT:
        raise Refused(413, f"an upload may have {FILE_LIMIT} bytes")
    reserve(len(data))
    try:
        spool.write(data)
    except OSError as exc:
        raise Refused(507, f"no place for the upload: {exc.strerror}") from exc


def _path(user: User, path: str | None) -> str:
    if not path:
        raise Refused(400, "which path?")
    if "\0" in path:
        raise Refused(400, "a path has no NUL")
    name = path.partition("/")[0]
    if name.startswith("~") and name != "~":
        # Who means another user's home must not find his file in a folder of that name.
        raise Refused(400, f"only ~ itself stands for a home, not '{name}': write its path, or './{name}' for the name")
    expanded = expand(user, path)
    if len(os.fsencode(expanded)) > PATH_LIMIT:
        raise Refused(400, f"a path has {PATH_LIMIT} bytes at most")
    return expanded


def _error(refused: Refused) -> web.Response:
    return web.json_response({"code": refused.status, "message": refused.message}, status=refused.status)
