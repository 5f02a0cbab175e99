"""The server side of the legacy scp protocol, which OpenSSH clients before 9.0 and ``scp -O`` use.

asyncssh does nearly all of the work. This adds what scp itself does, and a shell before it: links are followed, new
files get the mode of the original, and ~ is the home folder.
"""

from __future__ import annotations

import os
import re

import asyncssh
from asyncssh.scp import _SCPArgParser, _SCPSink, _SCPSource
from asyncssh.sftp import SFTPServerFS

from tunnel.ssh.server.files import Files

# What a client runs. Any other scp command runs the installed scp.
_COMMAND = re.compile(r"scp( -[A-Za-z]+)* -[A-Za-z]*[ft]\b")
_MODE = 0o777  # the bits of a mode that are copied, without setuid and setgid


def is_scp(command: str) -> bool:
    """Return whether ``command`` is one that a client of legacy scp runs on the server."""
    return _COMMAND.match(command) is not None


async def run_scp(process: asyncssh.SSHServerProcess[bytes], command: str, home: str) -> None:
    """Send or receive the files that ``command`` names, and end the session. ``home`` replaces ~."""
    try:
        given = _SCPArgParser().parse(command)
    except ValueError as exc:
        process.stderr.write(f"scp: {exc}\n".encode())
        process.exit(1)
        return
    # A ~ in quotes has no space before it, and is an ordinary name.
    path = _expanded(given.path, home) if " ~" in command else given.path
    files = _Files(process.channel)
    streams = process.stdin, process.stdout
    scp: _SCPSource | _SCPSink
    if given.source:
        tree = SFTPServerFS(files)
        scp = _SCPSource(tree, *streams, given.preserve, given.recurse, error_handler=False, server=True)
    else:
        scp = _Sink(files, *streams, given.must_be_dir, given.preserve, given.recurse, error_handler=False, server=True)
    try:
        await scp.run(path.encode("utf-8", "surrogateescape"))
    finally:
        files.exit()


def _expanded(path: str, home: str) -> str:
    if path == "~" or path.startswith("~/"):
        return home + path[1:]
    return os.path.expanduser(path)


class _Files(Files):
    """``mode`` is the mode of the next file or folder, if it is new."""

    follows_links = True
    mode = _MODE

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        return super().open(path, pflags, asyncssh.SFTPAttrs(permissions=self.mode))

    def mkdir(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        # The owner must be able to create files in it.
        super().mkdir(path, asyncssh.SFTPAttrs(permissions=self.mode | 0o700))


class _Sink(_SCPSink):
    def __init__(self, files: _Files, *given: object, **options: object) -> None:
        super().__init__(SFTPServerFS(files), *given, **options)  # type: ignore[arg-type]
        self._files = files

    async def recv_request(self) -> tuple[bytes | None, bytes | None]:
        """Return the next request, and remember the mode of its file or folder."""
        action, args = await super().recv_request()
        if action in (b"C", b"D") and (found := re.match(rb"[0-7]{3,5} ", args or b"")):
            self._files.mode = int(found[0], 8) & _MODE
        return action, args
