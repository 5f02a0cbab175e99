#!/usr/bin/env python3
"""Builds the template in E2B's cloud, under the account of E2B_API_KEY."""

from __future__ import annotations

import argparse
import base64
import binascii
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from e2b import AuthenticationException, Template, default_build_logger
from template import HERE, SETTINGS, ssh_template

REPOSITORY = HERE.parents[1]
COPIED = HERE / "dist"
KEY = re.compile(r"((?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+) ([A-Za-z0-9+/]+={0,2})(?: .*)?")
OLDEST_RELEASE = (24, 4)  # the first long-term one with Python 3.11 or later


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def read_keys(path: Path) -> list[str]:
    """Return the public keys in a file, one a line, without their comments. Raises ValueError."""
    try:
        text = path.expanduser().read_text()
    except OSError as exc:
        raise ValueError(f"{path}: {exc.strerror}; ssh-keygen -t ed25519 makes a key") from exc
    except UnicodeDecodeError as exc:
        raise ValueError(f"{path}: not a public key file") from exc
    if "PRIVATE KEY" in text:
        raise ValueError(f"{path} is a private key, which must stay out of images; give the file that ends in .pub")
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    keys = [_public_key(line) for line in lines]
    if not keys or None in keys:
        raise ValueError(f"{path}: not a public key file")
    return [key for key in keys if key]


def _public_key(line: str) -> str | None:
    match = KEY.fullmatch(line)
    if match is None:
        return None
    kind, text = match.groups()
    try:
        blob = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    # RFC 4253 section 6.6: the blob begins with the kind again, as a string with its length.
    return f"{kind} {text}" if blob.startswith(len(kind).to_bytes(4, "big") + kind.encode()) else None


def check_release(text: str) -> str:
    match = re.fullmatch(r"(\d\d)\.(04|10)", text)
    if match is None:
        raise ValueError(f"--release {text}: not an Ubuntu release such as 24.04 or 26.04")
    if (int(match[1]), int(match[2])) < OLDEST_RELEASE:
        raise ValueError(f"--release {text}: the bridge needs Python 3.11, so use 24.04 or later")
    return text


def find_bridge(wanted: str | None) -> str:
    """Return what `ssh_template` takes: the path of a file in this folder, or a requirement. Raises ValueError."""
    if wanted and not wanted.endswith((".whl", ".pyz")):
        if not re.fullmatch(r"wstunnel-py(\[[a-z,]+\])?([=<>!~]=?[0-9a-z.,=<>!~*]+)?", wanted):
            raise ValueError(f"--bridge {wanted}: not a wheel, a .pyz file or a requirement such as wstunnel-py==1.0")
        return wanted
    with tempfile.TemporaryDirectory() as folder:
        file = Path(wanted).expanduser() if wanted else build_wheel(Path(folder))
        if not file.is_file():
            raise ValueError(f"--bridge {wanted}: there is no such file")
        target = COPIED / file.name
        if file.resolve() != target:
            COPIED.mkdir(exist_ok=True)
            shutil.copy(file, target)
    return target.relative_to(HERE).as_posix()


def build_wheel(folder: Path) -> Path:
    """Make a wheel of the repository that this folder is a part of. Raises ValueError."""
    if not (REPOSITORY / "tunnel").is_dir():
        raise ValueError("this folder is not in its repository: name the bridge with --bridge")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY)]
    done = subprocess.run(pip, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.strip().splitlines() or ["it printed nothing"]
        raise ValueError(f"the wheel cannot be built: {lines[-1]}")
    return wheels[0]


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="build.py", description=__doc__)
    parser.add_argument("--name", default=SETTINGS["name"], help="name of the template (default: %(default)s)")
    parser.add_argument(
        "--public-key", type=Path, default=Path("~/.ssh/id_ed25519.pub"), metavar="FILE",
        help="who may log in: one or more keys, one per line (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--release", default=SETTINGS["release"], help="release of Ubuntu (default: %(default)s)")
    parser.add_argument(
        "--bridge", metavar="SOURCE",
        help="a wheel, the single file wstunnel-py.pyz (needs no pip), or wstunnel-py==VERSION from PyPI "
        "(default: a wheel of this repository)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print what would be sent to E2B, and send nothing")
    options = parser.parse_args(words)
    try:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*(:[A-Za-z0-9._-]+)?", options.name):
            raise ValueError(f"--name {options.name}: use lower-case letters, digits, - and _")
        if not options.json and not os.environ.get("E2B_API_KEY"):
            raise ValueError("E2B_API_KEY is not set: create a key in E2B's dashboard, under API keys")
        options.release = check_release(options.release)
        options.keys = read_keys(options.public_key)
        options.bridge = find_bridge(options.bridge)
    except ValueError as exc:
        parser.error(str(exc))
    return options


def main(words: Sequence[str] | None = None) -> int:
    options = arguments(words)
    template = ssh_template(options.keys, options.bridge, options.release)
    if options.json:
        print(Template.to_json(template))
        return 0
    try:
        built = Template.build(
            template,
            options.name,
            cpu_count=SETTINGS["cpu_count"],
            memory_mb=SETTINGS["memory_mb"],
            on_build_logs=default_build_logger(),
        )
    except AuthenticationException as exc:
        print(f"build.py: E2B rejects E2B_API_KEY: {' '.join(str(exc).split())}", file=sys.stderr)
        return 77
    except Exception as exc:  # whatever the SDK and its HTTP client raise becomes one line
        print(f"build.py: {type(exc).__name__}: {' '.join(str(exc).split())}", file=sys.stderr)
        return 69
    print(f"{options.name} is ready (template {built.template_id}): python connect.py --name {options.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
