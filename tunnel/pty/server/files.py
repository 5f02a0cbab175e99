"""``/files``: reading and writing files over HTTP, as the SDKs' ``files.read`` and ``files.write`` do.

Files are read and written by processes that run as the user who asks, so the kernel enforces that user's permissions.
No file is touched before an upload is complete and well-formed. Metadata (``X-Metadata-…``) is not stored.
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
from tunnel.pty.server.file_process import READ, WRITE, FileProcess, Refused
from tunnel.pty.server.file_shares import Lease, Slots, Spool
from tunnel.pty.server.users import Users, asked_user
from tunnel.server.shares import Source

FILE_LIMIT = 1 << 30  # bytes of an upload
FILES_LIMIT = 1000  # files of one upload
PATH_LIMIT = 4095  # bytes of a path, as in the kernel
UPLOAD_LIMIT = 3600.0  # seconds for an upload to arrive
IDLE_LIMIT = 60.0  # seconds without any data, after which a request ends
_ERROR_LIMIT = 1000  # characters


@dataclass(slots=True)
class _Upload:
    """An uploaded file: its path, and where it is in the file that holds the whole upload."""

    path: str
    start: int
    size: int = 0


class FileService:
    """The handlers of ``GET /files`` and ``POST /files``."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._reading = Slots(displace=True)  # clients decide how long a download takes
        self._writing = Slots(displace=False)
        self._spool = Spool()

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Send a file."""
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "Cache-Control": "no-store"})
        try:
            user = self._user(request)
            path = _path(user, request.query.get("path"))
            async with (
                _judged(request, Lease()) as lease,
                self._reading.take(_source(request), lease),
                _tool(READ, path, user) as tool,
            ):
                await _download(request, response, path, tool, lease)
        except (Refused, ConnectionResetError) as exc:
            if isinstance(exc, Refused) and not response.prepared:
                return _error(exc)
            if request.transport is not None:
                request.transport.abort()  # the only way left to show that the file is incomplete
        return response

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Store one or more files."""
        source = _source(request)
        written = []
        try:
            user = self._user(request)
            async with _judged(request, Lease(UPLOAD_LIMIT)) as lease:
                with self._spool.enter(source, lease) as reserve, _spool_file() as spool:
                    uploads = await _receive(request, user, spool, reserve)
                    lease.has_all = True
                    # Take a slot only when everything is ready to be written.
                    async with self._writing.take(source, lease):
                        _connection(request).lasts(False)
                        with lease.committed():
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
    """Return the client that a request counts for."""
    return _connection(request).client.source


def _judged(request: web.Request, lease: Lease) -> Lease:
    """Return ``lease``, by which the standing of the request's connection is judged from now on."""
    _connection(request).judge_by(lease.standing)
    _connection(request).lasts()
    return lease


def _connection(request: web.Request) -> Connection:
    return cast(Connection, request.protocol)


def _spool_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as exc:
        raise Refused(503, f"cannot store the upload: {exc.strerror}") from exc


def _tool(script: str, path: str, user: User, stdin: IO[bytes] | None = None, size: int = 0) -> FileProcess:
    try:
        return FileProcess(script, path, user, stdin, size)
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


async def _download(
    request: web.Request, response: web.StreamResponse, path: str, tool: FileProcess, lease: Lease
) -> None:
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
            raise Refused(408, f"the client read nothing for {IDLE_LIMIT:g} s") from None
        lease.moved(len(data))
        data = await tool.read()
    if await tool.wait() != 0:
        raise Refused(500, f"path '{path}' could not be read completely")
    await response.write_eof()


async def _receive(request: web.Request, user: User, spool: IO[bytes], reserve: Callable[[int], None]) -> list[_Upload]:
    """Write all files of an upload to ``spool``, and return them; raises Refused."""
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
                    raise Refused(400, "the name of every part must be: file")
                if len(uploads) >= (FILES_LIMIT if given is None else 1):
                    raise Refused(400, f"too many files: at most {FILES_LIMIT}, or one if the query has a path")
                path = _path(user, given or part.filename())
                if path in paths:
                    raise Refused(400, f"two files have the path '{path}'")
                paths.add(path)
                uploads.append(_Upload(path, spool.tell()))
        parser.finish()
    except ValueError as exc:
        raise Refused(400, f"malformed multipart/form-data: {exc}"[:_ERROR_LIMIT]) from exc
    return uploads


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body as it arrives; raises Refused if it stalls or breaks off."""
    while True:
        try:
            async with asyncio.timeout(IDLE_LIMIT):
                data = await request.content.readany()
        except TimeoutError:
            raise Refused(408, f"the client sent nothing for {IDLE_LIMIT:g} s") from None
        except (PayloadEncodingError, web.RequestPayloadError) as exc:
            raise Refused(400, "the upload is incomplete") from exc
        if not data:
            return
        yield data


def _add(upload: _Upload, data: bytes, spool: IO[bytes], reserve: Callable[[int], None]) -> None:
    """Append ``data`` to the last file in ``spool``; raises Refused."""
    upload.size += len(data)
    if upload.start + upload.size > FILE_LIMIT:
        raise Refused(413, f"the upload is too large: the limit is {FILE_LIMIT} bytes")
    reserve(len(data))
    try:
        spool.write(data)
    except OSError as exc:
        raise Refused(507, f"cannot store the upload: {exc.strerror}") from exc


def _path(user: User, path: str | None) -> str:
    if not path:
        raise Refused(400, "the query has no path")
    if "\0" in path:
        raise Refused(400, "a path must not contain NUL")
    name = path.partition("/")[0]
    if name.startswith("~") and name != "~":
        # Someone who means another user's home must not get a folder of that name.
        raise Refused(400, f"'{name}' is not supported: write the path of that home, or './{name}' for a file name")
    expanded = expand(user, path)
    if len(os.fsencode(expanded)) > PATH_LIMIT:
        raise Refused(400, f"the path is too long: the limit is {PATH_LIMIT} bytes")
    return expanded


def _error(refused: Refused) -> web.Response:
    return web.json_response({"code": refused.status, "message": refused.message}, status=refused.status)
