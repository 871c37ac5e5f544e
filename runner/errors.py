"""The one exception that means "the user can fix this"."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what was asked for: shown as one line, exit code 2, nothing written."""

    def __str__(self) -> str:
        """Return the message, which may quote a config or a file, as text that steers no terminal."""
        return printable(super().__str__())


def printable(text: str) -> str:
    r"""Return text without control characters: a name from a config must not steer the terminal.

    >>> printable("lr\x1b[2J\u202e 0.1")
    'lr\\x1b[2J\\u202e 0.1'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unknown(what: str, name: object, known: Iterable[str]) -> UserError:
    """Return the error for a name that is not among the known ones, with the nearest one suggested.

    Args:
        what: The config key or the kind of thing, e.g. ``data.name``.
        name: What the user wrote.
        known: Every valid choice.

    Returns:
        An error whose message lists the valid choices, sorted.
    """
    choices = sorted(known)
    near = difflib.get_close_matches(str(name), choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UserError(f"{what} must be one of {', '.join(choices)}, got {str(name)!r}{hint}")
