"""Users and passwords, from all places where websocat 1.14 reads them: for the server, and for a SOCKS5 proxy.

They are never shown, neither in errors nor with ``-v``.
"""

from __future__ import annotations

import binascii
import os

from tunnel.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.websocat.command_line import CommandLine

VARIABLE = "WEBSOCAT_BASIC_AUTH"
_LIMIT = 8192  # bytes of a file with user and password
_USER_PASS = "--socks5-user-pass"  # noqa: S105  # the option's name


def split_user(url: str) -> tuple[str, str | None]:
    """Return the URL without its user and password, and these two, which websocat sends in a header."""
    scheme, separator, rest = url.partition("://")
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    user, at, host = rest[:end].rpartition("@")
    if not at:
        return url, None
    from urllib.parse import unquote

    return f"{scheme}{separator}{host}{rest[end:]}", unquote(user)


def authorization(line: CommandLine, of_url: str | None, warnings: list[str]) -> str | None:
    """Return the header line for the given user and password; None if there are none.

    ``of_url`` are those in the URL. Adds to ``warnings`` if other users can read a file with them. Raises UsageError,
    also if they are given in two places.
    """
    found = {
        "--basic-auth": line.text("basic-auth"),
        # As everywhere in this program, an empty variable does not count.
        VARIABLE: os.environ.get(VARIABLE) or None,
        "--basic-auth-file": _of_file(line, warnings),
        "the URL": of_url,
    }
    given = [place for place, login in found.items() if login is not None]
    if len(given) > 1:
        raise UsageError(f"user and password are given twice: by {' and by '.join(given)}")
    for place in given:
        try:
            encoded = binascii.b2a_base64((found[place] or "").encode(), newline=False).decode()
        except UnicodeEncodeError as exc:
            raise UsageError("user and password are not text in this locale", origin=place) from exc
        return f"Authorization: Basic {encoded}"
    return None


def proxy_url(line: CommandLine) -> str | None:
    """Return the URL of the given SOCKS5 proxy, with its user and password; None without one. Raises UsageError."""
    login = line.text("socks5-user-pass")
    if login is not None and ":" not in login:
        raise UsageError("USER:PASSWORD is expected", origin=_USER_PASS)  # without the value, a secret
    if not line.given("socks5"):
        return None
    place = line.text("socks5") or ""
    if not (place.isascii() and place.rpartition(":")[2].isdigit()):
        raise UsageError(f"--socks5: {place!r} is not HOST:PORT")
    # As with websocat, the proxy resolves the name.
    return f"socks5h://{'' if login is None else _in_url(login)}{place}"


def _in_url(login: str) -> str:
    from urllib.parse import quote

    user, _, password = login.partition(":")
    try:
        return f"{quote(user, safe='')}:{quote(password, safe='')}@"
    except UnicodeEncodeError as exc:
        raise UsageError("user and password are not text in this locale", origin=_USER_PASS) from exc


def _of_file(line: CommandLine, warnings: list[str]) -> str | None:
    """Return the content of --basic-auth-file without surrounding white space, as with websocat."""
    path = line.text("basic-auth-file")
    if path is None:
        return None
    from tunnel.net.files import LENIENT, exposure_warning, read_regular, text_of

    try:
        data, info = read_regular(path, _LIMIT, guard=LENIENT)
        login = text_of(data).strip()
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "it is not text"
        raise UsageError(code="file", origin="--basic-auth-file", path=path, reason=reason) from exc
    if not login:
        raise UsageError(code="file", origin="--basic-auth-file", path=path, reason="it is empty")
    warnings += exposure_warning(path, info, "the secret in ")
    return login
