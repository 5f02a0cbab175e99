"""Access to sandboxes, kept in private files, so that a second ``scp`` need not ask the provider.

There is one file for each sandbox, API and key; its name is a digest of the three. Files are written in one step. An
invalid file, or one with the wrong permissions, is ignored, which only costs a call. Where no file can be written, this
process remembers the access, as a session needs it after an outage.
"""

from __future__ import annotations

import hashlib
import json
import os
import time

from tunnel.errors import ProviderError
from tunnel.net.files import PRIVATE, read_regular, write_whole
from tunnel.net.home import base_folder
from tunnel.protocol.upgrade import Response
from tunnel.provider.answers import Access, access_of

SIZE_LIMIT = 64 * 1024  # bytes of a file
KEPT = 86400.0  # seconds; older tokens are not used, even if the API cannot be reached
MAX_FILES = 500

_unwritten: dict[str, Access] = {}  # digest → access for which no file could be written


def cache_folder() -> str | None:
    """Return the folder of the files, whether or not it exists; None for a user without a home.

    A home that does not exist does not count, so that /nonexistent, the home of many accounts, is not created.
    """
    folder = base_folder("XDG_CACHE_HOME", ".cache")
    if folder is None or (folder == base_folder("", ".cache") and not os.path.isdir(os.path.dirname(folder))):
        return None
    return os.path.join(folder, "wstunnel-py", "sandboxes")


class Cache:
    """The files for one API and one key; ``folder`` may be None: then there are none."""

    def __init__(self, folder: str | None, api: str, key: str) -> None:
        self._folder = folder
        self._owner = hashlib.sha256(f"{api}\0{key}".encode()).hexdigest()

    def load(self, sandbox: str) -> Access | None:
        """Return the stored access to a sandbox, which may be outdated (``until``); None if there is none."""
        digest = self._digest(sandbox)
        kept = [each for each in (self._read(digest), _unwritten.get(digest)) if each is not None and _is_valid(each)]
        return max(kept, key=lambda each: each.asked, default=None)

    def store(self, sandbox: str, access: Access) -> None:
        """Store access to a sandbox; if that fails, the next program asks again."""
        digest = self._digest(sandbox)
        if self._write(digest, access):
            _unwritten.pop(digest, None)
            return
        while len(_unwritten) >= MAX_FILES:
            _unwritten.pop(next(iter(_unwritten)), None)
        _unwritten[digest] = access

    def forget(self, sandbox: str) -> None:
        """Remove the stored access to a sandbox."""
        digest = self._digest(sandbox)
        _unwritten.pop(digest, None)
        try:
            if self._folder is not None:
                os.unlink(os.path.join(self._folder, f"{digest}.json"))
        except OSError:
            return  # there is none, or another program has removed it

    def _digest(self, sandbox: str) -> str:
        return hashlib.sha256(f"{self._owner}\0{sandbox}".encode()).hexdigest()[:40]

    def _read(self, digest: str) -> Access | None:
        """Return the access in a file; None if there is none, or if it is invalid."""
        if self._folder is None:
            return None
        path = os.path.join(self._folder, f"{digest}.json")
        try:
            data, info = read_regular(path, SIZE_LIMIT, guard=PRIVATE)
            if hasattr(os, "geteuid") and info.st_uid != os.geteuid():
                return None
            found = json.loads(data)
            asked, until = float(found["asked"]), float(found["until"])
            answer = Response(200, "", ())
            answer.body = json.dumps(found["access"]).encode()
            return access_of(answer, api=path, asked=asked, until=until)
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, ProviderError):
            return None

    def _write(self, digest: str, access: Access) -> bool:
        """Write the file; return False if that fails: a full disk, a folder that cannot be written."""
        if self._folder is None:
            return False
        fields = {
            "domain": access.domain,
            "envdAccessToken": access.envd_token,
            "trafficAccessToken": access.traffic_token,
        }
        text = json.dumps({"asked": access.asked, "until": access.until, "access": fields})
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            self._tidy()
            write_whole(os.path.join(self._folder, f"{digest}.json"), text.encode("ascii"), 0o600)
        except OSError:
            return False
        return True

    def _tidy(self) -> None:
        """Remove old files, or all files if there are too many."""
        with os.scandir(self._folder) as entries:
            files = [entry for entry in entries if ".json" in entry.name]
        oldest = time.time() - KEPT if len(files) < MAX_FILES else float("inf")
        for entry in files:
            try:
                if entry.stat().st_mtime < oldest:
                    os.unlink(entry.path)
            except OSError:
                continue  # another program has removed it


def _is_valid(access: Access) -> bool:
    """Return whether access is recent, and has no times that come from a wrong clock."""
    now = time.time()
    return now - KEPT <= access.asked <= now + 60.0 and access.asked <= access.until <= access.asked + KEPT
