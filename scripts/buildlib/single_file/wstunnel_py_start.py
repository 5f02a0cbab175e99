"""Loads the modules of the single file, which are compiled once and kept in the user's cache.

Without the cache, Python would compile each module in every run, which takes longer than the rest of a start. A file of
the cache is used only if it is complete, and if nobody else can write it; otherwise the module is compiled from its
source. So nothing depends on the cache: it may be missing, read-only, full, damaged or somebody else's.

Each module has its own file: a checksum, and the code as `marshal` writes it. A rename puts it into place, so that
processes that start at the same time never read a part of it. Sources come from the archive as it was when the program
started, because it may be replaced meanwhile.
"""

from __future__ import annotations

import marshal
import os
import stat
import sys
import time
import zlib
from importlib.machinery import ModuleSpec
from importlib.util import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from zipfile import ZipFile

# Filled in by scripts/build: the SHA-256 of the archive's contents, and the files of its modules, one per line.
DIGEST = "@DIGEST@"
MODULES = "@MODULES@"

PROGRAM = "wstunnel-py"
_SUFFIX = ".code"
_DAY = 86400.0  # seconds
_UNUSED = 30 * _DAY  # after which the cache of another version is removed
_READ = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_HAS_OWNERS = hasattr(os, "geteuid")


def main(start_file: str) -> int:
    """Run the program in the archive that has ``start_file``; return its exit code."""
    archive = os.path.abspath(os.path.dirname(start_file))
    if sys.path and os.path.abspath(sys.path[0]) == archive:
        del sys.path[0]  # only `Modules` imports from it
    sys.meta_path.insert(0, Modules(archive, cache_folder()))
    from tunnel.cli.main import main

    return main()


class Modules:
    """Finds and loads the modules of the archive, as `importlib.abc` defines it. ``cache`` is a folder, or None."""

    def __init__(self, archive: str, cache: str | None) -> None:
        self.archive = archive
        self._cache = cache
        self._may_write = True
        with open(archive, "rb") as file:
            self._bytes = file.read()
        self._zip: ZipFile | None = None
        self._files = {}
        for line in MODULES.split():
            self._files[line.removesuffix(".py").removesuffix("/__init__").replace("/", ".")] = line

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        file = self._files.get(name)
        if file is None:
            return None
        origin = os.path.join(self.archive, *file.split("/"))
        spec = ModuleSpec(name, self, origin=origin, is_package=self.is_package(name))  # type: ignore[arg-type]
        spec.has_location = True
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(os.path.dirname(origin))
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.get_code(module.__name__), module.__dict__)  # noqa: S102  # what importing is

    def is_package(self, name: str) -> bool:
        return self._files[name].endswith("/__init__.py")

    def get_code(self, name: str) -> CodeType:
        shown = f"{PROGRAM}.pyz/{self._files[name]}"  # independent of the archive's name
        code = self._read(name, shown)
        if code is None:
            code = compile(self._source(name), shown, "exec", dont_inherit=True)
            self._write(name, code)
        return code

    def get_source(self, name: str) -> str:
        """Return the text of a module, which tracebacks show."""
        return self._source(name).decode()

    def get_data(self, path: str) -> bytes:
        """Return the content of a file in the archive, whose path is as if the archive were a folder."""
        return self._open().read(os.path.relpath(path, self.archive).replace(os.sep, "/"))

    def get_resource_reader(self, name: str) -> object:
        """Return the reader of a package's files for `importlib.resources`."""
        from importlib.readers import ZipReader
        from zipimport import zipimporter

        parent = os.path.dirname(os.path.dirname(self._files[name]))
        return ZipReader(zipimporter(os.path.join(self.archive, parent)), name)

    def _open(self) -> ZipFile:
        if self._zip is None:
            import io
            from zipfile import ZipFile

            self._zip = ZipFile(io.BytesIO(self._bytes))
        return self._zip

    def _source(self, name: str) -> bytes:
        return self._open().read(self._files[name])

    def _read(self, name: str, shown: str) -> CodeType | None:
        """Return the code of a module from the cache; None if it is missing or damaged."""
        if self._cache is None:
            return None
        try:
            descriptor = os.open(os.path.join(self._cache, name + _SUFFIX), _READ)
        except OSError:
            return None
        try:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode) or not _is_ours(info, writable=0o022):
                return None
            data = os.read(descriptor, info.st_size)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        if zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
            return None
        try:
            code = marshal.loads(memoryview(data)[4:])  # noqa: S302  # our own and complete, and nobody else could write it
        except (ValueError, EOFError, TypeError):
            return None
        return code if getattr(code, "co_filename", "") == shown else None

    def _write(self, name: str, code: CodeType) -> None:
        """Keep the code of a module, if possible; after the first failure nothing more is tried."""
        if self._cache is None or not self._may_write:
            return
        data = marshal.dumps(code)
        data = zlib.crc32(data).to_bytes(4, "little") + data
        path = os.path.join(self._cache, name + _SUFFIX)
        # Not with the process ID: in containers that is always the same, and a killed start may have left a file.
        temporary = f"{path}.{os.urandom(8).hex()}"
        try:
            descriptor = os.open(temporary, _CREATE, 0o600)
        except OSError:
            self._may_write = False
            return
        done = False
        try:
            try:
                whole = os.write(descriptor, data) == len(data)  # a full disk takes only a part
            finally:
                os.close(descriptor)
            if whole:
                os.replace(temporary, path)
                done = True
        except OSError:
            pass  # it need not exist
        finally:
            if not done:
                self._may_write = False
                _unlink(temporary)


