"""A replay contains no queries: they are removed, however they are written and split; everything else passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pty.replayed import FRAGMENTS, PASSING, QUERIES
from tunnel.pty.client.replay import SEQUENCE_LIMIT, Replay


def shown(*pieces: bytes, live: bytes = b"") -> bytes:
    """Return what is shown of a replay that comes in ``pieces``, and of what comes after it."""
    replay = Replay(sum(map(len, pieces)))
    found = b"".join(map(replay.feed, pieces))
    assert not any(pieces) or not replay.running
    return found + replay.feed(live)


@pytest.mark.parametrize("query", QUERIES, ids=repr)
def test_a_query_does_not_pass(query: bytes) -> None:
    assert shown(b"before", query, b"after") == b"beforeafter"
    assert shown(*(bytes((byte,)) for byte in b"before" + query + b"after")) == b"beforeafter"


@pytest.mark.parametrize("query", QUERIES, ids=repr)
def test_a_query_in_live_output_is_shown(query: bytes) -> None:
    assert shown(b"before", live=query) == b"before" + query


@pytest.mark.parametrize("query", [b"\x1b[6n", b"\x1b]11;?\x07", b"\x1bP+q544e\x1b\\", b"\xc2\x9bc"], ids=repr)
def test_a_query_that_ends_live_is_live(query: bytes) -> None:
    for cut in range(1, len(query)):
        assert shown(b"x" + query[:cut], live=query[cut:] + b"y") == b"x" + query + b"y"


@pytest.mark.parametrize("sequence", PASSING, ids=repr)
def test_what_has_no_answer_passes(sequence: bytes) -> None:
    assert shown(b"before", sequence, b"after") == b"before" + sequence + b"after"
    assert shown(*(bytes((byte,)) for byte in sequence)) == sequence


@pytest.mark.parametrize(
    ("written", "passes"),
    [
        (b"\x1b[\r6n", b"\r"),
        (b"\x1b\r[\x056\nn", b"\r\n"),
        (b"\x1b[3\n1m", b"\x1b[3\n1m"),
        (b"\x1b[3\x051m", b"\x1b[31m"),
        (b"\x1b\x1b[6n[6n", b"[6n"),
        (b"\x1b[\x1b[6n6n", b"6n"),
        (b"\x1b\x1b[6n[c", b"[c"),
        (b"\x1b]0;a\x1b[6nb\x07", b"b\x07"),
        (b"\x1b]0;a\xc2\x9b6nb", b"b"),
        (b"\x1b]0;a\x18b", b"\x18b"),
        (b"\x1b[6\x18n", b"\x18n"),
        (b"\xc2\x1b[c\x9b6n", b"\xc2"),
        (b"\x1b]0;\xe2\x9c\x93 \xe2\x9b\x94\x07", b"\x1b]0;\xe2\x9c\x93 \xe2\x9b\x94\x07"),
        ("⚛ 雛 š".encode(), "⚛ 雛 š".encode()),
        (b"caf\xe9 \xe2\x82", b"caf\xe9 \xe2\x82"),
    ],
    ids=repr,
)
def test_queries_inside_other_sequences_are_removed(written: bytes, passes: bytes) -> None:
    assert shown(written) == shown(*(bytes((byte,)) for byte in written)) == passes


@pytest.mark.parametrize("mode", [b"1004", b"2031", b"2048"])
def test_a_mode_that_is_reported_at_once_is_set_behind_the_replay_if_it_is_on(mode: bytes) -> None:
    on, off = b"\x1b[?%bh" % mode, b"\x1b[?%bl" % mode
    assert shown(b"a", on, b"b", live=b"c") == b"ab" + on + b"c"
    assert shown(b"a", on, b"b", off, live=b"c") == b"ab" + off + b"c"
    assert shown(b"a\x1b[?1000;%b;2004hb" % mode, live=b"c") == b"a\x1b[?1000;2004hb" + on + b"c"
    assert shown(b"a", on, b"\x1bc", live=b"c") == b"a\x1bcc"


@pytest.mark.parametrize("number", [b"47", b"1047", b"1049"])
def test_it_is_known_which_screen_is_shown(number: bytes) -> None:
    replay = Replay(100)
    found = []
    for sequence in (b"\x1b[?25;%bh", b"\x1b[?%bl"):
        replay.feed(sequence % number)
        found.append(replay.alternate)
    assert found == [True, False]


def test_what_is_restored_is_part_of_the_replay() -> None:
    replay = Replay(3)
    assert replay.restore(b"\x1b[?1049h\x1b[?1004h\x1b]0;ti") == b"\x1b[?1049h"
    assert replay.feed(b"t\x07") == b"\x1b]0;tit\x07"
    assert replay.feed(b"x\x1b[6n") == b"x\x1b[?1004h\x1b[6n"
    assert Replay(0).restore(b"\x1b[?1004h") == b"\x1b[?1004h"


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12), st.lists(st.integers(1, 9), max_size=40))
def test_it_does_not_matter_how_a_replay_is_cut(parts: list[bytes], sizes: list[int]) -> None:
    output, pieces = b"".join(parts), []
    rest = output
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    once = shown(output)
    assert shown(*pieces, rest) == once
    assert b"\x05" not in once


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12))
def test_what_is_left_makes_no_new_query(parts: list[bytes]) -> None:
    once = shown(b"".join(parts) + b"\x18")
    assert shown(once) == once


def test_a_long_picture_passes_and_a_long_query_does_not() -> None:
    picture = b"\x1bP0;1;0q" + b"#0;2;0;0;0~-" * 5000 + b"\x1b\\"
    clipboard = b"\x1b]52;c;" + b"QUJD" * 5000 + b"\x07"
    whole = b"a" + picture + b"b" + clipboard + b"c"
    for size in (1, 100, 1 << 20):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert shown(*pieces) == b"a" + picture + b"bc"
    assert shown(picture[:9000], live=picture[9000:]) == picture
    cut = shown(b"a" + clipboard[:9000], live=clipboard[9000:] + b"b")
    assert cut == b"a\x1b]99999;" + clipboard[9000:] + b"b"
    assert shown(b"\x1b[?1004h" + picture[:9000]) == picture[:9000] + b"\x1b\\\x1b[?1004h\x1bP~"


@pytest.mark.parametrize("begins", [b"\x1b[", b"\x1b]52;c;", b"\x1b]0;", b"\x1bPq", b"\x1b_", b"\x1b(", b"\x1b"])
def test_what_is_held_back_is_bounded(begins: bytes) -> None:
    replay = Replay(1 << 30)
    replay.feed(begins)
    for _ in range(200):
        replay.feed(b" " * 1000)
        assert len(replay._held) <= SEQUENCE_LIMIT + 4
