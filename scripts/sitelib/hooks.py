"""Lets MkDocs build the site from the files where they are in the repository, so that their links stay as they are.

A page's source path is its path in the repository; only its address is shorter: docs/wire.md becomes wire.html,
templates/e2b/README.md becomes templates/e2b.html. A link to a file that is no page leads to the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[2]
FRONT = "docs/README.md"
SOURCES = ("*.md", "docs/*.md", "docs/examples/*/README.md", "docs/pictures/*.svg", "templates/*/README.md")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LIST_IN_PARAGRAPH = re.compile(r"^(?![-*] |\d+\. |[|#>\s])(.+)\n(?=[-*] |1\. )", re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<path>(?![a-z]+:|#)[^)#\s]+)(?P<rest>[^)]*)\)")


def sources() -> list[str]:
    """Return the paths in the repository of all that the site shows."""
    return sorted(path.relative_to(ROOT).as_posix() for pattern in SOURCES for path in ROOT.glob(pattern))


def address(source: str) -> str:
    """Return where the site has the file with this path in the repository."""
    if source == FRONT:
        return "index.html"
    if source.endswith("/README.md"):
        return source.removesuffix("/README.md").removeprefix("docs/") + ".html"
    name = source.removeprefix("docs/") if "/" in source else source.lower()
    return re.sub(r"\.md$", ".html", name)


def on_config(config: MkDocsConfig) -> None:
    """Give headings the anchors that they have on GitHub."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the theme's files and the repository's."""
    ours = (File(each, str(ROOT), config.site_dir, False, dest_uri=address(each)) for each in sources())
    return Files([*(file for file in files if file.src_dir != config.docs_dir), *ours])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page as MkDocs has to get it.

    A link that is called by a page's file name is called by its title, and one to a file that is no page leads to the
    repository. Unlike GitHub, MkDocs wants an empty line between a paragraph and a list, and shows the backslash of a
    bar in a table's code.
    """
    folder = posixpath.dirname(page.file.src_uri)

    def link(found: re.Match[str]) -> str:
        text, path, rest = found.group("text", "path", "rest")
        source = posixpath.normpath(posixpath.join(folder, path))
        file = files.get_file_from_path(source)
        if file is None and (ROOT / source).exists():
            return f"[{text}]({config.repo_url}/blob/main/{source})"
        if file is not None and file.page is not None and text.endswith(".md"):
            return f"[{file.page.title}]({path}{rest})"
        return found[0]

    parts = _FENCE.split(markdown)  # those with odd numbers are code
    for number in range(0, len(parts), 2):
        text = _LIST_IN_PARAGRAPH.sub(r"\1\n\n", parts[number])
        text = _CODE.sub(lambda found: found[0].replace("\\|", "|"), text)
        parts[number] = _LINK.sub(link, text)
    return "".join(parts)
