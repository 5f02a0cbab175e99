"""Which word of ssh's, scp's and sftp's command lines is a host, and where further options can be put."""

from __future__ import annotations

import shlex

import pytest

from tunnel.ssh.command_lines import parse, without_options

# Program, words (the place for more options is marked with |), and the hosts, with @ before those with a user.
LINES = [
    ("ssh", "box |", ["box"]),
    ("ssh", "me@box |", ["@box"]),
    ("ssh", "me@corp@box |", ["@box"]),
    ("ssh", "box | ls -l -p 1", ["box"]),
    ("ssh", "-p 22 box |", ["box"]),
    ("ssh", "-p22 -vvi key box | id", ["box"]),
    ("ssh", "-o User=x -L 1:h:2 -W h:1 box |", ["box"]),
    ("ssh", "-vp 22 -l me box |", ["box"]),
    ("ssh", "-b 127.0.0.1 -B lo -c x -D 1 -E log -e ^] -F f -I x -i k -J a,b box |", ["box"]),
    ("ssh", "-m x -O check -P tag -Q x -R 1:h:2 -S none -w 0 -l u box |", ["box"]),
    ("ssh", "-4AaCfGgKkMNnqsTtVvXxYy box |", ["box"]),
    ("ssh", "box -p 22 -v | ls -l", ["box"]),
    ("ssh", "box -l me | -- ls", ["box"]),
    ("ssh", "-v | -- box -v", ["box"]),
    ("ssh", "| -- me@box ls", ["@box"]),
    ("ssh", "ssh://box |", ["box"]),
    ("ssh", "SSH://me@box:2222 |", ["@box"]),
    ("ssh", "ssh://me@[::1]:22 |", ["@::1"]),
    ("ssh", "ssh://[box] |", ["box"]),
    ("ssh", "[box] |", ["box"]),
    ("ssh", "-Q cipher |", []),
    ("ssh", "-p |", []),
    ("ssh", "|", []),
    ("scp", "| file box:", ["box"]),
    ("scp", "| box:file .", ["box"]),
    ("scp", "-r | a b me@box:c", ["@box"]),
    ("scp", "-P 22 -l 100 -i key -rp | box:a other:b", ["box", "other"]),
    ("scp", "| box:a me@box:b", ["box", "@box"]),
    ("scp", "| -- -odd: box:", ["-odd", "box"]),
    ("scp", "| ./a:b box:c", ["box"]),
    ("scp", "| :a b", []),
    ("scp", "| a/b:c d", []),
    ("scp", "| [box]:a [::1]:b", ["box", "::1"]),
    ("scp", "| me@[box]:a .", ["@box"]),
    ("scp", "| scp://me@box:22/a .", ["@box"]),
    ("scp", "| scp://box .", ["box"]),
    ("scp", "-3 -J jump -X n=1 -D server -c x -S ssh -F f -o a=b | box:a .", ["box"]),
    ("scp", "|", []),
    ("sftp", "| box", ["box"]),
    ("sftp", "| me@box:folder", ["@box"]),
    ("sftp", "| box:file file", ["box"]),
    ("sftp", "-b batch -P 22 -R 1 -B 2 -s x -l 1 | [box]:a", ["box"]),
    ("sftp", "| sftp://me@box:22/a", ["@box"]),
    ("sftp", "-a | -- box", ["box"]),
    ("sftp", "-D server |", []),
]


@pytest.mark.parametrize(("program", "text", "hosts"), LINES, ids=[f"{each[0]} {each[1]}" for each in LINES])
def test_hosts_and_the_place_for_options_are_found(program: str, text: str, hosts: list[str]) -> None:
    words = shlex.split(text)
    end = words.index("|")
    del words[end]
    line = parse(program, words)
    assert (line.words, line.end) == (words, end)
    assert ["@" * each.has_user + each.host for each in line.remotes] == hosts


@pytest.mark.parametrize(
    ("words", "left", "jump"),
    [
        ("-J a,b -v box ls", "-v box ls", "a,b"),
        ("-vJa box", "-v box", "a"),
        ("-vJ a box", "-v box", "a"),
        ("-p 1 box -J u@a:22 ls", "-p 1 box ls", "u@a:22"),
        ("-o ProxyJump=a -- box", "-- box", "a"),
        ("-oproxyjump=a box", "box", "a"),
        ("-o 'ProxyJump a' box", "box", "a"),
        ("-o 'ProxyJump = \"a\"' box", "box", "a"),
    ],
)
def test_an_option_can_be_taken_out(words: str, left: str, jump: str) -> None:
    line = parse("ssh", shlex.split(words))
    jumps = [each for each in line.options if each.jump]
    assert [each.jump for each in jumps] == [jump]
    after, expected = without_options(line, jumps), parse("ssh", shlex.split(left))
    assert (after.words, after.end, after.remotes) == (expected.words, expected.end, expected.remotes)


def test_the_last_value_counts() -> None:
    line = parse("ssh", ["-F", "one", "box", "-Ftwo"])
    assert (line.value("F"), line.value("p")) == ("two", None)
    assert line.has("F") and not line.has("v")
