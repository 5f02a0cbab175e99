"""Starting a program on a new pty or on pipes.

/bin/sh runs between this program and the command: as the leader of a new session it opens the terminal, which makes it
the controlling terminal, and then executes the command, or ends with status 127 if there is no such command.
"""

from __future__ import annotations

import contextlib
import grp
import os
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tunnel.children.child import Child, Credentials, start
from tunnel.children.terminal import enable_utf8, set_size
from tunnel.net.descriptors import soft_limit_at_start

OutputKind = Literal["pty", "stdout", "stderr"]

# $1 is the limit of open files, $2 the terminal.
_ON_PTY = 'ulimit -S -n "$1" 2>/dev/null; exec <>"$2" >&0 2>&0; shift 2; exec "$@"'
_ON_PIPES = 'ulimit -S -n "$1" 2>/dev/null; shift 1; exec "$@"'


@dataclass(frozen=True, slots=True)
class Program:
    """A started child, and our non-blocking ends of its streams.

    On a pty they are the same descriptor. If ``stdin`` is None, the child reads from /dev/null.
    """

    child: Child
    outputs: dict[int, OutputKind]
    stdin: int | None


@dataclass(frozen=True, slots=True)
class _Streams:
    ours: Mapping[int, OutputKind]
    our_stdin: int | None
    theirs: tuple[int, int, int]
    script: str
    arguments: tuple[str, ...]  # in front of the command


def spawn(
    command: Sequence[str],
    cwd: str,
    env: Mapping[str, str],
    *,
    size: tuple[int, int] | None,
    stdin: bool,
    credentials: Credentials | None = None,
    prepare: Callable[[int], None] | None = None,
    outlives_us: bool = False,
) -> Program:
    """Start ``command`` on a pty of ``size`` (columns, rows), or on pipes (None), as the leader of a new session.

    ``prepare`` is called with the terminal before anything runs on it. A child that ``outlives_us`` is not killed when
    this process ends, and has no mark, because nobody will look for its descendants. Raises OSError if no process can
    be started, or if the user of ``credentials`` (None: ours) may not enter ``cwd``.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        streams = _pipes(stdin, ours, theirs) if size is None else _pty(size, credentials, ours, theirs)
        if prepare is not None and size is not None:
            prepare(streams.theirs[0])
        child = start(
            [*streams.arguments, *command],
            script=streams.script,
            stdin=streams.theirs[0],
            stdout=streams.theirs[1],
            stderr=streams.theirs[2],
            cwd=cwd,
            env=env,
            credentials=credentials,
            marked=not outlives_us,
            ends_with_us=not outlives_us,
        )
        ours.pop_all()
    return Program(child, dict(streams.ours), streams.our_stdin)


def _file_limit() -> str:
    """Return the soft limit of open files for children, as a shell has it."""
    soft = soft_limit_at_start()
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)


def _pty(
    size: tuple[int, int],
    credentials: Credentials | None,
    ours: contextlib.ExitStack,
    theirs: contextlib.ExitStack,
) -> _Streams:
    controller, terminal = os.openpty()
    ours.callback(os.close, controller)
    theirs.callback(os.close, terminal)
    os.set_blocking(controller, False)
    set_size(terminal, *size)
    enable_utf8(terminal)
    if credentials is not None:
        # Login programs do the same: the user owns the terminal, and programs such as `write` use its group.
        try:
            group, mode = grp.getgrnam("tty").gr_gid, 0o620
        except KeyError:
            group, mode = credentials.gid, 0o600
        os.fchown(terminal, credentials.uid, group)
        os.fchmod(terminal, mode)
    arguments = (_file_limit(), os.ttyname(terminal))
    return _Streams({controller: "pty"}, controller, (terminal, terminal, terminal), _ON_PTY, arguments)


def _pipes(stdin: bool, ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> _Streams:
    kinds: tuple[OutputKind, ...] = ("stdout", "stderr")
    outputs: dict[int, OutputKind] = {}
    ends = []
    for kind in kinds:
        output, end = os.pipe()
        ours.callback(os.close, output)
        theirs.callback(os.close, end)
        os.set_blocking(output, False)
        outputs[output] = kind
        ends.append(end)
    if stdin:
        source, our_stdin = os.pipe()
        ours.callback(os.close, our_stdin)
        os.set_blocking(our_stdin, False)
    else:
        source, our_stdin = os.open(os.devnull, os.O_RDONLY), None
    theirs.callback(os.close, source)
    return _Streams(outputs, our_stdin, (source, ends[0], ends[1]), _ON_PIPES, (_file_limit(),))
