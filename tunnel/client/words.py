"""The words of a command line in the GNU style, read one option or operand after another.

Which options there are, and what their values mean, is for the tables that use it: `options`, and that of websocat.
"""

from __future__ import annotations

from tunnel.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Words:
    """A command line that is being read. ``rest`` holds the words that were not read yet."""

    def __init__(self, words: Sequence[str]) -> None:
        self.rest = list(words)

    def items(self, stands_alone: Callable[[str], bool]) -> Iterator[tuple[str, str | None]]:
        """Yield each option as it was typed (``--name``, ``-x``) with the value attached to it, if any.

        An operand comes as ("", operand). ``stands_alone`` tells whether a letter takes no value, so that the next
        letter of its word is an option too.
        """
        while self.rest:
            word = self.rest.pop(0)
            if word == "--":
                operands, self.rest = self.rest, []
                yield from (("", each) for each in operands)
            elif word.startswith("--"):
                name, equals, value = word.partition("=")
                yield name, value if equals else None
            elif word.startswith("-") and len(word) > 1:
                letters = word[1:]
                while letters:
                    letter, letters = letters[0], letters[1:]
                    if stands_alone(letter):
                        yield f"-{letter}", None
                    else:
                        yield f"-{letter}", letters or None
                        letters = ""
            else:
                yield "", word

    def value(self, name: str, attached: str | None, what: str) -> str:
        """Return the value of an option: what is attached to it, else the next word. ``what`` goes into UsageError."""
        if attached is not None:
            return attached
        if not self.rest:
            raise UsageError(f"{name} needs a value: {what}")
        return self.rest.pop(0)


def refuse_value(name: str, attached: str | None) -> None:
    """Raise UsageError if a value is attached to an option that takes none."""
    if attached is not None:
        raise UsageError(f"{name} takes no value")


def unknown_option(name: str, known: Sequence[str], command: str) -> UsageError:
    """Return the error for an option that ``command`` does not have; ``known`` are long names, without the dashes."""
    near = suggestion(name[2:], [*known, "help", "version"], "--") if name.startswith("--") else ""
    return UsageError(f"there is no option {name}{near}; see wstunnel-py {command} --help")


def suggestion(name: str, known: Sequence[str], prefix: str = "") -> str:
    """Return a remark on which of the ``known`` names was meant by ``name``, if one is near; else nothing."""
    import difflib

    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
