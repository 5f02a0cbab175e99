"""What the functions for programs take beside host, token and headers, for type checkers, editors and `help`."""

from __future__ import annotations

import os
from typing import TypedDict


class TunnelOptions(TypedDict, total=False):
    """Options of a tunnel: those of ``wstunnel-py connect``, by their long names; none is needed.

    - ``url``: the URL of the bridge, in which {host} and {port} are replaced. ``port``: for {port} there.
    - ``token_file``: a file with the bearer token.
    - ``ca_file``: trust the certificates in it instead of the system's. ``client_cert``, ``client_key``: to show to the
      server. ``insecure``: do not check the server's certificate; anyone on the network path can then read and change
      the traffic.
    - ``proxy``: ``http://``, ``socks5://`` or ``socks5h://``, or ``none``. By default that of the usual variables.
    - ``connect_timeout``: seconds for DNS, TCP, proxy, TLS and upgrade together.
    - ``no_resume``: break when the connection is lost. ``reconnect_for``: seconds to try to restore it otherwise.
    - ``ping_interval``: ping after so many seconds of silence. ``ping_timeout``: seconds to wait for the answer.
    - ``max_message``: bytes of the largest message, for an edge that accepts no larger ones.
    - ``ipv4``, ``ipv6``: use this kind of address only.
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
    ipv4: bool
    ipv6: bool
    config: str | os.PathLike[str]
    log_file: str | os.PathLike[str]
    quiet: bool
    verbose: bool
