"""OpenSSH's programs, and rsync, through a tunnel without any configuration.

They get the lines that ``config-ssh`` would write for the host, as ``-o`` options after the user's, which take
precedence. All other settings come from the user's ssh_config as usual.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping, Sequence

from tunnel.errors import UsageError
from tunnel.ssh.command_lines import CommandLine, Remote, parse, without_options
from tunnel.ssh.config import SSH_OPTIONS, check_single, host_lines, named_host, passed_on_words, read_source
from tunnel.ssh.quoting import quoted_for_rsync, quoted_for_shell, quoted_value
from tunnel.ssh.written import options_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.config import Values
    from tunnel.ssh.config import Source

PATH_TO_TARGET = '"[%h]:%p"'  # for ssh -W; in quotes, as some shells would take the brackets for a pattern
# The letters of rsync's options that have a value in the same or the next word.
_RSYNC_TAKES_VALUE = frozenset("BTMfe@")


def ssh_words(
    program: str, words: Sequence[str], given: Values, started_as: str, environ: Mapping[str, str] = os.environ
) -> list[str]:
    """Return the words for ``program`` (ssh, scp or sftp) that make it use a tunnel to the hosts in ``words``.

    ``given`` are options of `SSH_OPTIONS`, ``started_as`` is ``sys.argv[0]``. Raises UsageError.
    """
    line = parse(program, words)
    if not line.remotes:
        return line.words  # a local copy, a query such as -Q, or an error that the program reports
    if any(each.jump for each in line.options):
        return _through_jumps(line, given, started_as, environ)
    ssh_config = line.value("F")
    sources: dict[str, Source] = {}
    for remote in line.remotes:
        if remote.host not in sources:
            merged = {**options_for(remote.host, ssh_config), **given}
            sources[remote.host] = read_source(merged, started_as, environ)
    lines = {host: _lines_for(host, source) for host, source in sources.items()}
    words = list(line.words)
    if program == "ssh":
        lines = {host: _without("User", each) if line.remotes[0].has_user else each for host, each in lines.items()}
    else:
        # A User option would override those of the operands, which may differ.
        for remote in line.remotes:
            words[remote.at] = _with_user(program, words[remote.at], remote, lines[remote.host])
        lines = {host: _without("User", each) for host, each in lines.items()}
    if len(lines) > 1 and line.has("R"):
        raise UsageError("-R: the first host cannot use this machine's tunnel to the second; leave it out")
    added = [word for each in _common(program, lines) for word in ("-o", each)]
    return [*words[: line.end], *added, *words[line.end :]]


def rsync_words(
    words: Sequence[str], given: Values, started_as: str, environ: Mapping[str, str] = os.environ
) -> list[str]:
    """Return the words for ``rsync`` that make ``wstunnel-py ssh`` its remote shell. Raises UsageError.

    The user's options for ssh, from ``-e 'ssh …'`` or else RSYNC_RSH, are kept.
    """
    source = read_source(given, started_as, environ)
    shell = " ".join(map(quoted_for_rsync, [*source.program, "ssh", *passed_on_words(given, SSH_OPTIONS), "--"]))
    words = list(words)
    found = _rsync_shells(words)
    for start, stop, kept, value in reversed(found):  # rsync uses the last one
        words[start:stop] = [*([kept] if kept else []), "-e", f"{shell} {_ssh_options(value, '-e')}".rstrip()]
    if found:
        return words
    options = _ssh_options(environ.get("RSYNC_RSH") or "ssh", "RSYNC_RSH")
    return ["-e", f"{shell} {options}".rstrip(), *words]


def _ssh_options(remote_shell: str, origin: str) -> str:
    """Return the options after ssh in a remote shell for rsync. Raises UsageError for another program."""
    name, _, options = remote_shell.strip().partition(" ")
    if os.path.basename(name).removesuffix(".exe") != "ssh":
        problem = f"{remote_shell!r} is not ssh with options, and no other program can use a tunnel"
        raise UsageError(problem, origin=origin)
    return options


def _lines_for(host: str, source: Source) -> list[str]:
    check_single(host)
    found = named_host(source.config, host)
    return host_lines(found, source, value=quoted_value, word=quoted_for_shell)


def _common(program: str, lines: Mapping[str, list[str]]) -> list[str]:
    """Return lines that apply to all hosts, as options apply to every connection. Raises UsageError."""
    first, *others = lines.items()
    if not others:
        return first[1]
    tables = {host: _general(host, each) for host, each in lines.items()}
    patience = max((table.pop("ServerAliveCountMax") for table in tables.values()), key=int)
    name, common = next(iter(tables.items()))
    for other, table in tables.items():
        if differing := [key for key in {**common, **table} if common.get(key) != table.get(key)]:
            raise UsageError(
                f"{name} and {other} need a different {', '.join(differing)}, but {program} uses one for both: "
                f"copy in two steps, or run wstunnel-py config-ssh --write, and then {program} alone"
            )
    return [*(f"{key} {value}" for key, value in common.items()), f"ServerAliveCountMax {patience}"]


def _general(host: str, lines: Sequence[str]) -> dict[str, str]:
    """Return the lines for ``host`` by keyword, with its name replaced by a token of ssh."""
    table = dict(line.split(" ", 1) for line in lines)
    table["HostName"] = "%h"
    if table.get("HostKeyAlias") == host:
        del table["HostKeyAlias"]
    return table


def _without(keyword: str, lines: Sequence[str]) -> list[str]:
    return [line for line in lines if line.split(" ", 1)[0] != keyword]


def _with_user(program: str, operand: str, remote: Remote, lines: Sequence[str]) -> str:
    user = next((line.split(" ", 1)[1] for line in lines if line.startswith("User ")), None)
    if user is None or remote.has_user:
        return operand
    start = f"{program}://"
    if operand.lower().startswith(start):
        return f"{operand[: len(start)]}{urllib.parse.quote(user, safe='')}@{operand[len(start) :]}"
    return f"{user}@{operand}"


def _through_jumps(line: CommandLine, given: Values, started_as: str, environ: Mapping[str, str]) -> list[str]:
    """Return the words that reach the host through jump hosts, of which the first is behind the tunnel.

    ssh itself would start another ssh for ``-J``, without the tunnel.
    """
    jumps = [each for each in line.options if each.jump]
    if len(jumps) > 1:
        raise UsageError("give all hosts to go through in one option, with commas between them: -J ONE,OTHER")
    before, _, last = str(jumps[0].jump).rpartition(",")
    line = without_options(line, jumps)
    if last.lower() == "none":
        raise UsageError("-J none: leave it out; wstunnel-py ssh goes through no other host by itself")
    source = read_source(given, started_as, environ)
    ours = [*source.program, "ssh", *passed_on_words(given, SSH_OPTIONS), "--"]
    theirs = [f"-{each.letter}" for each in line.options if each.letter == "v"]
    if (file := line.value("F")) is not None:
        theirs += ["-F", file if file.lower() == "none" else os.path.abspath(file)]
    if before:
        theirs += ["-J", before]
    # ssh accepts a host with a port only as a URI.
    last = last if last.lower().startswith("ssh://") else f"ssh://{last}"
    command = [*map(quoted_for_shell, [*ours, *theirs, "-W"]), PATH_TO_TARGET, quoted_for_shell(last)]
    added = ["-o", f"ProxyCommand {' '.join(command)}"]
    return [*line.words[: line.end], *added, *line.words[line.end :]]


def _rsync_shells(words: Sequence[str]) -> list[tuple[int, int, str, str]]:
    """Return the positions of ``-e`` and ``--rsh``: first word, next word, rest of the first word, and value."""
    found = []
    at = 0
    while at < len(words) and words[at] != "--":
        word, start = words[at], at
        at += 1
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            if name == "--rsh":
                if not equals and at < len(words):
                    value = words[at]
                    at += 1
                found.append((start, at, "", value))
        elif word.startswith("-"):
            offset = next((offset for offset, letter in enumerate(word) if letter in _RSYNC_TAKES_VALUE), None)
            if offset is not None:
                value = word[offset + 1 :].removeprefix("=")
                if not value and at < len(words):
                    value = words[at]
                    at += 1
                if word[offset] == "e":
                    found.append((start, at, word[:offset] if offset > 1 else "", value))
    return found
