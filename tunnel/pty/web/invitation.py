"""The lines of `serve --web` at its start: which address to open, and with which token."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from tunnel.net.address import join

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  # what to open when it listens on all addresses


def may_show_secrets() -> bool:
    """Return whether standard error is a user's terminal, and not one whose output is kept as a log.

    The terminal of a container's first process (``docker run --tty``) is such a log, and so is that of a CI job.
    """
    return os.isatty(2) and os.getsid(0) != 1 and not os.environ.get("CI")


def page_address(urls: Sequence[str]) -> str | None:
    """Return the address of the page on this machine for a service at ``urls``; None for a Unix socket."""
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme == "http":
            host = _EVERYWHERE.get(parts.hostname or "")
            return f"http://{host}:{parts.port}/" if host else f"{url}/"
    return None


def outside_addresses(urls: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the addresses of the page on other machines, without a proxy: with ``names``, else by an IP address."""
    for url in urls:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "http" and parts.port and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            own = "IP-ADDRESS" if host in _EVERYWHERE else host
            return [f"http://{join(name, parts.port)}/" for name in names or [own]]
    return []


def invitation(
    urls: Sequence[str], hosts: Sequence[str], *, token: str | None, token_file: str, environ: Mapping[str, str]
) -> list[str]:
    """Return the lines that say how to open the page: links with the ``token``, or where the token is.

    ``urls`` are those of the service. On other machines the page has one of the names in ``hosts``, or an address of
    this machine. ``environ`` shows whether this is an SSH session.
    """
    fragment = "" if token is None else f"#token={token}"
    address = page_address(urls)
    lines = []
    if address is not None:
        lines.append(f"open {address}{fragment} in a browser on this machine")
    names = [host for host in hosts if "*" not in host]
    lines += [
        f"open {outside}{fragment} on another machine (not encrypted)" for outside in outside_addresses(urls, names)
    ]
    lines += [f"with a reverse proxy that has TLS: open https://{name}/{fragment}" for name in names]
    if not names and hosts:
        lines.append(f"with a reverse proxy: open its address for this service{fragment and ', with #token=…'}")
    elif not names and address is not None and "SSH_CONNECTION" in environ:
        parts = urlsplit(address)
        lines.append(
            f"from another machine: ssh -L {parts.port}:{parts.netloc} to this one, then open the same address there"
        )
    if token is None:
        lines.append(f"the page asks for the token in {token_file}")
    return lines
