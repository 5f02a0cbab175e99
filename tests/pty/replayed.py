"""What programs write to terminals: queries, which a replay must omit, and everything else, which it must repeat."""

from __future__ import annotations

QUERIES = (
    b"\x05",
    b"\x1bZ", b"\x9a", b"\xc2\x9a",
    # what are you
    b"\x1b[c", b"\x1b[0c", b"\x1b[>c", b"\x1b[>0c", b"\x1b[=c", b"\x1b[=0c", b"\x9bc", b"\xc2\x9b>c", b"\x1b[>q",
    b"\x1b[>0q", b"\x1b[x", b"\x1b[1x", b"\x1bP+q544e;524742\x1b\\", b"\x90+q544e\x9c", b"\xc2\x90+q544e\xc2\x9c",
    b"\x1b[&u", b"\x1b[+p",
    # where, how, in which state
    b"\x1b[5n", b"\x1b[6n", b"\x1b[06n", b"\x1b[?6n", b"\x1b[?15n", b"\x1b[?25n", b"\x1b[?996n", b"\x9b6n",
    b"\xc2\x9b6n", b"\x1b[?2026$p", b"\x1b[4$p", b"\x1bP$qm\x1b\\", b'\x1bP$q"p\x1b\\', b"\x1bP$q q\x9c", b"\x1b[1$w",
    b"\x1b[2$u", b"\x1b[1;1;1;1;1;1*y", b"\x1b['|", b'\x1b["v', b"\x1b[?u", b"\x1b[?4m", b"\x1b[?1g", b"\x1b[1;2;3;4#|",
    b"\x1b[#R", b"\x1b[,u", b"\x1b[?1;1;0S",
    # the window
    b"\x1b[11t", b"\x1b[13t", b"\x1b[13;2t", b"\x1b[14t", b"\x1b[14;2t", b"\x1b[15t", b"\x1b[16t", b"\x1b[18t",
    b"\x1b[19t", b"\x1b[20t", b"\x1b[21t", b"\x1b[8;24;80t",
    # colours, clipboard, and what else has a question mark
    b"\x1b]4;1;?\x07", b"\x1b]4;1;red;2;?\x1b\\", b"\x1b]5;0;?\x07", b"\x1b]10;?\x07", b"\x1b]10;?;?\x07",
    b"\x1b]11;?\x1b\\", b"\x9d11;?\x9c", b"\x9d11;?\x07", b"\xc2\x9d12;?\xc2\x9c", b"\x1b]011;?\x07", b"\x1b]17;?\x07",
    b"\x1b]19;?\x07", b"\x1b]21;foreground=?\x1b\\", b"\x1b]22;?__current__\x1b\\", b"\x1b]50;?\x07",
    b"\x1b]52;c;?\x07", b"\x1b]52;c;QUJD\x07", b"\x1b]52;;?\x1b\\", b"\x1b]60;?\x07", b"\x1b]701;?\x07",
    b"\x1b]7770;?\x07", b"\x1b]99;i=1:p=?;\x1b\\", b"\x1b]1337;ReportCellSize\x07", b"\x1b]1337;Capabilities\x07",
    b"\x1b]5522;type=read;dGV4dA==\x1b\\",
    # what answers in another way, or would be done twice
    b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\", b"\x1b]9;hello\x07", b"\x1b]777;notify;a;b\x07",
    b"\x1b[i", b"\x1b[5i",
    b"\x1bPtmux;\x1b\\", b"\x1b^private\x1b\\", b"\x1b_application\x07\x1b\\", b"\x1bX\xc2\x9c",
    b"\x1b[1*z", b"\x1b[1y",
)  # fmt: skip

PASSING = (
    b"", b"text\r\n", b"\x07", b"\x0e\x0f", "grün 漢字 😀 ⚛".encode(), b"\xff\xfe\xe9",
    b"\x1b[m", b"\x1b[1;38;5;208m", b"\x1b[38:2::1:2:3m", b"\x1b[4:3m", b"\x9b31m", b"\xc2\x9b31m", b"\x1b[>4;2m",
    b"\x1b[H", b"\x1b[2J", b"\x1b[K", b"\x1b[3;4H", b"\x1b[10@", b"\x1b[2L", b"\x1b[5S", b"\x1b[3b",
    b"\x1b[s", b"\x1b[u",
    b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25l", b"\x1b[?1000;1006h", b"\x1b[?2004h", b"\x1b[?1l", b"\x1b[4h",
    b"\x1b[3;20r", b"\x1b[?1000r", b"\x1b[4 q", b"\x1b[0 q", b"\x1b[!p", b'\x1b[62;1"p', b"\x1b[1$r", b"\x1b[>1u",
    b"\x1b[<u", b"\x1b[=5;1u", b"\x1b[22;2t", b"\x1b[23;0;0t", b"\x1b[>2t", b"\x1b[#{", b"\x1b[g",
    b"\x1b7", b"\x1b8", b"\x1b=", b"\x1b>", b"\x1bc", b"\x1bM", b"\x1b(0", b"\x1b)B", b"\x1b#8", b"\x1b%G", b"\x1b F",
    b"\x1bk", b"\x1b\\", b"\x1b]0;title?\x07", b"\x1b]2;gr\xc3\xbcn \xe2\x9c\x93\x1b\\", b"\x9d2;t\x9c", b"\x1b]8;;http://a?b\x1b\\",
    b"\x1b]7;file://box/\x07", b"\x1b]4;1;#ff0000\x07", b"\x1b]11;black\x1b\\", b"\x1b]104\x07", b"\x1b]111\x07",
    b"\x1b]133;A\x07", b"\x1bPq#0~-\x1b\\", b"\x1bP0;1q~\x9c", b"\x1bP=1s\x1b\\", b"\x1b]22;text\x1b\\",
)  # fmt: skip

# Pieces that also make what nobody writes.
FRAGMENTS = (
    *QUERIES, *PASSING, b"\x1b", b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b_", b"\x9b", b"\x9d", b"\x90", b"\xc2", b"\x9c",
    b"\xc2\x9b", b"\xc2\x9d", b"[", b"]", b"?", b"$", b"6", b"n", b"c", b"q", b";", b"\x07", b"\\", b"\x18", b"\x1a",
    b"11;?", b"\r", b"\xe2", b"\xf0\x9f", b" ", b">",
)  # fmt: skip

# Writes everything that a terminal may answer, reads the answers away, and then looks like nothing has been. A terminal
# answers in turn: it has read all of it when it says that it is well a second time, as one of the queries asks that.
ASK = """
import os, select, sys, termios, tty
before = termios.tcgetattr(0)
tty.setraw(0)
with open(sys.argv[1], "rb") as queries:
    os.write(1, queries.read() + b"\x1b[5n")
answers = b""
while answers.count(b"\x1b[0n") < 2 or select.select([0], [], [], 1.0)[0]:
    answers += os.read(0, 65536)
termios.tcsetattr(0, termios.TCSAFLUSH, before)
print("answers", len(answers) > 20)
"""
