"""``/files``: paths, forms, shared resources, and slow requests that must not block others."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import pwd
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import aiohttp
import pytest

from tests.bed.processes import Bed, descendants
from tests.pty.beds import Service, start_service
from tests.pty.raw import Raw, Reply, eventually
from tunnel.pty.server import file_shares, files, multipart
from tunnel.pty.server.service import TerminalService
from tunnel.server.settings import TerminalSettings

MIB = 1 << 20
PLAIN = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def service(bed: Bed) -> Service:
    return start_service(bed)


@pytest.fixture
def raw(service: Service) -> Raw:
    return Raw(service.url)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(200 * MIB)
    return path


class Slow:
    """A client that sends the head of a request, then data on demand, and reads nothing."""

    def __init__(self, url: str, request: str, source: str = "127.0.0.1") -> None:
        place = urlsplit(url)
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.settimeout(20)
        self.sock.bind((source, 0))
        self.sock.connect((place.hostname, place.port))
        self.sock.sendall(request.format(host=place.netloc).encode())

    def drip(self) -> None:
        self.sock.sendall(b"x")

    def answer(self) -> bytes:
        """Return the answer, up to the end of the connection."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while more := self.sock.recv(1 << 18):
                data += more
        return data


def upload(path: Path, size: int = 1000, kind: str = "application/octet-stream") -> str:
    return (
        f"POST /files?path={path} HTTP/1.1\r\nHost: {{host}}\r\nContent-Length: {size}\r\nContent-Type: {kind}\r\n\r\nx"
    )


def download(path: Path) -> str:
    return f"GET /files?path={path} HTTP/1.1\r\nHost: {{host}}\r\n\r\n"


