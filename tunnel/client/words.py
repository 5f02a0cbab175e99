"""The words of a command line in the GNU style, read one option or operand at a time.

The options and the meaning of their values are in the tables that use this module: `options`, and that of websocat.
"""

from __future__ import annotations

from tunnel.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Words:
    """A command line that is being read. ``rest`` holds the words that have not been read yet."""

    def __init__(self, words: Sequence[str]) -> None:
        self.rest = list(words)

    def items(self, stands_alone: Callable[[str], bool]) -> Iterator[tuple[str, str | None]]:
        """Yield each option as it was typed (``--name``, ``-x``) with the value attached to it, if any.

        An operand is yielded as ("", operand). ``stands_alone`` says whether a letter takes no value, so that the next
        letter of its word is an option, too.
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
        """Return the value of an option: the attached one, else the next word. Raises UsageError with ``what``."""
        if attached is not None:
            return attached
        if not self.rest:
            raise UsageError(f"{name} needs a value: {what}")
        return self.rest.pop(0)


def refuse_value(name: str, attached: str | None) -> None:
    """Raise UsageError if a value is attached to an option that takes none."""
    if attached is not None:
        raise UsageError(f"{name} takes no value")


def wrong_operands(operands: Sequence[str], usage: str, required: str = "HOST", most: int = 1) -> UsageError:
    """Return the error for more than ``most`` ``operands``, or for none where ``required`` is needed."""
    problem = f"unexpected {operands[most]!r}" if operands else f"{required} is missing"
    return UsageError(f"{problem}; usage: wstunnel-py {usage}")


def unknown_option(name: str, known: Sequence[str], command: str) -> UsageError:
    """Return the error for an option that ``command`` does not have; ``known`` are long names, without the dashes."""
    near = suggestion(name[2:], [*known, "help", "version"], "--") if name.startswith("--") else ""
    return UsageError(f"there is no option {name}{near}; see wstunnel-py {command} --help")


def suggestion(name: str, known: Sequence[str], prefix: str = "") -> str:
    """Return a remark that names the one of ``known`` that is most like ``name``; "" if none is."""
    import difflib

    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
