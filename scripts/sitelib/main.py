"""Builds the documentation as a site: pages that need no server and load nothing from anywhere else.

    scripts/make-site [FOLDER]

FOLDER is `site` in the repository by default; what it holds is replaced. A link or an anchor that leads nowhere, and a
page that is missing in mkdocs.yml's navigation, fail the build. It needs .venv, which scripts/test makes.
`.venv/bin/mkdocs serve` shows the pages while they are written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mkdocs.__main__ import cli

ROOT = Path(__file__).resolve().parents[2]
MARK = "sitemap.xml"  # what every site of ours has


def main() -> int:
    words = sys.argv[1:]
    if len(words) > 1 or any(word.startswith("-") for word in words):
        print((__doc__ or "").strip(), file=sys.stderr)
        return 0 if words in (["--help"], ["-h"]) else 2
    folder = Path(*words).resolve() if words else ROOT / "site"
    if folder.exists() and not (folder.is_dir() and ((folder / MARK).exists() or not any(folder.iterdir()))):
        print(
            f"make-site: {folder} is no site, and all that is in it would be deleted: name another folder",
            file=sys.stderr,
        )
        return 2
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")  # what is pinned is no matter of who builds the site
    cli(["build", "--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", str(folder)], standalone_mode=False)
    print((folder / "index.html").as_uri())
    return 0