@contextlib.contextmanager
def slow(url: str, count: int, request: str, source: str = "127.0.0.1") -> Iterator[list[Slow]]:
    clients = [Slow(url, request, source) for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.sock.close()


def put(raw: Raw, path: Path, body: bytes) -> Reply:
    return raw.request("POST", f"/files?path={path}", body, PLAIN)


def get(raw: Raw, path: Path) -> Reply:
    return raw.request("GET", f"/files?path={path}")


# ---- the ordinary


def test_a_file_is_written_and_read(raw: Raw, tmp_path: Path) -> None:
    for body in (b"", b"short", os.urandom(3 * MIB)):
        path = tmp_path / "new" / "file"
        reply = put(raw, path, body)
        assert (reply.status, reply.json) == (200, [{"name": "file", "type": "file", "path": str(path)}])
        assert path.read_bytes() == body
        assert (get(raw, path).status, get(raw, path).body) == (200, body)


def test_several_files_come_in_one_upload(raw: Raw, tmp_path: Path) -> None:
    folder = os.path.relpath(tmp_path, pwd.getpwuid(os.geteuid()).pw_dir)  # where relative paths start
    names = [f"{folder}/file{number}" for number in range(5)]
    parts = [f'--b\r\nContent-Disposition: form-data; name="file"; filename="{n}"\r\n\r\n{n}\r\n' for n in names]
    body = ("".join(parts) + "--b--\r\n").encode()
    reply = raw.request("POST", "/files", body, {"Content-Type": "multipart/form-data; boundary=b"})
    assert [each["path"] for each in reply.json] == [str(tmp_path / Path(name).name) for name in names]
    assert [(tmp_path / Path(name).name).read_text() for name in names] == names


def one_part(raw: Raw, disposition: str) -> Reply:
    body = f'--b\r\nContent-Disposition: form-data; name="file"; {disposition}\r\n\r\nx\r\n--b--\r\n'.encode()
    return raw.request("POST", "/files", body, {"Content-Type": "multipart/form-data; boundary=b"})


@pytest.mark.parametrize("form", ['filename="{}"', "filename*=utf-8''{}", 'FileName = "{}"; size=1'])
def test_a_file_of_an_upload_may_have_an_absolute_path(raw: Raw, tmp_path: Path, form: str) -> None:
    path = str(tmp_path / "file")
    reply = one_part(raw, form.format(quote(path, safe="") if "*" in form else path))
    assert [each["path"] for each in reply.json] == [str(tmp_path / "file")]
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("name", ["utf-7''%2B2AA-", "utf-7''%2B2AA-/file"])
def test_a_name_that_no_file_can_have_is_the_clients_fault(raw: Raw, service: Service, name: str) -> None:
    assert one_part(raw, f"filename*={name}").status == 400
    assert "internal-error" not in service.process.log()


def test_files_that_cannot_be_read_or_written_are_reported(raw: Raw, tmp_path: Path) -> None:
    assert get(raw, tmp_path / "missing").status == 404
    assert get(raw, tmp_path).status == 400
    assert put(raw, tmp_path, b"x").status == 400
    (tmp_path / "file").write_text("a file")
    assert put(raw, tmp_path / "file" / "below", b"x").status == 400


# --- Several files in one upload


def form(*names: str, end: str = "--b--\r\n", head: str = "", disposition: str = "") -> bytes:
    """A form with files of these names; the content of each is its number."""
    parts = []
    for number, name in enumerate(names):
        where = disposition or f'form-data; name="file"; filename="{name}"'
        parts.append(f"--b\r\nContent-Disposition: {where}{head}\r\n\r\ndata {number}\r\n")
    return ("".join(parts) + end).encode()


def post_form(raw: Raw, body: bytes) -> Reply:
    return raw.request("POST", "/files", body, {"Content-Type": "multipart/form-data; boundary=b"})


def test_absolute_names_go_where_they_say_and_relative_ones_home(raw: Raw, tmp_path: Path) -> None:
    relative = os.path.relpath(tmp_path, pwd.getpwuid(os.geteuid()).pw_dir)
    names = [
        f"{tmp_path}/a", f"{relative}/b", f"{tmp_path}/new folder/c;d; e", f"{tmp_path}/büro", f"{tmp_path}/100%20",
        f"/{tmp_path}/twice", f"{tmp_path}/a=b'c", f'{tmp_path}/quote\\"d', f"{tmp_path}/Screenshot 10.00\u202fAM",
        f"{tmp_path}/\u3000\xa0\u200b\x85\u2028", f"{tmp_path}/👨\u200d👩", f"~//{relative}/e", f"{tmp_path}/~root",
    ]  # fmt: skip
    reply = post_form(raw, form(*names))
    assert reply.status == 200
    wanted = [
        "a", "b", "new folder/c;d; e", "büro", "100%20", "twice", "a=b'c", 'quote"d', "Screenshot 10.00\u202fAM",
        "\u3000\xa0\u200b\x85\u2028", "👨\u200d👩", "e", "~root",
    ]  # fmt: skip
    assert [(tmp_path / each).read_text() for each in wanted] == [f"data {number}" for number in range(13)]
    assert [os.path.samefile(each["path"], tmp_path / name) for each, name in zip(reply.json, wanted, strict=True)]


def test_an_extended_name_goes_where_it_says(raw: Raw, tmp_path: Path) -> None:
    where = f"form-data; name=file; filename=\"x\"; filename*=UTF-8''{tmp_path}/b%C3%BCro%22"
    assert post_form(raw, form("", disposition=where)).status == 200
    assert (tmp_path / 'büro"').read_text() == "data 0"


@pytest.mark.parametrize(
    "name", ["a%22b", "a%0Ab", "%2Ftmp%2Fa", "a\\b", "a\\\\b", "a\\", "", 'a"b', 'a"; filename="b'], ids=repr
)
def test_a_name_that_can_be_meant_in_two_ways_is_refused_with_all_files(raw: Raw, tmp_path: Path, name: str) -> None:
    path = f"{tmp_path}/{name}" if name else ""
    reply = post_form(raw, form(f"{tmp_path}/first", path, f"{tmp_path}/last"))
    assert reply.status == 400 and "Traceback" not in reply.body.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["bed"]  # the service's log


@pytest.mark.parametrize("cut", [2, 4, 6, 12, 20, 60, 150], ids=lambda size: f"{size}-bytes-missing")
def test_nothing_is_touched_by_a_form_that_is_not_whole(raw: Raw, tmp_path: Path, cut: int) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("as it was")
    body = form(f"{tmp_path}/a", f"{tmp_path}/b")
    # The line break after the last boundary is optional.
    assert post_form(raw, body[:-cut]).status == (200 if cut == 2 else 400)
    expected = ["data 0", "data 1"] if cut == 2 else ["as it was"] * 2
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == expected


@pytest.mark.parametrize(
    "body",
    [
        form("{folder}/a", end="--b--\r\nmore"),
        form("{folder}/a", end="--b"),
        form("{folder}/a", end="--bb--\r\n"),
        form("{folder}/a", end=""),
        form("{folder}/a", end="--b--") + form("{folder}/b"),
        form("{folder}/a", head="\r\nContent-Transfer-Encoding: base64"),
        form("{folder}/a", head="\r\nno field"),
        form("{folder}/a", head="\r\nContent-Disposition: form-data"),
        form("{folder}/a", head="\r\nX-Large: " + 20_000 * "x"),
        form("{folder}/a", disposition='attachment; name="file"; filename="{folder}/a"'),
        form("{folder}/a", disposition='form-data; name="other"; filename="{folder}/a"'),
        form("{folder}/a", disposition='form-data; name="file"; filename={folder}/a b'),
        form("{folder}/a").replace(b"\r\n", b"\n"),
        form("{folder}/a").replace(b"}/a", b"}/\xff"),
        form(*[f"{{folder}}/{number}" for number in range(1001)]),
        form("{folder}/a", "{folder}/b", "{folder}//b"),
        form("{folder}/a", "{folder}/" + "long/" * 1000),
        form("{folder}/a", "~root/a"),
        b"",
        b"no form",
    ],
    ids=lambda body: body[-60:].decode(errors="replace"),
)
def test_nothing_is_touched_by_a_form_that_is_malformed(raw: Raw, tmp_path: Path, body: bytes) -> None:
    assert post_form(raw, body.replace(b"{folder}", str(tmp_path).encode())).status == 400
    assert [path.name for path in tmp_path.iterdir()] == ["bed"]  # the service's log


def test_the_length_of_a_part_is_what_its_boundaries_say(raw: Raw, tmp_path: Path) -> None:
    """RFC 7578 section 4.8: other header fields are ignored."""
    body = form(f"{tmp_path}/a", f"{tmp_path}/b", head="\r\nContent-Length: 150\r\nContent-Type: text/plain")
    assert post_form(raw, body).status == 200
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["data 0", "data 1"]


def test_nothing_is_touched_by_an_upload_whose_compression_is_not_whole(raw: Raw, tmp_path: Path) -> None:
    whole = gzip.compress(os.urandom(50_000))
    for body, status in ((whole, 200), (whole[:-20_000], 400), (whole[:-4], 400), (b"x" + whole, 400)):
        (tmp_path / "a").write_text("as it was")
        reply = raw.request("POST", f"/files?path={tmp_path}/a", body, {**PLAIN, "Content-Encoding": "gzip"})
        assert reply.status == status
        assert ((tmp_path / "a").read_bytes() == b"as it was") == (status != 200)


def test_the_parser_finds_the_same_in_any_pieces() -> None:
    datas = [b"", b"\r\n", b"--b", b"\r\n--", b"\r\n-\r\n--a", os.urandom(500).replace(b"\r\n--b", b"")]
    body = b"preamble\r\n"
    for number, data in enumerate(datas):
        body += f'--b \r\nContent-Disposition: form-data;\r\n name="file"; filename="{number}"\r\n\r\n'.encode()
        body += data + b"\r\n"
    body += b"--b--"
    for size in (1, 2, 3, 5, 7, 64, len(body)):
        found: list[bytes] = []
        parser = multipart.Parser('multipart/form-data; boundary="b"')
        for start in range(0, len(body), size):
            for part in parser.feed(body[start : start + size]):
                if isinstance(part, bytes):
                    found[-1] += part
                else:
                    assert part.filename() == str(len(found))
                    found.append(b"")
        parser.finish()
        assert found == datas


# ---- slow ones


@pytest.mark.parametrize("count", [16, 40])
def test_uploads_that_drip_hold_up_nobody(raw: Raw, service: Service, tmp_path: Path, count: int) -> None:
    with slow(service.url, count, upload(tmp_path / "slow")) as drips:
        for client in drips:
            client.drip()
        assert put(raw, tmp_path / "mine", b"whole").status == 200
        assert get(raw, tmp_path / "mine").body == b"whole"
        assert not (tmp_path / "slow").exists()


def test_uploads_that_drip_in_parts_hold_up_nobody(raw: Raw, service: Service, tmp_path: Path) -> None:
    with slow(service.url, 40, upload(tmp_path, kind="multipart/form-data; boundary=x")):
        assert put(raw, tmp_path / "mine", b"whole").status == 200
        assert get(raw, tmp_path / "mine").body == b"whole"


@pytest.mark.parametrize("count", [16, 40])
@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_downloads_that_are_not_read_hold_up_nobody(
    raw: Raw, service: Service, tmp_path: Path, big: Path, count: int, source: str
) -> None:
    """From the address of the slow clients, as behind an edge, and from another one."""
    with slow(service.url, count, download(big), source):
        assert eventually(lambda: len(descendants(service.process.pid)) == file_shares.AT_ONCE)
        assert put(raw, tmp_path / "mine", b"whole").status == 200
        assert get(raw, tmp_path / "mine").body == b"whole"


def test_an_evicted_download_ends_incomplete(service: Service, raw: Raw, big: Path, tmp_path: Path) -> None:
    (tmp_path / "small").write_text("small")
    with slow(service.url, file_shares.AT_ONCE, download(big)) as stuck:
        assert eventually(lambda: len(descendants(service.process.pid)) == file_shares.AT_ONCE)
        assert get(raw, tmp_path / "small").body == b"small"
        answers = [client.answer() for client in stuck[:1]]
        assert len(answers[0]) < 200 * MIB and not answers[0].endswith(b"0\r\n\r\n")


def test_downloads_that_are_read_are_left_alone_however_many_wait(raw: Raw, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(5 * MIB))
    sizes: list[int] = []

    def read() -> None:
        sizes.append(len(get(raw, path).body))

    readers = [threading.Thread(target=read) for _ in range(file_shares.AT_ONCE + 8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(100)
    assert sizes == [5 * MIB] * len(readers)


def test_nothing_is_left_of_clients_that_hang_up(service: Service, raw: Raw, big: Path, tmp_path: Path) -> None:
    get(raw, big.with_name("missing"))
    before = len(os.listdir(f"/proc/{service.process.pid}/fd"))
    threads = len(os.listdir(f"/proc/{service.process.pid}/task"))
    for request in (download(big), upload(tmp_path / "slow"), download(tmp_path / "missing")):
        for _ in range(30):
            with slow(service.url, 4, request):
                pass
    assert eventually(lambda: not descendants(service.process.pid))
    assert eventually(lambda: len(os.listdir(f"/proc/{service.process.pid}/fd")) <= before)
    assert len(os.listdir(f"/proc/{service.process.pid}/task")) == threads
    assert "Traceback" not in service.process.log() and "rror" not in service.process.log()


# ---- limits, made small


class Upload:
    """An upload whose data the test sends step by step."""

    def __init__(self, session: aiohttp.ClientSession, url: str, path: Path) -> None:
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._answer = asyncio.create_task(self._post(session, f"{url}/files?path={path}"))

    async def _post(self, session: aiohttp.ClientSession, url: str) -> tuple[int, str]:
        async def pieces() -> AsyncIterator[bytes]:
            while piece := await self._pieces.get():
                yield piece

        async with session.post(url, data=pieces(), headers=PLAIN) as response:
            return response.status, await response.text()

    def send(self, data: bytes) -> None:
        self._pieces.put_nowait(data)

    async def answer(self) -> tuple[int, str]:
        async with asyncio.timeout(20):
            return await self._answer

    async def settle(self) -> None:
        await asyncio.sleep(0.3)
        assert not self._answer.done()


@contextlib.asynccontextmanager
async def in_process() -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    async with TerminalService(TerminalSettings(pty="127.0.0.1:0")) as service, aiohttp.ClientSession() as session:
        yield service.urls[0], session


def test_an_upload_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "UPLOAD_LIMIT", 0.7)

    async def work() -> None:
        async with in_process() as (url, session):
            upload = Upload(session, url, tmp_path / "slow")
            for _ in range(20):
                upload.send(b"x")
                await asyncio.sleep(0.1)
            status, text = await upload.answer()
            assert status == 408 and "longer than 0.7 s" in text
            assert not (tmp_path / "slow").exists()

    asyncio.run(work())


def test_uploads_have_limited_disk_space_and_the_slowest_is_evicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_shares, "SPOOL_LIMIT", 3 * MIB)
    monkeypatch.setattr(file_shares, "SPOOL_STEP", MIB)
    monkeypatch.setattr(file_shares, "_WINDOW", 0.2)
    came: list[int] = []  # bytes, of all uploads
    moved = file_shares.Lease.moved

    def note(lease: file_shares.Lease, size: int) -> None:
        came.append(size)
        moved(lease, size)

    monkeypatch.setattr(file_shares.Lease, "moved", note)

    async def wait_for(size: int) -> None:
        for _ in range(2000):
            if sum(came) >= size:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"only {sum(came)} bytes came")

    async def work() -> None:
        async with in_process() as (url, session):
            stuck = Upload(session, url, tmp_path / "stuck")
            stuck.send(b"x" * (MIB + 1))
            await wait_for(MIB + 1)
            await stuck.settle()
            await stuck.settle()
            moving = Upload(session, url, tmp_path / "moving")
            moving.send(b"y" * 1000)
            await wait_for(MIB + 1001)
            mine = Upload(session, url, tmp_path / "mine")
            mine.send(b"z" * 2000)
            mine.send(b"")
            assert (await mine.answer())[0] == 200
            status, text = await stuck.answer()
            assert status == 503 and "give" not in text and "slow" in text
            for _ in range(5):
                moving.send(b"y" * 100_000)
                await asyncio.sleep(0.1)
            moving.send(b"")
            assert (await moving.answer())[0] == 200
            assert (tmp_path / "moving").stat().st_size == 501_000
            assert not (tmp_path / "stuck").exists()

    asyncio.run(work())


def test_an_upload_that_finds_no_space_gets_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_shares, "SPOOL_LIMIT", 3 * MIB)
    monkeypatch.setattr(file_shares, "SPOOL_STEP", MIB)

    async def work() -> None:
        async with in_process() as (url, session):
            upload = Upload(session, url, tmp_path / "much")
            for _ in range(4):
                upload.send(b"x" * MIB)
            upload.send(b"")
            status, text = await upload.answer()
            assert status == 503 and "3 MiB together" in text

    asyncio.run(work())
