"""docs/wire.md describes the code: it has all its numbers, names, codes and headers, with the same values."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from http import HTTPStatus
from types import ModuleType

import pytest

import tunnel.client
import tunnel.protocol
import tunnel.server
from tests.docs import constants
from tests.docs.page import (
    block,
    constants_of,
    headers,
    headers_told,
    modules,
    rows,
    text_of,
    tree,
    unknown,
    unwrapped,
)
from tunnel.client.outage import Outage
from tunnel.errors import RemoteProtocolError, TunnelError, UpgradeRefused
from tunnel.protocol.control import SessionOffer, parse_control, parse_resume, proof
from tunnel.protocol.frames import BINARY, PING, TEXT, Close, FrameParser, Payload
from tunnel.protocol.upgrade import ResponseParser, check_upgrade

PAGE = text_of("wire.md")
PROTOCOL = list(modules(tunnel.protocol))
BRIDGE = list(modules(tunnel.server))
CLIENT = list(modules(tunnel.client))


# ---- numbers


def test_every_constant_of_the_wire_is_on_the_page_or_listed_as_irrelevant() -> None:
    known = [name for group in constants.WIRE.values() for _, name in group if not name.startswith("_")]
    known += [*constants.CODES, *(name for _, name in constants.WORDS), *constants.WIRE_ELSEWHERE]
    scope = {*PROTOCOL, *(module for group in constants.WIRE.values() for module, _ in group)}
    scope |= {module for module, _ in constants.WORDS}
    assert not unknown((each for module in scope for each in constants_of(module)), known)


@pytest.mark.parametrize(("option", "name"), constants.SHARED_OPTIONS.items())
def test_both_ends_have_the_protocols_default(option: str, name: str) -> None:
    at_client = constants.CLIENT_DEFAULTS[option]
    at_bridge = getattr(constants.BRIDGE_DEFAULTS, option.replace("-", "_"))
    assert at_client == at_bridge == constants.WIRE_VALUES[name]


# ---- words


@pytest.mark.parametrize(("module", "name"), constants.WORDS)
def test_a_term_of_the_code_is_on_the_page(module: ModuleType, name: str) -> None:
    assert f"`{getattr(module, name)}`" in PAGE


def control_words() -> set[str]:
    """Return the words that begin the lines which the parser knows: what it compares ``word`` with."""
    found = set()
    for node in ast.walk(tree(constants.LINES)):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and node.left.id == "word":
            found |= {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
    return {word for word in found if isinstance(word, str)}


def test_the_grammar_and_the_table_have_every_control_line() -> None:
    words = control_words()
    assert words >= {"session", "ack"}
    rules = re.findall(r'^(\w+) += "(\w+)"', block(PAGE, "abnf", "### Control lines"), re.MULTILINE)
    assert {word for rule, word in rules if rule == word} == words
    table = rows(PAGE, "| line | from | example | meaning |")
    assert {line.strip("`") for line, *_ in table} == words
    for line, _, example, _ in table:
        shown = example.strip("`").replace("cdcd…e1b9", "0" * 32).replace("41e1…4d97", "0" * 64)
        assert shown.split()[0] == line.strip("`")
        assert parse_control(shown.encode()) is not None


@pytest.mark.parametrize(
    "line", ["ack", "ack -1", "ack 1 ", "fin x", "ping 1", "end now", "session id=1", f"ack {1 << 63}"]
)
def test_what_the_grammar_has_not_is_malformed(line: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_control(line.encode())


def test_a_session_line_has_the_fields_of_the_grammar() -> None:
    line = SessionOffer("0" * 32, "0" * 64, 1, 1).line()
    rule = re.search(r"^session += (.*)$", block(PAGE, "abnf", "### Control lines"), re.MULTILINE)
    assert rule and re.findall(r'"(\w+)="', rule[1]) == re.findall(r"(\w+)=", line)


def test_the_table_of_session_errors_is_complete() -> None:
    assert {row[0].strip("`") for row in rows(PAGE, "| `error` code | from | meaning | the text |")} == session_errors()


def session_errors() -> set[str]:
    """Return the codes of ``error`` lines: what ``fail`` is called with, and what a source's failure becomes."""
    found = set()
    for module in (*PROTOCOL, *BRIDGE, *CLIENT):
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fail":
                found |= {each.value for each in node.args[:1] if isinstance(each, ast.Constant)}
            if isinstance(node, ast.FunctionDef) and node.name == "source_failed" and module is constants.SESSIONS:
                for each in ast.walk(node):
                    if isinstance(each, ast.Assign) and isinstance(each.value, ast.Call):
                        found |= {c.value for c in ast.walk(each.value) if isinstance(c, ast.Constant)}
    return {code for code in found if isinstance(code, str)}


# ---- close codes


def test_the_table_of_close_codes_is_complete() -> None:
    assert {int(row[0]) for row in rows(PAGE, "| code | sent by | on Wire 1 | on Wire 2 |")} == {
        *constants.CODES.values()
    }


@pytest.mark.parametrize(("name", "code"), [each for each in constants.CODES.items() if each[1] >= 3000])
def test_every_close_code_of_ours_is_explained_in_the_text(name: str, code: int) -> None:
    assert len(re.findall(rf"\b{code}\b", PAGE)) >= 2


# ---- HTTP


