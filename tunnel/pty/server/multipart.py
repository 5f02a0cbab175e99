"""A strict parser of multipart/form-data (RFC 7578, RFC 2046 section 5.1) for uploads. Sans-I/O.

The name of a part is the path of its file, so it must be unambiguous: names that client libraries encode in different
ways are refused, and so is incomplete data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

_HEAD_LIMIT = 16 << 10  # bytes of a part's header fields
_PADDING_LIMIT = 100  # bytes of white space after a boundary
_BOUNDARY_LIMIT = 70  # characters, RFC 2046 section 5.1.1
_PARAMETER = re.compile(r';[ \t]*([A-Za-z0-9!#$&+.^_`|~*-]+)[ \t]*=[ \t]*(?:"((?:\\.|[^"\\])*)"|([^\s;"]+))[ \t]*')
_EXTENDED = re.compile(r"(?i:utf-8)'[^']*'((?:[^%]|%[0-9A-Fa-f]{2})*)")  # RFC 8187 section 3.2.1
# How browsers, httpx, undici and others encode quotes and control characters, and aiohttp a slash. They do not encode
# percent signs, so the original name is ambiguous.
_ESCAPED = re.compile(r"%(?:22|2[Ff]|[01][0-9A-Fa-f])")
_CONTROL = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f]"
)  # not allowed in the value of a field; names may contain everything else


@dataclass(frozen=True, slots=True)
class Part:
    """The head of a part: its ``name``, and the ``parameters`` that contain the name of its file."""

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
            raise ValueError(f"the filename {name!r} is ambiguous: upload this file alone")
        return plain


class Parser:
    """Parses a body piece by piece; yields a `Part` for each part, followed by its data.

    ``content_type`` is the value of the header. All methods raise ValueError for malformed data.
    """

    def __init__(self, content_type: str) -> None:
        _, _, rest = content_type.partition(";")
        boundary = _parameters(";" + rest if rest else "").get("boundary", "")
        if not 0 < len(boundary) <= _BOUNDARY_LIMIT or not boundary.isascii():
            raise ValueError("the boundary is missing or too long")
        self._delimiter = b"\r\n--" + boundary.encode()
        self._buffer = bytearray(b"\r\n")  # the first boundary needs no line before it
        self._step = self._skip_preamble

    def feed(self, data: bytes) -> Iterator[Part | bytes]:
        """Parse the next piece of the body."""
        self._buffer += data
        step = None
        while step != self._step:
            step = self._step
            yield from step()

    def finish(self) -> None:
        """Check that the body is complete."""
        if self._step != self._skip_epilogue:
            raise ValueError("the closing boundary is missing")

    # Each step consumes what it can from the buffer and sets the next step.

    def _skip_preamble(self) -> Iterator[Part | bytes]:
        for _ in self._read_data():
            pass
        return iter(())

    def _read_data(self) -> Iterator[Part | bytes]:
        at = self._buffer.find(self._delimiter)
        # The last bytes may be the start of a delimiter.
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
                raise ValueError("a boundary is followed by other text in its line")
            if end >= 0:
                del self._buffer[:end]
                self._step = self._read_head
        return iter(())

    def _read_head(self) -> Iterator[Part | bytes]:
        end = self._buffer.find(b"\r\n\r\n")
        if (end if end >= 0 else len(self._buffer)) > _HEAD_LIMIT:
            raise ValueError("the header of a part is too long")
        if end >= 0:
            head = self._buffer[2:end].decode()
            del self._buffer[: end + 4]
            # The blank line also ends the line before the next boundary, if the part is empty.
            yield _parse_head(head)
            self._step = self._read_data

    def _skip_epilogue(self) -> Iterator[Part | bytes]:
        if self._buffer.strip():
            raise ValueError("there is data after the closing boundary")
        self._buffer.clear()
        return iter(())


def _parse_head(head: str) -> Part:
    fields: dict[str, str] = {}
    for line in re.sub(r"\r\n[ \t]+", " ", head).split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or not name.isascii() or name != name.strip() or _CONTROL.search(value):
            raise ValueError("the header of a part is malformed")
        if name.lower() in fields:
            raise ValueError(f"a part has the header field {name} twice")
        fields[name.lower()] = value.strip(" \t")
    if fields.get("content-transfer-encoding", "binary").lower() not in ("7bit", "8bit", "binary"):
        raise ValueError("Content-Transfer-Encoding is not supported")  # deprecated by RFC 7578 section 4.7
    kind, semicolon, rest = fields.get("content-disposition", "").partition(";")
    if kind.strip().lower() != "form-data":
        raise ValueError("a part is not form-data")
    parameters = _parameters(semicolon + rest)
    return Part(parameters.get("name"), parameters)


def _parameters(text: str) -> dict[str, str]:
    """Parse ``; name=value; name="value"``; a quoted value keeps its backslashes."""
    found: dict[str, str] = {}
    at, text = 0, text.strip()
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None or match[1].lower() in found:
            raise ValueError(f"cannot parse {text[at : at + 100]!r}")
        found[match[1].lower()] = match[2] if match[3] is None else match[3]
        at = match.end()
    return found
