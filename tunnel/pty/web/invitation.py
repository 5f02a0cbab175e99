"""What `serve --web` says at its start: which address to open, and with which token."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  # what to open when it listens on all addresses


def may_show_secrets() -> bool:
    """Return whether stderr is a terminal that somebody sits at, and not one that is kept as a log.

    The terminal of a container's first process is (``docker run --tty``), and so is that of a CI job.
    """
    return os.isatty(2) and os.getsid(0) != 1 and not os.environ.get("CI")


def page_address(urls: Sequence[str]) -> str | None:
    """Return the address of the page on this machine for a service at ``urls``; None: a Unix socket has none."""
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme == "http":
            host = _EVERYWHERE.get(parts.hostname or "")
            return f"http://{host}:{parts.port}/" if host else f"{url}/"
    return None


def invitation(
    address: str | None, hosts: Sequence[str], *, token: str | None, token_file: str, environ: Mapping[str, str]
) -> list[str]:
    """Return the lines that tell how to open the page: with ``token`` as links, without it with where it is.

    ``address`` is that of the page on this machine (`page_address`); elsewhere the page has one of the names in
    ``hosts``, at a proxy with TLS. ``environ`` shows whether this is an ssh session.
    """
    fragment = "" if token is None else f"#token={token}"
    lines = []
    if address is not None:
        lines.append(f"open {address}{fragment} in a browser on this machine")
    names = [host for host in hosts if "*" not in host]
    lines += [
        f"open https://{name}/{fragment} elsewhere, if a proxy with TLS leads from there to here" for name in names
    ]
    if not names and hosts:
        lines.append(
            f"elsewhere: open the address that your proxy has for this service{fragment and ', with #token=…'}"
        )
    elif not names and address is not None and "SSH_CONNECTION" in environ:
        parts = urlsplit(address)
        lines.append(
            f"from another machine: ssh -L {parts.port}:{parts.netloc} to this one, then open the same address there"
        )
    if token is None:
        lines.append(f"the page asks for a token, which is a line of {token_file}")
    return lines
