"""A real nginx whose configuration, pid and temporary files are in a folder of its own."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bed.processes import program

# What lets a WebSocket through, beside `proxy_pass`.
UPGRADE = """
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_set_header Host $http_host;
"""


def nginx(folder: Path, http: str, *, descriptors: int = 1024) -> tuple[str, ...]:
    """Write the configuration of an nginx with ``http`` in its http block into ``folder``; return its command line."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f'  {kind}_temp_path "{folder}/{kind}";' for kind in kinds)
    config = folder / "nginx.conf"
    config.write_text(
        f"""\
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
worker_rlimit_nofile {descriptors};
error_log stderr error;
pid "{folder}/pid";
events {{ worker_connections {descriptors}; }}
http {{
  access_log off;
{temporary}
{http}
}}
"""
    )
    return (program("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(config))
