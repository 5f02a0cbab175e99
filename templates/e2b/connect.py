#!/usr/bin/env python3
"""Starts a sandbox from the template, prints how to ssh into it, and ends it on Ctrl-C.

With --sandbox it prints how to ssh into an existing sandbox, wakes it if it is paused, and leaves it running.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import FrameType

from build import Parser
from e2b import AuthenticationException, NotFoundException, Sandbox
from template import SETTINGS

WHERE = ("E2B_DOMAIN", "E2B_API_URL")  # for another cloud with E2B's API
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"


def lines(sandbox: Sandbox, name: str) -> list[str]:
    """Return what to type on the machine that ssh runs on."""
    # With the key, wstunnel-py asks E2B for the sandbox's domain and tokens, wakes it and keeps it alive.
    said = ["# on the machine that runs ssh, E2B_API_KEY must be set as it is here"]
    said += [f"export {name}={shlex.quote(os.environ[name])}" for name in WHERE if os.environ.get(name)]
    try:
        key = re.match(r"ssh-ed25519 [A-Za-z0-9+/]+=*", sandbox.files.read(HOST_KEY))
    except NotFoundException:
        key = None  # a sandbox of another template
    if key:
        # Read through E2B's API, not through the tunnel, so that ssh can verify the host from the start.
        said.append(f"echo {shlex.quote(f'{name} {key[0]}')} >> ~/.ssh/known_hosts")
    said.append(
        f"ssh -o ProxyCommand='wstunnel-py connect -- %h' -o HostKeyAlias={name} "
        f"{SETTINGS['user']}@{sandbox.sandbox_id}"
    )
    return said


def time_left(sandbox: Sandbox) -> float:
    """Return the seconds that the sandbox still has: its time is extended while it is in use. 0 if it has ended."""
    try:
        return (sandbox.get_info().end_at - datetime.now(UTC)).total_seconds()
    except NotFoundException:
        return 0.0


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="connect.py", description=__doc__)
    parser.add_argument("--name", default=SETTINGS["name"], help="name of the template (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=int, default=3600, metavar="SECONDS", help="how long the sandbox lives (default: %(default)s)"
    )
    parser.add_argument("--sandbox", metavar="ID", help="an existing sandbox, instead of a new one")
    parser.add_argument("--public", action="store_true", help="accept requests without the sandbox's traffic token")
    options = parser.parse_args(words)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", options.name):
        parser.error(f"--name {options.name}: letters, digits, - and _")
    if options.sandbox and options.public:
        parser.error("--public is for a new sandbox: this cannot be changed later")
    if options.sandbox and not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", options.sandbox):
        parser.error(f"--sandbox {options.sandbox}: letters, digits and -")
    if not 1 <= options.timeout <= 86400:
        parser.error(f"--timeout {options.timeout}: from 1 to 86400 seconds")
    if not os.environ.get("E2B_API_KEY"):
        parser.error("E2B_API_KEY is not set: create a key in E2B's dashboard, under API keys")
    return options


def stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(words: Sequence[str] | None = None) -> int:
    options = arguments(words)
    signal.signal(signal.SIGTERM, stop)
    try:
        if options.sandbox:
            sandbox = Sandbox.connect(options.sandbox, timeout=options.timeout)
            print("\n".join(lines(sandbox, options.name)), flush=True)
            return 0
        sandbox = Sandbox.create(
            options.name, timeout=options.timeout, network={"allow_public_traffic": options.public}
        )
        try:
            left = float(options.timeout)
            until = datetime.fromtimestamp(time.time() + left)
            print(f"# sandbox {sandbox.sandbox_id} runs until {until:%H:%M:%S} or longer; Ctrl-C ends it")
            print("\n".join(lines(sandbox, options.name)), flush=True)
            while left > 0:
                ends = time.monotonic() + left
                while (left := ends - time.monotonic()) > 0:
                    time.sleep(min(left, 1.0))
                left = time_left(sandbox)
        except KeyboardInterrupt:
            print(f"# ending sandbox {sandbox.sandbox_id}", flush=True)
        finally:
            sandbox.kill()
    except AuthenticationException as exc:
        print(f"connect.py: E2B rejects E2B_API_KEY: {' '.join(str(exc).split())}", file=sys.stderr)
        return 77
    except Exception as exc:  # whatever the SDK and its HTTP client raise becomes one line
        print(f"connect.py: {type(exc).__name__}: {' '.join(str(exc).split())}", file=sys.stderr)
        return 69
    return 0


if __name__ == "__main__":
    sys.exit(main())
