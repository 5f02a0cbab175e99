"""State that the scrollback has lost is restored: the tracker of modes, and the terminal that it restores."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunnel.pty.server.modes import BLOCK, Modes

ESC = b"\x1b"
LONG = b"x" * 5000
# What is written, and what a terminal needs afterwards.
CASES = {
    "alternate screen": (b"\x1b[?1049h", b"\x1b[?1047l\x1b[?1049h"),
    "an older alternate screen": (b"\x1b[?47h", b"\x1b[?47h"),
    "left again": (b"\x1b[?1049h\x1b[?1049l", b"\x1b[?1047l"),
    "mouse": (b"\x1b[?1000;1006h", b"\x1b[?1000h\x1b[?1006h"),
    "the last of two kinds of mouse": (b"\x1b[?1003h\x1b[?1000h\x1b[?1003h", b"\x1b[?1000h\x1b[?1003h"),
    "cursor keys": (b"\x1b[?1h", b"\x1b[?1h"),
    "keypad": (b"\x1b=", b"\x1b="),
    "bracketed paste": (b"\x1b[?2004h", b"\x1b[?2004h"),
    "focus": (b"\x1b[?1004h", b"\x1b[?1004h"),
    "no wrapping": (b"\x1b[?7l", b"\x1b[?7l"),
    "hidden cursor": (b"\x1b[?25l", b"\x1b[?25l"),
    "shape of the cursor": (b"\x1b[4 q", b"\x1b[4 q"),
    "title": (b"\x1b]0;vim\x07", b"\x1b]2;vim\x1b\\"),
    "title, ended by ST": (b"\x1b]2;gr\xc3\xbcn\x1b\\", b"\x1b]2;gr\xc3\xbcn\x1b\\"),
    "pushed title": (b"\x1b]2;sh\x07\x1b[22;2t\x1b]2;vim\x07", b"\x1b]2;sh\x1b\\\x1b[22;2t\x1b]2;vim\x1b\\"),
    "popped title": (b"\x1b]2;sh\x07\x1b[22;2t\x1b]2;vim\x07\x1b[23;2t", b"\x1b]2;sh\x1b\\"),
    "charset": (b"\x1b(0", b"\x1b(0"),
    "shifted charset": (b"\x1b)0\x0e", b"\x1b)0\x0e"),
    "margins": (b"\x1b[3;20r", b"\x1b[3;20r"),
    "margins that were taken back": (b"\x1b[3;20r\x1b[r", b"\x1b7\x1b[r\x1b8"),
    "origin": (b"\x1b[3;20r\x1b[?6h", b"\x1b[3;20r\x1b[?6h"),
    "insert": (b"\x1b[4h", b"\x1b[4h"),
    "kitty's keys": (b"\x1b[>1u", b"\x1b[<16u\x1b[=0u\x1b[>1u"),
    "kitty's keys, popped": (b"\x1b[>1u\x1b[>5u\x1b[<u", b"\x1b[<16u\x1b[=0u\x1b[>1u"),
    "kitty's keys of the alternate screen": (
        b"\x1b[?1049h\x1b[>3u",
        b"\x1b[?1047l\x1b[<16u\x1b[=0u\x1b[?1049h\x1b[<16u\x1b[=0u\x1b[>3u",
    ),
    "kitty's keys, set": (b"\x1b[=5u\x1b[=2;2u\x1b[=1;3u", b"\x1b[<16u\x1b[=6u"),
    "xterm's other keys": (b"\x1b[>4;2m", b"\x1b[>4;2m"),
    "colours": (b"\x1b[1;38;5;208;48;2;1;2;3m", b"\x1b[0;1;38;5;208;48;2;1;2;3m"),
    "colours with colons": (b"\x1b[38:2::1:2:3;4:3m", b"\x1b[0;38:2::1:2:3;4:3m"),
    "colours that were taken back": (b"\x1b[1;2;4;31m\x1b[22;39m", b"\x1b[0;4m"),
    "colours behind a reset": (b"\x1b[31m\x1b[0;7m", b"\x1b[0;7m"),
    "colours that come again": (b"\x1b[31m\x1b[1m\x1b[32m\x1b[31m", b"\x1b[0;1;31m"),
    "palette": (b"\x1b]4;1;#ff0000;2;?\x07\x1b]11;#000000\x07", b"\x1b]4;1;#ff0000\x1b\\\x1b]11;#000000\x1b\\"),
    "palette, reset": (b"\x1b]4;1;#ff0000\x07\x1b]104\x07\x1b]10;red;blue\x07\x1b]111\x07", b"\x1b]104\x1b\\"),
    "one colour of the palette, reset": (
        b"\x1b]4;1;red;2;blue\x07\x1b]104;1;3\x07",
        b"\x1b]104;1\x1b\\\x1b]4;2;blue\x1b\\",
    ),
    "palette, reset and changed": (
        b"\x1b]4;1;red\x07\x1b]104\x07\x1b]4;2;red\x07",
        b"\x1b]104\x1b\\\x1b]4;2;red\x1b\\",
    ),
    "link": (b"\x1b]8;id=1;http://a\x1b\\", b"\x1b]8;id=1;http://a\x1b\\"),
    "link that ended": (b"\x1b]8;;http://a\x07text\x1b]8;;\x07", b""),
    "saved modes": (b"\x1b[?1000h\x1b[?1000s\x1b[?1000l\x1b[?1000r", b"\x1b[?1000h"),
    "two bytes for one control": (b"\xc2\x9b?2004h", b"\x1b[?2004h"),
    "reset": (b"\x1b[?25l\x1b[?2004h\x1b[31m\x1b[?1049h\x1bc", b"\x1b[?1047l\x1b[?25h\x1b[?2004l\x1b[0m"),
    "soft reset": (b"\x1b[?25l\x1b[?1h\x1b[4h\x1b[31m\x1b[!p", b"\x1b[4l\x1b[?25h\x1b[?1l\x1b[0m"),
    # Halves
    "half a sequence": (b"\x1b[38;5", b"\x1b[0m\x1b[38;5"),
    "half a title": (b"\x1b]0;vi", b"\x1b[0m\x1b]0;vi"),
    "half of its end": (b"\x1b]0;vi\x1b", b"\x1b[0m\x1b]0;vi\x1b"),
    "half a character": (b"gr\xc3", b"\x1b[0m\xc3"),
    "nothing half": (b"gr\xc3\xbcn", b"\x1b[0m"),
    "half of a long string": (b"\x1b]52;c;" + LONG, b"\x1b[0m\x1b]99999;"),
    "half of a picture": (b"\x1bPq" + LONG, b"\x1b[0m\x1bP~"),
    "behind a long string": (b"\x1b]52;c;" + LONG + b"\x07\x1b[?1h", b"\x1b[?1h\x1b[0m"),
    "behind another": (b"\x1b_G" + LONG + b"\x07\x1b\\\x1b[?1h", b"\x1b[?1h\x1b[0m"),
}


def restored(*pieces: bytes) -> bytes:
    modes = Modes()
    for piece in pieces:
        modes.feed(piece)
    return modes.restore()


@pytest.mark.parametrize(("written", "needed"), CASES.values(), ids=CASES)
def test_a_mode_is_restored(written: bytes, needed: bytes) -> None:
    assert needed in restored(b"text " + written)
    if not written.endswith(LONG) and written == written.rstrip(b"\x1b\xc3") and "half" not in needed.decode("latin-1"):
        assert needed.removesuffix(written) in restored(b"text " + written + b" more text\r\n")


@example(parts=[b"\x1b[!p", b"\x0e"], sizes=[4])
@example(parts=[b"\x0e", b"\x1b[!p"], sizes=[1])
@example(parts=[b"\x0e", b"\x1bc", b"\x1b[!p", b"\x0f\x0e"], sizes=[])
@given(st.lists(st.sampled_from([written for written, _ in CASES.values()] + [b"text", b"\r\n", b"\xf0\x9f\x98\x80"])),
       st.lists(st.integers(0, 200), max_size=20))  # fmt: skip
def test_the_restored_modes_do_not_depend_on_chunking(parts: list[bytes], sizes: list[int]) -> None:
    output = b"".join(parts)
    at_once = restored(output)
    modes, at = Modes(), 0
    for size in sizes:
        modes.feed(output[at : at + size])
        modes.restore()  # looks at what has come
        at += size
    modes.feed(output[at:])
    assert modes.restore() == at_once


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_can_be_tracked(output: bytes, cut: int) -> None:
    assert restored(output[:cut], output[cut:]) is not None


def test_what_is_restored_is_the_same_state() -> None:
    whole = b"".join(written for name, (written, _) in CASES.items() if not re.search("half|long|pushed|reset", name))
    once = restored(whole)
    assert len(once) > 200 and restored(whole + once) == restored(once) == once


def test_what_is_remembered_is_bounded() -> None:
    modes = Modes()
    for number in range(100_000):
        modes.feed(b"\x1b[?%dh\x1b[%dh\x1b]4;%d;#%d\x07\x1b]2;%s\x07\x1b[22t\x1b[>1u\x1b[>%d;1m" % (
            number, number, number, number, b"t" * 2000 if number % 1000 == 0 else b"t", number))  # fmt: skip
    assert len(modes.restore()) < 48 << 10
    modes.feed(b"\x1b]0;" + b"x" * (3 * BLOCK))
    assert len(modes.restore()) < 48 << 10


def test_only_the_last_of_many_colours_are_kept() -> None:
    picture = b"".join(b"\x1b[38;2;%d;%d;9m\x1b[48;2;%d;1;1m#" % (n % 256, n // 256, n % 256) for n in range(1000))
    pairs = b"".join(b"\x1b[38;2;%d;2;3;48;2;%d;5;6m#" % (n, n) for n in range(200))
    assert b"\x1b[0;1;38;2;231;3;9;48;2;231;1;1m" in restored(b"\x1b[1m" + picture)
    assert b"\x1b[0;38;2;231;3;9;48;2;231;1;1m" in restored(pairs + picture)
    assert b"\x1b[0;38;2;199;2;3;48;2;199;5;6m" in restored(picture + pairs)
