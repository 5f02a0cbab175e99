#!/usr/bin/env python3
"""Starts a sandbox from the template, prints how to ssh into it, and ends it on Ctrl-C."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import FrameType

from build import Parser
from e2b import AuthenticationException, Sandbox
from template import SETTINGS

USUAL_DOMAIN = "e2b.app"  # the one in the default URL of `wstunnel-py connect`
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"


def lines(sandbox: Sandbox, name: str) -> list[str]:
    """Return what to type on the machine that ssh runs on."""
    said = []
    domain = sandbox.sandbox_domain
    if domain != USUAL_DOMAIN:
        said.append(f"export WSTUNNEL_PY_URL={shlex.quote('wss://{port}-{host}.' + domain)}")
    if sandbox.traffic_access_token:
        # By the environment, as other users of a machine can read command lines.
        header = f"e2b-traffic-access-token: {sandbox.traffic_access_token}"
        said.append(f"export WSTUNNEL_PY_HEADER={shlex.quote(header)}")
    key = re.match(r"ssh-ed25519 [A-Za-z0-9+/]+=*", sandbox.files.read(HOST_KEY))
    if key:
        # Read by way of E2B's API, not of the tunnel, so that ssh knows from the start whom it talks to.
        said.append(f"echo {shlex.quote(f'{name} {key[0]}')} >> ~/.ssh/known_hosts")
    said.append(
        f"ssh -o ProxyCommand='wstunnel-py connect -- %h' -o HostKeyAlias={name} "
        f"{SETTINGS['user']}@{sandbox.sandbox_id}"
    )
    return said


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="connect.py", description=__doc__)
    parser.add_argument("--name", default=SETTINGS["name"], help="of the template (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=int, default=3600, metavar="SECONDS", help="how long the sandbox lives (default: %(default)s)"
    )
    parser.add_argument(
        "--public", action="store_true", help="let traffic in that does not bring the sandbox's access token"
    )
    options = parser.parse_args(words)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", options.name):
        parser.error(f"--name {options.name}: letters, digits, - and _")
    if not 1 <= options.timeout <= 86400:
        parser.error(f"--timeout {options.timeout}: from 1 to 86400 seconds")
    if not os.environ.get("E2B_API_KEY"):
        parser.error("E2B_API_KEY is not set: a key is made in E2B's dashboard, under API keys")
    return options


def stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(words: Sequence[str] | None = None) -> int:
    options = arguments(words)
    signal.signal(signal.SIGTERM, stop)
    try:
        sandbox = Sandbox.create(
            options.name, timeout=options.timeout, network={"allow_public_traffic": options.public}
        )
        try:
            ends = time.monotonic() + options.timeout
            until = datetime.now() + timedelta(seconds=options.timeout)
            print(f"# sandbox {sandbox.sandbox_id} runs until {until:%H:%M:%S}; Ctrl-C ends it")
            print("\n".join(lines(sandbox, options.name)), flush=True)
            while (left := ends - time.monotonic()) > 0:
                time.sleep(min(left, 1.0))
        except KeyboardInterrupt:
            print(f"# ending sandbox {sandbox.sandbox_id}", flush=True)
        finally:
            sandbox.kill()
    except AuthenticationException as exc:
        print(f"connect.py: E2B refuses E2B_API_KEY: {' '.join(str(exc).split())}", file=sys.stderr)
        return 77
    except Exception as exc:  # whatever the SDK and its HTTP client raise: the user is told in one line all the same
        print(f"connect.py: {type(exc).__name__}: {' '.join(str(exc).split())}", file=sys.stderr)
        return 69
    return 0


if __name__ == "__main__":
    sys.exit(main())
