"""``/files``: reading and writing files, as far as the SDKs' ``files.read`` and ``files.write`` do over HTTP.

The file is read and written by cat, run as the user who asks, so the kernel decides what that user may do. An upload
is complete before its file is touched. Metadata (``X-Metadata-…``) is not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import IO, cast

from aiohttp import BodyPartReader, web

from tunnel.pty import framing
from tunnel.pty.framing import ConnectError
from tunnel.pty.users import User, Users, asked_user, expand
from tunnel.server.waiting import readable

FILE_LIMIT = 1 << 30  # bytes of an upload
FILES_LIMIT = 100  # files of one upload
AT_ONCE = 16  # requests; more wait
IDLE_LIMIT = 60.0  # seconds in which something has to come or go
_CHUNK = 256 << 10
_ERROR_LIMIT = 1000  # characters

_READ = """
[ -e "$1" ] || exit 44
[ -f "$1" ] || exit 45
exec cat -- "$1"
"""
_WRITE = """
mkdir -p -- "$(dirname -- "$1")" || exit
[ -e "$1" ] && [ ! -f "$1" ] && exit 45
exec cat > "$1"
"""
_PLACE = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}  # messages that `_refusal` knows


class _Refused(Exception):
    """A request for files that is answered with ``status`` and ``message``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class FileService:
    """The handlers of ``GET /files`` and ``POST /files``."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def get(self, request: web.Request) -> web.StreamResponse:
        try:
            user = self._user(request)
            path = _path(user, request.query.get("path"))
            async with self._turn, _Tool(_READ, path, user, None) as tool:
                return await _download(request, path, tool)
        except _Refused as exc:
            return _error(exc)

    async def post(self, request: web.Request) -> web.StreamResponse:
        try:
            user = self._user(request)
            async with self._turn:
                written = [await self._store(user, path, spool) async for path, spool in _uploads(request, user)]
        except _Refused as exc:
            return _error(exc)
        return web.json_response(written)

    def _user(self, request: web.Request) -> User:
        try:
            return self._users.choose(request.query.get("username") or asked_user(request.headers.get("Authorization")))
        except ConnectError as exc:
            raise _Refused(framing.STATUS[exc.code], exc.message) from exc

    async def _store(self, user: User, path: str, spool: IO[bytes]) -> dict[str, str]:
        spool.seek(0)
        async with _Tool(_WRITE, path, user, spool) as tool:
            while await tool.read():
                pass
            if await tool.wait() != 0:
                raise tool.refusal(path)
        return {"name": os.path.basename(path), "type": "file", "path": path}


class _Tool:
    """A script of /bin/sh about one path, run as a user, as an async context manager that leaves nothing running."""

    def __init__(self, script: str, path: str, user: User, stdin: IO[bytes] | None) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", script, "sh", path],
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_PLACE,
            start_new_session=True,
            user=user.uid if user.switches else None,
            group=user.gid if user.switches else None,
            extra_groups=user.groups if user.switches else None,
        )
        self._stdout, self._stderr = cast(IO[bytes], self._process.stdout), cast(IO[bytes], self._process.stderr)
        self._ended = asyncio.ensure_future(asyncio.to_thread(self._process.wait))

    async def __aenter__(self) -> _Tool:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._ended.done():
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._ended), IDLE_LIMIT)
        self._stdout.close()
        self._stderr.close()

    async def read(self) -> bytes:
        """Return what it writes next, or nothing at its end; raises _Refused when nothing comes for too long."""
        descriptor = self._stdout.fileno()
        try:
            await asyncio.wait_for(readable(descriptor), IDLE_LIMIT)
        except TimeoutError:
            raise _Refused(504, f"nothing happened for {IDLE_LIMIT:g} s") from None
        return os.read(descriptor, _CHUNK)

    async def wait(self) -> int:
        """Return the exit status."""
        return await asyncio.shield(self._ended)

    def refusal(self, path: str) -> _Refused:
        """Return what the end of the script means; it has ended with another status than 0."""
        status = self._process.returncode
        if status == 44:
            return _Refused(404, f"path '{path}' does not exist")
        if status == 45:
            return _Refused(400, f"path '{path}' is no regular file")
        os.set_blocking(self._stderr.fileno(), False)
        lines = (self._stderr.read() or b"").decode(errors="replace").strip().splitlines() or ["cat failed"]
        reason = lines[-1].rpartition(": ")[2][:_ERROR_LIMIT]
        status = {"Permission denied": 403, "No space left on device": 507, "Disk quota exceeded": 507}.get(reason, 400)
        return _Refused(status, f"path '{path}': {reason}")


async def _download(request: web.Request, path: str, tool: _Tool) -> web.StreamResponse:
    data = await tool.read()
    if not data and await tool.wait() != 0:
        raise tool.refusal(path)
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "Cache-Control": "no-store"})
    if not data:
        response.content_length = 0
    await response.prepare(request)
    try:
        while data:
            async with asyncio.timeout(IDLE_LIMIT):
                await response.write(data)
            data = await tool.read()
        if await tool.wait() != 0:
            raise _Refused(500, f"path '{path}' could not be read to its end")
        await response.write_eof()
    except (TimeoutError, ConnectionResetError, _Refused):
        if request.transport is not None:
            request.transport.abort()  # the only way left to tell that this is not all
    return response


async def _uploads(request: web.Request, user: User) -> AsyncIterator[tuple[str, IO[bytes]]]:
    """Yield each uploaded file: its path, and a file with its bytes; raises _Refused."""
    given = request.query.get("path")
    if request.content_type != "multipart/form-data":
        path = _path(user, given)
        with tempfile.TemporaryFile() as spool:
            await _receive(request.content.readany, spool, FILE_LIMIT)
            yield path, spool
        return
    left, count = FILE_LIMIT, 0
    try:
        parts = await request.multipart()
        while (part := await parts.next()) is not None:
            if not isinstance(part, BodyPartReader) or part.name != "file":
                raise _Refused(400, "every part is a file, and called so")
            count += 1
            if count > FILES_LIMIT or (given is not None and count > 1):
                raise _Refused(400, f"too many files: {FILES_LIMIT} at most, and one if the query names its path")
            path = _path(user, given or part.filename)
            with tempfile.TemporaryFile() as spool:
                left -= await _receive(part.read_chunk, spool, left)
                yield path, spool
    except (ValueError, AssertionError) as exc:
        raise _Refused(400, f"no proper multipart/form-data: {exc}"[:_ERROR_LIMIT]) from exc


async def _receive(read: Callable[[], Awaitable[bytes]], spool: IO[bytes], limit: int) -> int:
    """Fill ``spool`` and return the size; raises _Refused."""
    size = 0
    while True:
        try:
            async with asyncio.timeout(IDLE_LIMIT):
                data = await read()
        except TimeoutError:
            raise _Refused(408, f"nothing came for {IDLE_LIMIT:g} s") from None
        if not data:
            return size
        size += len(data)
        if size > limit:
            raise _Refused(413, f"an upload may have {FILE_LIMIT} bytes")
        try:
            spool.write(data)
        except OSError as exc:
            raise _Refused(507, f"no place for the upload: {exc.strerror}") from exc


def _path(user: User, path: str | None) -> str:
    if not path:
        raise _Refused(400, "which path?")
    if "\0" in path:
        raise _Refused(400, "a path has no NUL")
    return expand(user, path)


def _error(refused: _Refused) -> web.Response:
    return web.json_response({"code": refused.status, "message": refused.message}, status=refused.status)
