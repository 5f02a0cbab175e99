"""The options of `open_socket` and the like besides host, token and headers, for type checkers, editors and `help`."""

from __future__ import annotations

import os
from typing import TypedDict


class TunnelOptions(TypedDict, total=False):
    """Options of a tunnel: those of ``wstunnel-py connect``, by their long names; all are optional.

    - ``url``: the URL of the bridge, in which {host} and {port} are replaced. ``port``: for {port} there.
    - ``token_file``: a file with the bearer token.
    - ``ca_file``: trust the certificates in it instead of the system's. ``client_cert``, ``client_key``: to show to the
      server. ``insecure``: do not check the server's certificate; anyone on the network path can then read and change
      the traffic.
    - ``proxy``: a URL with ``http://``, ``socks5://`` or ``socks5h://``, or ``none``. Default: the usual variables.
    - ``connect_timeout``: seconds for DNS, TCP, proxy, TLS and upgrade together.
    - ``no_resume``: fail when the connection is lost. ``reconnect_for``: otherwise, seconds to try to restore it.
    - ``ping_interval``: seconds of silence before a ping. ``ping_timeout``: seconds to wait for the answer.
    - ``max_message``: bytes of the largest message, for an edge that accepts no larger ones.
    - ``provider``: ``e2b`` or ``none``. ``api_key_file``, ``api_domain``, ``api_url``: its API. ``sandbox_timeout``:
      seconds that the sandbox lives at least. ``keep_alive``: ``active``, ``open`` or ``never``. ``wake``: ``always``,
      ``on-input`` or ``never``.
    - ``ipv4``, ``ipv6``: use only this kind of address.
    - ``config``: another config file. ``log_file``: append each step to it. ``quiet``, ``verbose``: as for the command.
    """

    url: str
    port: int
    token_file: str | os.PathLike[str]
    ca_file: str | os.PathLike[str]
    client_cert: str | os.PathLike[str]
    client_key: str | os.PathLike[str]
    insecure: bool
    proxy: str
    connect_timeout: float
    ping_interval: float
    ping_timeout: float
    no_resume: bool
    reconnect_for: float
    max_message: int
    provider: str
    api_key_file: str | os.PathLike[str]
    api_domain: str
    api_url: str
    sandbox_timeout: int
    keep_alive: str
    wake: str
    ipv4: bool
    ipv6: bool
    config: str | os.PathLike[str]
    log_file: str | os.PathLike[str]
    quiet: bool
    verbose: bool
