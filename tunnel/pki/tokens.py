"""Bearer tokens and the files that hold them: one token a line; empty lines and lines that begin with # are ignored.

The bridge accepts any token of its file, so that a new one can be added before the old one is removed. A client's file
holds only its own token.
"""

from __future__ import annotations

import os
import re
import secrets

from tunnel.errors import UsageError
from tunnel.net.files import ANY, STRICT, is_utf16, read_regular, text_of
from tunnel.pki import storage

ENTROPY = 32  # bytes of randomness of a token
SHORT = 22  # characters; fewer have less than 128 bits, even if they are random
_FILE_LIMIT = 1 << 20  # bytes of a token file
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # b64token, RFC 6750 section 2.1


def make_token(path: str | None, *, append_to: str | None = None, force: bool = False) -> str:
    """Make a token of 256 bits, write it to the new file ``path``, if any, and add it to ``append_to``, if any.

    Returns the token. Raises UsageError if a file cannot be written, exists already (unless ``force``), or is not a
    token file.
    """
    token = secrets.token_urlsafe(ENTROPY)
    if append_to is not None:
        _check_appendable(append_to)
    if path is not None:
        storage.write([storage.NewFile(path, f"{token}\n".encode(), storage.SECRET)], force=force)
    if append_to is not None:
        try:
            storage.append_line(append_to, token)
        except UsageError:
            if path is not None and not force:
                os.unlink(path)  # no bridge knows this token
            raise
    return token


def read_tokens(path: str, setting: str, *, guard: str = STRICT) -> list[str]:
    """Return the tokens of a file; ``setting`` names the setting for it, ``guard`` who may be able to write it.

    Raises UsageError if it cannot be read, if other users can write it, if it has no token or an invalid line.
    """
    try:
        too_long = "it is longer than {limit} characters"
        text = text_of(read_regular(path, _FILE_LIMIT, guard=guard, too_long=too_long)[0])
    except OSError as exc:
        raise _bad_file(setting, path, exc.strerror or str(exc)) from exc
    except UnicodeDecodeError as exc:
        raise _bad_file(setting, path, "it is not text") from exc
    tokens = []
    for number, line in enumerate(text.splitlines(), 1):
        token = line.strip()
        if not token or token.startswith("#"):
            continue
        if not _TOKEN.fullmatch(token):
            raise _bad_file(setting, path, f"line {number} is not a token: only letters, digits and -._~+/ are allowed")
        tokens.append(token)
    if not tokens:
        raise _bad_file(setting, path, "there is no token in it")
    return tokens


def describe_tokens(path: str) -> list[str]:
    """Return lines that describe a token file, without the tokens themselves.

    Raises UsageError as `read_tokens` does.
    """
    tokens = read_tokens(path, "", guard=ANY)  # a warning below says if other users can write it
    several = f"{len(tokens)} tokens, for serve; connect needs a file with one token"
    lines = [f"{path}: {'one token' if len(tokens) == 1 else several}"]
    short = sum(len(token) < SHORT for token in tokens)
    if short:
        lines.append(f"  warning: {short} with fewer than {SHORT} characters, which could be guessed")
    if len(set(tokens)) < len(tokens):
        lines.append("  warning: one token occurs twice")
    return [*lines, *(f"  warning: {warning}" for warning in storage.exposure(path))]


def _check_appendable(path: str) -> None:
    try:
        data = read_regular(path, _FILE_LIMIT)[0]
    except FileNotFoundError:
        return
    except OSError as exc:
        raise _bad_file("append", path, exc.strerror or str(exc)) from exc
    if is_utf16(data):
        raise _bad_file("append", path, "it is UTF-16: only a UTF-8 file can be appended to")
    if data.strip():
        read_tokens(path, "append")


def _bad_file(setting: str, path: str, reason: str) -> UsageError:
    return UsageError(code="file", setting=setting, path=path, reason=reason)
