"""multipart/form-data (RFC 7578, RFC 2046 section 5.1) for uploads, Sans-I/O and strict.

A part's name is where its file goes, so it is read as it stands: a name that clients' libraries write in more than one
way is refused, and so is everything that is not whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

_HEAD_LIMIT = 16 << 10  # bytes of a part's header fields
_PADDING_LIMIT = 100  # bytes of white space behind a boundary
_BOUNDARY_LIMIT = 70  # characters, RFC 2046 section 5.1.1
_PARAMETER = re.compile(r';[ \t]*([A-Za-z0-9!#$&+.^_`|~*-]+)[ \t]*=[ \t]*(?:"((?:\\.|[^"\\])*)"|([^\s;"]+))[ \t]*')
_EXTENDED = re.compile(r"(?i:utf-8)'[^']*'((?:[^%]|%[0-9A-Fa-f]{2})*)")  # RFC 8187 section 3.2.1
# What browsers, httpx, undici and others write for a quote and control characters, and aiohttp for a slash. They leave
# a percent sign as it is, so nobody can tell what the name was.
_ESCAPED = re.compile(r"%(?:22|2[Ff]|[01][0-9A-Fa-f])")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # what a field's value cannot have; a name may have all signs else


@dataclass(frozen=True, slots=True)
class Part:
    """The beginning of a part: its field's ``name``, and the ``parameters`` that its file is named by."""

    name: str | None
    parameters: dict[str, str]

    def filename(self) -> str:
        """Return the name of the file, with all its slashes; raises ValueError when it is missing or ambiguous."""
        if (extended := self.parameters.get("filename*")) is not None:
            match = _EXTENDED.fullmatch(extended)
            if match is None:
                raise ValueError(f"filename*={extended!r} is not in UTF-8")
            return unquote_to_bytes(match[1]).decode()
        name = self.parameters.get("filename", "")
        if not name:
            raise ValueError("a part has no filename")
        plain = name.replace('\\"', '"')
        if "\\" in plain or _ESCAPED.search(name):
            raise ValueError(f"the filename {name!r} can be meant in two ways: write this file alone")
        return plain


class Parser:
    """Takes a body in pieces; for each part yields a `Part` and then its data, in pieces as they come.

    ``content_type`` is the header's value. Everything raises ValueError for what is no proper form.
    """

    def __init__(self, content_type: str) -> None:
        _, _, rest = content_type.partition(";")
        boundary = _parameters(";" + rest if rest else "").get("boundary", "")
        if not 0 < len(boundary) <= _BOUNDARY_LIMIT or not boundary.isascii():
            raise ValueError("its boundary is missing or too long")
        self._delimiter = b"\r\n--" + boundary.encode()
        self._buffer = bytearray(b"\r\n")  # as if a line had ended before the first boundary
        self._step = self._skip_preamble

    def feed(self, data: bytes) -> Iterator[Part | bytes]:
        """Take the next piece of the body."""
        self._buffer += data
        step = None
        while step != self._step:
            step = self._step
            yield from step()

    def finish(self) -> None:
        """Check that the body was whole."""
        if self._step != self._skip_epilogue:
            raise ValueError("it ends before its closing boundary")

    # Each step takes what it can off the buffer, and says which one is next.

    def _skip_preamble(self) -> Iterator[Part | bytes]:
        for _ in self._read_data():
            pass
        return iter(())

    def _read_data(self) -> Iterator[Part | bytes]:
        at = self._buffer.find(self._delimiter)
        # The last bytes may be the beginning of a delimiter.
        end = at if at >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        if end:
            yield bytes(memoryview(self._buffer)[:end])
            del self._buffer[:end]
        if at >= 0:
            del self._buffer[: len(self._delimiter)]
            self._step = self._end_delimiter

    def _end_delimiter(self) -> Iterator[Part | bytes]:
        if self._buffer.startswith(b"--"):
            del self._buffer[:2]
            self._step = self._skip_epilogue
        elif len(self._buffer) >= 2:
            end = self._buffer.find(b"\r\n")
            padding = self._buffer if end < 0 else self._buffer[:end]
            if len(padding) > _PADDING_LIMIT or padding.strip(b" \t\r"):
                raise ValueError("a boundary does not end with its line")
            if end >= 0:
                del self._buffer[:end]
                self._step = self._read_head
        return iter(())

    def _read_head(self) -> Iterator[Part | bytes]:
        end = self._buffer.find(b"\r\n\r\n")
        if (end if end >= 0 else len(self._buffer)) > _HEAD_LIMIT:
            raise ValueError("the header fields of a part are too long")
        if end >= 0:
            head = self._buffer[2:end].decode()
            del self._buffer[: end + 4]
            # The blank line is also the end of a line before the next boundary, if there is no data.
            yield _parse_head(head)
            self._step = self._read_data

    def _skip_epilogue(self) -> Iterator[Part | bytes]:
        if self._buffer.strip():
            raise ValueError("something follows its closing boundary")
        self._buffer.clear()
        return iter(())


def _parse_head(head: str) -> Part:
    fields: dict[str, str] = {}
    for line in re.sub(r"\r\n[ \t]+", " ", head).split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or not name.isascii() or name != name.strip() or _CONTROL.search(value):
            raise ValueError("a part has no proper header fields")
        if name.lower() in fields:
            raise ValueError(f"a part has two header fields {name}")
        fields[name.lower()] = value.strip(" \t")
    if fields.get("content-transfer-encoding", "binary").lower() not in ("7bit", "8bit", "binary"):
        raise ValueError("a part has a Content-Transfer-Encoding")  # deprecated by RFC 7578 section 4.7
    kind, semicolon, rest = fields.get("content-disposition", "").partition(";")
    if kind.strip().lower() != "form-data":
        raise ValueError("a part is no form-data")
    parameters = _parameters(semicolon + rest)
    return Part(parameters.get("name"), parameters)


def _parameters(text: str) -> dict[str, str]:
    """Parse ``; name=value; name="value"``; a quoted value keeps its backslashes."""
    found: dict[str, str] = {}
    at, text = 0, text.strip()
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None or match[1].lower() in found:
            raise ValueError(f"cannot make sense of {text[at : at + 100]!r}")
        found[match[1].lower()] = match[2] if match[3] is None else match[3]
        at = match.end()
    return found