def cache_folder() -> str | None:
    """Return the folder for this archive and this Python, which exists and is only ours; None if there can be none."""
    base = _base_folder()
    tag = sys.implementation.cache_tag
    if base is None or tag is None:
        return None
    optimized = f"-o{sys.flags.optimize}" if sys.flags.optimize else ""
    outer = os.path.join(base, PROGRAM)
    inner = os.path.join(outer, f"{DIGEST}-{tag}-{int.from_bytes(MAGIC_NUMBER[:2], 'little')}{optimized}")
    try:
        try:
            info = os.lstat(inner)
        except FileNotFoundError:
            if not _make_base(base):
                return None
            _make_folder(outer)
            if not _is_private(os.lstat(outer)):
                return None
            _make_folder(inner)
            info = os.lstat(inner)
            _remove_unused(outer, inner)
        if not (_is_private(info) and _is_private(os.lstat(outer))):
            return None
    except OSError:
        return None
    if time.time() - info.st_mtime > _DAY:
        try:
            os.utime(inner)  # shows that it is in use
        except OSError:
            pass  # on a read-only disk nobody removes it
    return inner


def _base_folder() -> str | None:
    """Return the folder of this user's caches, or None."""
    if sys.platform == "win32":
        folder = os.environ.get("LOCALAPPDATA", "")
        return folder if os.path.isabs(folder) else None
    folder = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(folder):
        return folder
    home = os.environ.get("HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser("~")  # the account's home, which some accounts lack
    # A home that does not exist does not count: /nonexistent, which many accounts have, must not be made.
    return os.path.join(home, ".cache") if os.path.isabs(home) and os.path.isdir(home) else None


def _make_base(base: str) -> bool:
    """Make the folder of all caches if needed; return whether we may make a folder in it.

    We may not in another user's home, which HOME can name when root runs the program.
    """
    missing = []
    while True:
        try:
            info = os.stat(base)
            break
        except FileNotFoundError:
            missing.append(base)
            parent = os.path.dirname(base)
            if parent == base:  # a drive that does not exist
                return False
            base = parent
    if not _is_ours(info) and not (info.st_uid == 0 and info.st_mode & stat.S_ISVTX):  # /tmp is everybody's
        return False
    for folder in reversed(missing):
        _make_folder(folder)
    return True


def _make_folder(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass  # another process was faster; the result is checked later


def _is_ours(info: os.stat_result, writable: int = 0) -> bool:
    """Return whether a file is ours and has no mode bit of ``writable``; Windows has no such modes."""
    return not _HAS_OWNERS or (info.st_uid == os.geteuid() and not info.st_mode & writable)


def _is_private(info: os.stat_result) -> bool:
    """Return whether it is a folder, not a link to one, that others can neither write nor read."""
    return stat.S_ISDIR(info.st_mode) and _is_ours(info, writable=0o077)


def _remove_unused(outer: str, used: str) -> None:
    """Remove the caches that have not been used for a month, except ``used``."""
    for name in os.listdir(outer):
        folder = os.path.join(outer, name)
        if folder == used or len(name) < len(DIGEST) or not _is_private(info := os.lstat(folder)):
            continue
        if time.time() - info.st_mtime > _UNUSED:
            for file in os.listdir(folder):
                _unlink(os.path.join(folder, file))
            try:
                os.rmdir(folder)
            except OSError:
                pass  # it contains something else, or another process does the same


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it is gone, or another process on Windows reads it
