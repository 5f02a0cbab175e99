"""Bearer tokens and the files that hold them: one token a line; empty lines and those that begin with # do not count.

The bridge takes any token of its file, so that a new one can be added before the old one goes; a client's file holds
its token alone.
"""

from __future__ import annotations

import os
import re
import secrets

from tunnel.errors import UsageError
from tunnel.net.files import ANY, STRICT, is_utf16, read_regular, text_of
from tunnel.pki import storage

ENTROPY = 32  # bytes of randomness of a token
SHORT = 22  # characters: less than 128 bits, even if they are random
_FILE_LIMIT = 1 << 20  # bytes of a token file
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # b64token, RFC 6750 section 2.1


def make_token(path: str | None, *, append_to: str | None = None, force: bool = False) -> str:
    """Make a token of 256 bits, write it to the new file ``path``, if any, and add it to ``append_to``, if any.

    Returns the token. Raises UsageError when a file cannot be written, exists already (unless ``force``), or is no
    file of tokens.
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
                os.unlink(path)  # a token that no bridge knows would only lead astray
            raise
    return token


def read_tokens(path: str, setting: str, *, guard: str = STRICT) -> list[str]:
    """Return the tokens of a file; ``setting`` is what named it, and ``guard`` tells who may be able to write it.

    Raises UsageError when it cannot be read, others can write it, it has no token, or a line that can be none.
    """
    try:
        too_long = "it is longer than {limit} characters"
        text = text_of(read_regular(path, _FILE_LIMIT, guard=guard, too_long=too_long)[0])
    except OSError as exc:
        raise _bad_file(setting, path, exc.strerror or str(exc)) from exc
    except UnicodeDecodeError as exc:
        raise _bad_file(setting, path, "it is no text") from exc
    tokens = []
    for number, line in enumerate(text.splitlines(), 1):
        token = line.strip()
        if not token or token.startswith("#"):
            continue
        if not _TOKEN.fullmatch(token):
            raise _bad_file(setting, path, f"line {number} is no token: letters, digits and -._~+/ only")
        tokens.append(token)
    if not tokens:
        raise _bad_file(setting, path, "there is no token in it")
    return tokens


def describe_tokens(path: str) -> list[str]:
    """Return lines that tell of a token file what may be told: how many there are, never what they are.

    Raises UsageError as `read_tokens` does.
    """
    tokens = read_tokens(path, "", guard=ANY)  # that others can write it is told as a warning below
    several = f"{len(tokens)} tokens: for serve; connect wants a file with one"
    lines = [f"{path}: {'one token' if len(tokens) == 1 else several}"]
    short = sum(len(token) < SHORT for token in tokens)
    if short:
        lines.append(f"  warning: {short} of less than {SHORT} characters, which may be guessed")
    if len(set(tokens)) < len(tokens):
        lines.append("  warning: one is there twice")
    return [*lines, *(f"  warning: {warning}" for warning in storage.exposure(path))]


def _check_appendable(path: str) -> None:
    try:
        data = read_regular(path, _FILE_LIMIT)[0]
    except FileNotFoundError:
        return
    except OSError as exc:
        raise _bad_file("append", path, exc.strerror or str(exc)) from exc
    if is_utf16(data):
        raise _bad_file("append", path, "it is UTF-16, and a line of UTF-8 would spoil it")
    if data.strip():
        read_tokens(path, "append")


def _bad_file(setting: str, path: str, reason: str) -> UsageError:
    return UsageError(code="file", setting=setting, path=path, reason=reason)
