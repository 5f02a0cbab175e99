"""Malformed requests: each gets a 4xx and at most one log line, and no part of it is quoted anywhere."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import re
import socket
import time
import zlib
from pathlib import Path

import pytest
from aiohttp import web

from tests.bed.processes import Bed
from tests.pty.beds import Service, start_service
from tests.pty.raw import LIMIT, Raw, envelope, eventually
from tunnel.pty.server.service import TerminalService
from tunnel.server.settings import TerminalSettings

SECRET = "a-secret-that-nobody-shall-read"
HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
UNARY = b"POST /process.Process/List HTTP/1.1\r\n" + HOST + JSON
UPLOAD = b"POST /files?path=/tmp/UPLOADED HTTP/1.1\r\n" + HOST

_ADDRESSES = itertools.cycle(range(1, 255))
_sources: list[str] = []  # of connections so far


@pytest.fixture(scope="module")
def token(token_file: Path) -> bytes:
    return b"X-Access-Token: " + token_file.read_bytes().strip() + b"\r\n"


def dial(service: Service) -> socket.socket:
    """Connect from a new address each time, because the log limits the lines of one address."""
    host, _, port = service.url.removeprefix("http://").rpartition(":")
    source = f"127.1.{next(_ADDRESSES)}.1"
    _sources.append(source)
    return socket.create_connection((host, int(port)), timeout=LIMIT, source_address=(source, 0))


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


def new_lines(service: Service, before: int) -> list[str]:
    """Return the new log lines, without those about earlier clients, which may come late."""
    others = [f" client={source}:" for source in _sources[:-1] if source != _sources[-1]]
    return [line for line in service.process.log()[before:].splitlines() if not any(other in line for other in others)]


def ask(service: Service, data: bytes) -> bytes:
    """Send ``data`` and return everything that arrives until the service closes the connection, or stops sending."""
    with dial(service) as sock:
        try:
            sock.sendall(data)
        except OSError:
            pass
        answer = b""
        try:
            while b"\r\n\r\n" not in answer and (more := sock.recv(65536)):
                answer += more
            sock.shutdown(socket.SHUT_WR)
            while more := sock.recv(65536):
                answer += more
        except OSError:
            pass
        return answer


BEFORE_THE_TOKEN = {
    "garbage": b"\x00\x01\x02\xff\xfe" * 20 + b"\r\n\r\n",
    "a line of text": b"hello there\r\n\r\n",
    "an SSH client": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 200,
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "HTTP/3.7": b"GET / HTTP/3.7\r\n" + HOST + b"\r\n",
    "no version": b"GET /health\r\n" + HOST + b"\r\n",
    "an unknown method": b"BREW /health HTTP/1.1\r\n" + HOST + b"\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "an invalid host": b"GET /health HTTP/1.1\r\nHost: \xff\xfe[::\r\n\r\n",
    "a space before the colon": b"GET /health HTTP/1.1\r\n" + HOST + b"X-A : 1\r\n\r\n",
    "no colon": b"GET /health HTTP/1.1\r\n" + HOST + b"X-Access-Token " + SECRET.encode() + b"\r\n\r\n",
    "a bare CR": b"GET /health HTTP/1.1\r\n" + HOST + b"X-Access-Token: " + SECRET.encode() + b"\r\r\n\r\n",
    "a CR inside": b"GET /health HTTP/1.1\r\n" + HOST + b"X-Access-Token: " + SECRET.encode() + b"\rx\r\n\r\n",
    "a NUL inside": b"GET /health HTTP/1.1\r\n" + HOST + b"X-Access-Token: " + SECRET.encode() + b"\0\r\n\r\n",
    "a folded line": b"GET /health HTTP/1.1\r\n" + HOST + b"X-Access-Token: x\r\n " + SECRET.encode() + b"\r\n\r\n",
    "a folded Authorization": b"GET / HTTP/1.1\r\n" + HOST + b"Authorization:\r\n\t" + SECRET.encode() + b"\r\n\r\n",
    "a token that is too long": b"GET / HTTP/1.1\r\n"
    + HOST
    + b"X-Access-Token: "
    + SECRET.encode() * 400
    + b"\r\n\r\n",
    "a huge header": b"GET /health HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "a huge target": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "many headers": b"GET /health HTTP/1.1\r\n" + HOST + b"X-A: 1\r\n" * 5000 + b"\r\n",
    "many long headers": b"GET /health HTTP/1.1\r\n" + HOST + (b"X-A: " + b"a" * 8000 + b"\r\n") * 100 + b"\r\n",
    "a negative length": UNARY + b"Content-Length: -1\r\n\r\n",
    "a length that is no number": UNARY + b"Content-Length: 1e3\r\n\r\n",
    "a length in other digits": UNARY + "Content-Length: ٣\r\n\r\n".encode(),
    "a length of 5,000 digits": UNARY + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "two lengths": UNARY + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "a length and chunks": UNARY + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown transfer encoding": UNARY + b"Transfer-Encoding: gzip\r\n\r\n",
    "chunked twice": UNARY + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "a chunk's bad size": UNARY + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a URL as target that is none": b"GET http:// HTTP/1.1\r\n" + HOST + b"\r\n",
    "a URL of a strange port": b"GET http://127.0.0.1:999999999/health HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target without slash": b"GET health HTTP/1.1\r\n" + HOST + b"\r\n",
    "bytes above 127 in the target": b"GET /\xff\xfe?\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "bad percent encoding": b"GET /%zz%f?path=%ff%%%u1234 HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
    "CONNECT with nonsense": b"CONNECT :::/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "a WebSocket": b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x85abcdxxxxx",
    "an old WebSocket": b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nSec-WebSocket-Key1: 1 2 3\r\n\r\n",
    "h2c": b"GET /x HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    "another name's URL": b"GET http://evil.example/health HTTP/1.1\r\n" + HOST + b"\r\n",
    "broken gzip": UNARY + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!",
    "broken deflate": UNARY + b"Content-Encoding: deflate\r\nContent-Length: 9\r\n\r\nnot zlib!",
}


@pytest.mark.parametrize("case", BEFORE_THE_TOKEN)
def test_what_is_malformed_gets_one_answer_and_one_line(guarded: Service, case: str) -> None:
    before = len(guarded.process.log())
    answer = ask(guarded, BEFORE_THE_TOKEN[case])
    assert [status // 100 for status in statuses(answer)] == [4], answer
    assert eventually(lambda: new_lines(guarded, before))
    lines = new_lines(guarded, before)
    assert len(lines) == 1, lines
    assert " info refused client=127.1." in lines[0]
    assert len(lines[0]) < 300
    assert SECRET not in lines[0]
    assert SECRET.encode() not in answer
    assert statuses(ask(guarded, b"GET /health HTTP/1.0\r\n" + HOST + b"\r\n")) == [204]


def multipart(*parts: bytes, boundary: bytes = b"b", end: bytes = b"--\r\n") -> bytes:
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + end
    return with_length(b"Content-Type: multipart/form-data; boundary=" + boundary + b"\r\n", body)


def with_length(headers: bytes, body: bytes) -> bytes:
    return headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


FILE = b'Content-Disposition: form-data; name="file"; filename="never"\r\n'
PACKED = gzip.compress(b"{}")
BODIES = {
    "gzip that is none": (UNARY, with_length(b"Content-Encoding: gzip\r\n", b"not gzip")),
    "gzip that ends too early": (UNARY, with_length(b"Content-Encoding: gzip\r\n", PACKED[:-3])),
    "gzip with a wrong sum": (UNARY, with_length(b"Content-Encoding: gzip\r\n", PACKED[:-8] + b"\0" * 8)),
    "gzip with something after it": (UNARY, with_length(b"Content-Encoding: gzip\r\n", PACKED + b"x")),
    "deflate that is none": (UNARY, with_length(b"Content-Encoding: deflate\r\n", b"not zlib")),
    "deflate that ends too early": (UNARY, with_length(b"Content-Encoding: deflate\r\n", zlib.compress(b"{}")[:-2])),
    "an encoding that nobody knows": (UNARY, with_length(b"Content-Encoding: rot13\r\n", b"{}")),
    "brotli": (UNARY, with_length(b"Content-Encoding: br\r\n", b"{}")),
    "zstd": (UNARY, with_length(b"Content-Encoding: zstd\r\n", b"{}")),
    "gzip twice": (UNARY, with_length(b"Content-Encoding: gzip, gzip\r\n", PACKED)),
    "a chunk's bad size": (UNARY, b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n"),
    "a chunk that is longer than its size": (UNARY, b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n"),
    "a chunk of negative size": (UNARY, b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n"),
    "a chunk of enormous size": (UNARY, b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n{}"),
    "an upload with a bad chunk": (UPLOAD, b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n"),
    "an upload of broken gzip": (UPLOAD, with_length(b"Content-Encoding: gzip\r\n", b"not gzip")),
    "an upload of cut gzip": (UPLOAD, with_length(b"Content-Encoding: gzip\r\n", PACKED[:-3])),
    "no boundary": (UPLOAD, with_length(b"Content-Type: multipart/form-data\r\n", b"--b--\r\n")),
    "a boundary that is too long": (UPLOAD, multipart(boundary=b"b" * 200)),
    "another boundary": (UPLOAD, with_length(b"Content-Type: multipart/form-data; boundary=a\r\n", b"--b\r\n\r\n\r\n")),
    "an empty multipart": (UPLOAD, with_length(b"Content-Type: multipart/form-data; boundary=b\r\n", b"")),
    "a part's bad header": (UPLOAD, multipart(b"no colon " + SECRET.encode() + b"\r\n\r\nx")),
    "a part's NUL": (UPLOAD, multipart(FILE + b"X-A: \0\r\n\r\nx")),
    "a part's huge header": (UPLOAD, multipart(FILE + b"X-A: " + b"a" * 100_000 + b"\r\n\r\nx")),
    "a part's many headers": (UPLOAD, multipart(FILE + b"X-A: a\r\n" * 5000 + b"\r\nx")),
    "a nested multipart": (
        UPLOAD,
        multipart(b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--"),
    ),
    "a nested multipart, no boundary": (UPLOAD, multipart(b"Content-Type: multipart/mixed\r\n\r\nx")),
    "a part called otherwise": (UPLOAD, multipart(b'Content-Disposition: form-data; name="a"\r\n\r\nx')),
    "a part without a name": (UPLOAD, multipart(b"\r\nx")),
    "a packed multipart": (
        UPLOAD,
        with_length(
            b"Content-Type: multipart/form-data; boundary=b\r\nContent-Encoding: gzip\r\n", gzip.compress(b"--b--\r\n")
        ),
    ),
    "a path with a NUL": (b"POST /files?path=%00 HTTP/1.1\r\n" + HOST, with_length(b"", b"x")),
    "a user that is no text": (b"POST /files?path=/tmp/x&username=%ff%00 HTTP/1.1\r\n" + HOST, with_length(b"", b"x")),
    "no JSON at all": (UNARY, with_length(b"", b"\xff\xfe\x00")),
    "UTF-16": (UNARY, with_length(b"", "{}".encode("utf-16"))),
    "a method with bytes above 127": (b"POST /process.Process/\xff\xfe HTTP/1.1\r\n" + HOST + JSON, b"\r\n"),
    "a method with bad percents": (b"POST /process.Process/%ff%zz HTTP/1.1\r\n" + HOST + JSON, b"\r\n"),
    "CONNECT": (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n", b"\r\n"),
    "TRACE": (b"TRACE /health HTTP/1.1\r\n" + HOST, b"\r\n"),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HOST, b"\r\n"),
    "a WebSocket": (
        b"GET /process.Process/List HTTP/1.1\r\n" + HOST,
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ),
    "an unknown expectation": (UNARY, with_length(b"Expect: the-unexpected\r\n", b"{}")),
    "no content type": (b"POST /process.Process/List HTTP/1.1\r\n" + HOST, with_length(b"", b"{}")),
    "a strange content type": (
        b"POST /process.Process/List HTTP/1.1\r\n" + HOST + b"Content-Type: \xff/;;=\r\n",
        with_length(b"", b"{}"),
    ),
    "a strange charset": (
        b"POST /process.Process/List HTTP/1.1\r\n" + HOST + b"Content-Type: text/plain; charset=nonsense\r\n",
        with_length(b"", b"{}"),
    ),
    "an Authorization of nonsense": (
        b"GET /files?path=/etc/hostname HTTP/1.1\r\n" + HOST,
        b"Authorization: " + SECRET.encode() + b"\r\n\r\n",
    ),
    "a Basic Authorization of nonsense": (
        b"GET /files?path=/etc/hostname HTTP/1.1\r\n" + HOST,
        b"Authorization: Basic " + SECRET.encode() + b"\r\n\r\n",
    ),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_client_with_a_token_gets_an_answer_without_a_line(
    guarded: Service, token: bytes, tmp_path: Path, case: str
) -> None:
    before = len(guarded.process.log())
    head, rest = BODIES[case]
    head = head.replace(b"/tmp/UPLOADED", str(tmp_path / "uploaded").encode())
    answer = ask(guarded, head + token + rest)
    assert [status // 100 for status in statuses(answer)] == [4], answer
    assert SECRET.encode() not in answer
    lines = new_lines(guarded, before)
    assert all(" info refused " in line for line in lines) and len(lines) <= 1, lines
    assert not (tmp_path / "uploaded").exists()


@pytest.mark.parametrize(
    "disposition",
    ["form-data; name=file; filename*=utf-8''%ff%fe", "form-data; name=file; filename*=x'", 'a; "'],
    ids=repr,
)
def test_a_strange_disposition_is_the_clients_fault(guarded: Service, token: bytes, disposition: str) -> None:
    part = f"Content-Disposition: {disposition}\r\n\r\nx".encode()
    answer = ask(guarded, b"POST /files HTTP/1.1\r\n" + HOST + token + multipart(part))
    assert [status // 100 for status in statuses(answer)] == [4], answer
    assert "internal-error" not in guarded.process.log()


STRANGE = {
    "base64": multipart(FILE + b"Content-Transfer-Encoding: base64\r\n\r\n!"),
    "quoted-printable": multipart(FILE + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=ZZ"),
    "an encoding that nobody knows": multipart(FILE + b"Content-Transfer-Encoding: x-no\r\n\r\n!"),
    "a charset that nobody knows": multipart(FILE + b"Content-Type: text/plain; charset=no\r\n\r\n\xff"),
    "a packed part": multipart(FILE + b"Content-Encoding: gzip\r\n\r\nx"),
    "a length that is none": multipart(FILE + b"Content-Length: x\r\n\r\nx"),
    "a negative length": multipart(FILE + b"Content-Length: -5\r\n\r\nx"),
    "a length that is too long": multipart(FILE + b"Content-Length: 5000\r\n\r\nx"),
    "no end": multipart(FILE + b"\r\nx", end=b""),
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_is_strange_in_a_part_is_no_internal_error(
    guarded: Service, token: bytes, tmp_path: Path, case: str
) -> None:
    upload = f"POST /files?path={tmp_path}/file HTTP/1.1\r\n".encode() + HOST
    answer = ask(guarded, upload + token + STRANGE[case])
    assert statuses(answer) in ([200], [400]), answer
    assert "internal-error" not in guarded.process.log()


def test_an_unknown_expectation_is_refused_without_a_quotation(guarded: Service, token: bytes) -> None:
    answer = ask(guarded, UNARY + token + b"Content-Length: 2\r\nExpect: " + SECRET.encode() + b"\r\n\r\n{}")
    assert statuses(answer) == [417]
    assert SECRET.encode() not in answer and SECRET not in guarded.process.log()


def test_an_error_in_a_body_is_reported_at_once(guarded: Service, token: bytes) -> None:
    """The answer must not wait for the rest of the body."""
    with dial(guarded) as sock:
        sock.settimeout(LIMIT)
        sock.sendall(UNARY + token + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        time.sleep(0.2)  # not part of this test, which is about an answer that waits for the body
        sock.sendall(b"nonsense\r\n")
        assert statuses(sock.recv(65536)) == [400]


def test_an_error_in_a_streams_body_is_reported_in_the_stream(guarded: Service, token: bytes) -> None:
    stream = b"POST /process.Process/StreamInput HTTP/1.1\r\n" + HOST + b"Content-Type: application/connect+json\r\n"
    with dial(guarded) as sock:
        sock.sendall(stream + token + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        assert statuses(sock.recv(65536)) == [100]  # now the request is being answered
        sock.sendall(b"nonsense\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert statuses(answer) == [200]
    assert b'"code":"invalid_argument"' in answer


def packed(data: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.compress(data[:1000]) + gzip.compress(data[1000:])
    if encoding == "deflate":
        return zlib.compress(data)
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "headless deflate"])
def test_packed_bodies_are_unpacked(raw: Raw, tmp_path: Path, encoding: str) -> None:
    headers = {"Content-Encoding": encoding.split()[-1]}
    data = bytes(range(256)) * 5000 + b"\0" * 3_000_000
    reply = raw.request("POST", f"/files?path={tmp_path}/file", packed(data, encoding), headers)
    assert reply.status == 200, reply.body
    assert (tmp_path / "file").read_bytes() == data
    assert raw.call("List", packed(b"{}" + b" " * 2000, encoding), headers).status == 200


def test_an_empty_body_with_an_encoding_is_empty(raw: Raw, tmp_path: Path) -> None:
    reply = raw.request("POST", f"/files?path={tmp_path}/file", b"", {"Content-Encoding": "gzip"})
    assert reply.status == 200, reply.body
    assert (tmp_path / "file").read_bytes() == b""


def test_a_small_body_that_would_grow_huge_is_refused(service: Service, raw: Raw) -> None:
    before = _memory(service)
    bomb = b"".join(gzip.compress(b"\0" * (64 << 20)) for _ in range(2))
    for method, kind in (("List", "application/json"), ("Start", "application/connect+json")):
        headers = {"Content-Type": kind, "Content-Encoding": "gzip"}
        reply = raw.request("POST", f"/process.Process/{method}", bomb, headers)
        assert b'"code":"resource_exhausted"' in reply.body
    assert _memory(service) - before < 40 << 20


def _memory(service: Service) -> int:
    fields = Path(f"/proc/{service.process.pid}/status").read_text().split()
    return int(fields[fields.index("VmHWM:") + 1]) << 10


def test_identity_is_no_encoding(raw: Raw) -> None:
    assert raw.call("List", {}, {"Content-Encoding": "identity"}).status == 200


def test_unknown_paths_are_not_found(bed: Bed, token_file: Path) -> None:
    url = start_service(bed, "--web", "--pty-token-file", str(token_file)).url
    with Raw(url) as stranger, Raw(url, {"X-Access-Token": token_file.read_text().strip()}) as raw:
        assert stranger.request("GET", "/vendor/xterm.css").status == 200
        for path in (
            "/../guard.py", "/vendor/../../guard.py", "/vendor/..%2f..%2fguard.py", "//etc/passwd", "/%2e%2e/rpc.py",
            "/vendor/", "/vendor", "/vendor/%00", "/index.html", "/terminal.js/", "/terminal.js%00", "/%74erminal.js/",
        ):  # fmt: skip
            assert raw.request("GET", path).status == 404, path
        assert stranger.request("GET", "/vendor/../../guard.py").status == 401
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            assert stranger.request(method, "/terminal.js").status == 405, method


HEADERS = {
    "Connect-Timeout-Ms": ["9" * 5000, "-1", "1.5", "inf", "nan", "0x10", "", " ", "٣", "1e9"],
    "Connect-Protocol-Version": ["9" * 5000, "2", "", "٣"],
    "Connect-Content-Encoding": ["gzip", "x" * 5000],
    "Wstunnel-Replay-From": ["9" * 5000, "-1", "1.5", "inf", "", "٣", "1_0"],
    "Wstunnel-Process": ["9" * 5000, "", "٣", "\x7f\x80"],
    "Wstunnel-Once": ["yes", "tag"],
    "Wstunnel-On-Disconnect": ["9" * 5000, "kill", "kill; grace=", "kill; grace=-1", "kill; grace=" + "9" * 5000, "٣"],
    "Wstunnel-Input": ["9" * 5000, "", "٣" * 32, "A" * 32, "0" * 31],
    "Authorization": ["9" * 5000, "Basic ====", "Basic /w==", "Basic AA==", "Bearer x", "٣"],
}
METHODS_OF = {"Connect": ("Wstunnel-Replay-From", "Wstunnel-Process"), "SendInput": ("Wstunnel-Input",)}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in HEADERS for value in HEADERS[name]])
def test_headers_that_are_no_values_are_refused_without_a_quotation(
    guarded: Service, token: bytes, name: str, value: str
) -> None:
    before = len(guarded.process.log())
    method = next((method for method, names in METHODS_OF.items() if name in names), "Start")
    message = json.dumps({"process": {"pid": 1, "cmd": "/bin/true"}, "input": {"stdin": ""}}).encode()
    unary = method == "SendInput"
    kind = b"application/json" if unary else b"application/connect+json"
    head = f"POST /process.Process/{method} HTTP/1.1\r\nContent-Type: ".encode() + kind + b"\r\n" + HOST
    header = f"{name}: {value}\r\n".encode()
    answer = ask(guarded, head + token + header + with_length(b"", message if unary else envelope(message)))
    assert b'"error":{' in answer or statuses(answer)[0] // 100 == 4, answer
    assert b'"internal"' not in answer and b'"unknown"' not in answer
    assert b"9999" not in answer
    assert not [line for line in new_lines(guarded, before) if "refused" not in line]


def test_a_keepalive_interval_that_is_none_is_ignored(raw: Raw) -> None:
    """Like E2B's own service; the test checks both sides of the limit."""
    for value in ("9" * 5000, "-1", "1.5", "inf", "", "x"):
        stream = raw.terminal("/bin/true", headers={"Keepalive-Ping-Interval": value}).finish()
        assert stream.ended is not None, value


async def _fail(request: web.Request) -> web.Response:
    raise LookupError(f"a bug, with {SECRET}")


@pytest.mark.parametrize("headers", ["", "Accept: text/html\r\n"])
def test_a_bug_of_ours_is_a_short_answer_and_one_event(caplog: pytest.LogCaptureFixture, headers: str) -> None:
    async def ask_in_process() -> bytes:
        settings = TerminalSettings(pty="127.0.0.1:0")
        async with TerminalService(settings, routes=[web.get("/fail", _fail)]) as service:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(service.urls[0].rpartition(":")[2]))
            writer.write(b"GET /fail HTTP/1.0\r\n" + HOST + headers.encode() + b"\r\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

    answer = asyncio.run(ask_in_process())
    assert statuses(answer) == [500]
    assert SECRET.encode() not in answer and b"Traceback" not in answer and len(answer) < 500
    assert [record.__dict__["event"] for record in caplog.records] == ["internal-error"]
