"""The synchronous client and the asynchronous one are twins: the same methods, parameters and docstrings."""

from __future__ import annotations

import inspect

import pytest

from tunnel.pty.client import aio, sync

PAIRS = ((sync.Sandbox, aio.AsyncSandbox), (sync.Pty, aio.AsyncPty), (sync.Terminal, aio.AsyncTerminal))
# Words of the asynchronous client and their counterparts in the synchronous one; nothing else may differ.
WORDS = (
    ("__aenter__", "__enter__"),
    ("__aexit__", "__exit__"),
    ("__aiter__", "__iter__"),
    ("Async", ""),
    ("An asynchronous context manager", "A context manager"),
    ("in a background task, and awaited if it is a coroutine function", "in a background thread"),
    ("several tasks", "several threads"),
)
PROTOCOLS = {"__init__", "__enter__", "__exit__", "__iter__"}


def translated(text: str) -> str:
    """Return the counterpart of a text in the synchronous client, without line breaks."""
    text = " ".join(text.split())
    for theirs, ours in WORDS:
        text = text.replace(theirs, ours)
    return text


def public_members(cls: type) -> dict[str, object]:
    members = {translated(name): member for name, member in vars(cls).items()}
    return {name: member for name, member in members.items() if not name.startswith("_") or name in PROTOCOLS}


def signature(member: object) -> str:
    """Return parameters with kinds, defaults and annotations, and the annotation of the result."""
    function = member.fget if isinstance(member, property) else member
    assert inspect.isfunction(function)
    return ("property " if isinstance(member, property) else "") + translated(str(inspect.signature(function)))


def documentation(member: object) -> str:
    return translated(inspect.getdoc(member) or "")


def check(ours: type, theirs: type) -> None:
    members, twins = public_members(ours), public_members(theirs)
    assert list(members) == list(twins)
    assert {name: signature(member) for name, member in members.items() if name != "__init__"} == {
        name: signature(member) for name, member in twins.items() if name != "__init__"
    }
    assert signature(members["__init__"]) == signature(twins["__init__"])
    assert {name: documentation(member) for name, member in members.items()} == {
        name: documentation(member) for name, member in twins.items()
    }
    assert documentation(ours) == documentation(theirs)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_both_clients_have_the_same_methods_parameters_and_docstrings(ours: type, theirs: type) -> None:
    check(ours, theirs)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_every_public_method_is_documented(ours: type, theirs: type) -> None:
    undocumented = [
        name for name, member in public_members(ours).items() if name not in PROTOCOLS and not documentation(member)
    ]
    assert undocumented == []


@pytest.mark.parametrize(
    "change",
    [
        {"extra": lambda self: None},
        {"kill": lambda self, pid, force=False: None},
        {"kill": lambda self, pid: None},
    ],
    ids=["a method more", "a parameter more", "no docstring and no annotations"],
)
def test_a_difference_between_the_two_is_noticed(change: dict[str, object]) -> None:
    drifted = type("Pty", (), {**vars(sync.Pty), **change})
    with pytest.raises(AssertionError):
        check(drifted, aio.AsyncPty)