def refusals() -> Iterator[tuple[int, str]]:
    """Yield status and code of every answer of the bridge that is no 101: of ``Refusal``, and of what makes one."""
    for module in BRIDGE:
        for node in ast.walk(tree(module)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            first = [each for each in node.args[:2] if isinstance(each, (ast.Constant, ast.Attribute))]
            if node.func.id == "Refusal" and len(first) == 2 and isinstance(first[0], ast.Attribute):
                status = HTTPStatus[first[0].attr]
                if isinstance(first[1], ast.Constant):
                    yield status, str(first[1].value)
            elif node.func.id == "busy" and isinstance(first[0], ast.Constant):
                yield 503, str(first[0].value)


def test_the_table_of_refusals_is_complete() -> None:
    told = {(int(row[0]), row[1].strip("`")) for row in rows(PAGE, "| status | `error` | when | further headers |")}
    assert told == set(refusals())


def test_every_added_header_is_documented() -> None:
    found = headers([*PROTOCOL, *BRIDGE, *CLIENT])
    assert len(found) >= 4 and found == headers_told(PAGE)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 408, 409, 410, 426, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("from_bridge", [True, False])
def test_a_client_does_what_the_table_says_with_an_answer(status: int, from_bridge: bool) -> None:
    answers = [row[0] for row in rows(PAGE, "| answer | client |")]
    assert "400, 401, 403, 410 with `Wstunnel-Error`" in answers
    assert any(answer.startswith("401, 403, 407 without `Wstunnel-Error`") for answer in answers)
    limit: float | None = None
    most = 100
    if from_bridge and status in (400, 401, 403, 410):
        limit = 1
    elif from_bridge and status == 409:
        limit = constants.WIRE_VALUES["stale-limit"]
    elif status in (401, 403, 407):
        limit = constants.WIRE_VALUES["credentials-limit"]
    outage = Outage(0.0, 600.0, "lost", 0)
    headers = (("wstunnel-error", "x"),) if from_bridge else ()
    error = UpgradeRefused("http-status", status=status, headers=headers, url="", message="")
    ended_at = next((n for n in range(1, most) if ends(outage, error)), None)
    assert ended_at == limit


def ends(outage: Outage, error: TunnelError) -> bool:
    try:
        outage.failed(error, 0.0)
    except TunnelError:
        return True
    return False


# ---- the recorded exchange


class Exchange:
    """The exchange of the page: heads of HTTP, and frames as (sender, what they are, what they say)."""

    def __init__(self) -> None:
        text = PAGE[PAGE.index("## An exchange, byte for byte") :].partition("```\n")[2].partition("```")[0]
        self.heads: list[tuple[str, list[str]]] = []
        self.frames: list[tuple[str, bytes, str]] = []
        sender, in_head = "", False
        for line in text.splitlines():
            marked, rest = line[:3], line[3:]
            if marked.strip():
                sender = marked[0]
            if marked == "-- ":
                continue
            if rest.startswith(("GET ", "HTTP/")):
                self.heads.append((sender, []))
                in_head = True
            if in_head:
                in_head = bool(rest)
                self.heads[-1][1].append(rest)
                continue
            data, _, said = rest.partition(";")
            if marked.strip():
                self.frames.append((sender, bytes.fromhex(data), said.strip()))
            else:
                before = self.frames.pop()
                self.frames.append((sender, before[1] + bytes.fromhex(data), f"{before[2]} {said.strip()}".strip()))

    def messages(self) -> Iterator[tuple[str, int, bytes]]:
        """Yield what the bytes of the frames are, by our own parser, and check that the page says the same."""
        for sender, data, said in self.frames:
            parser = FrameParser(masked=sender == "C")
            (event,) = parser.feed(memoryview(data))
            if isinstance(event, Close):
                assert said == f"Close {event.code}"
                continue
            assert isinstance(event, Payload) and event.final
            payload = bytes(event.data)
            kind = {TEXT: "text", BINARY: "binary", PING: "ping"}[event.opcode]
            assert said == f"{kind} {payload.decode('ascii').encode('unicode_escape').decode()}"
            yield sender, event.opcode, payload


def test_the_frames_of_the_exchange_are_what_the_page_says() -> None:
    lines = [payload for _, opcode, payload in Exchange().messages() if opcode == TEXT]
    assert {line.split()[0].decode() for line in lines} == control_words() - {"error"}


def test_the_handshakes_of_the_exchange_are_valid() -> None:
    heads = Exchange().heads
    assert [sender for sender, _ in heads] == ["C", "B", "C", "B"]
    for (_, request), (_, answer) in (heads[:2], heads[2:]):
        fields = dict(line.split(": ", 1) for line in request[1:-1])
        parser = ResponseParser()
        parser.feed("\r\n".join([*answer, ""]).encode())
        assert parser.head
        offered = fields["Sec-WebSocket-Protocol"].split(", ")
        key = fields["Sec-WebSocket-Key"]
        selected = check_upgrade(parser.head, url="", key=key, subprotocols=offered)
        assert selected == offered[1]
        assert parser.head.get("date")


def test_the_proof_and_the_offsets_of_the_exchange_are_right() -> None:
    exchange = Exchange()
    messages = list(exchange.messages())
    offer = parse_control(messages[0][2])
    assert isinstance(offer, SessionOffer)
    resume = dict(line.split(": ", 1) for line in exchange.heads[2][1][1:-1])["Wstunnel-Resume"]
    request = parse_resume(resume)
    assert request.id == offer.id and request.proof == proof(offer.id, offer.key, request.epoch, request.received)
    received = dict(line.split(": ", 1) for line in exchange.heads[3][1][1:-1])["Wstunnel-Received"]
    assert f"ack {received}".encode() in [payload for sender, _, payload in messages if sender == "B"]
    assert f"`{offer.id} {request.epoch} {request.received}`" in unwrapped(PAGE)
