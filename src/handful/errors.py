"""The errors that handful raises on purpose.

A mistake of the user is a `UserError`: its message names the offending thing and the way out, and the command
line prints it without a stack trace. Everything else is a fault of handful and shows its trace.
"""

import difflib
from collections.abc import Hashable, Iterable


class HandfulError(Exception):
    """Root of all errors of this package."""


class UserError(HandfulError, ValueError):
    """Something in the input, the options or the files is wrong; the message says what, and what to do."""


class DataError(UserError):
    """The user's data cannot be used as it is: a file, a column, a class, a task."""


class DivergedError(HandfulError):
    """A prediction, or what adapting keeps of a task, is no finite number, so that there is no answer.

    key: which task it is of, where there are several; None where there is one.
    """

    def __init__(self, message: str, key: Hashable = None) -> None:
        super().__init__(message)
        self.key = key


class ArtifactError(UserError):
    """A saved run, meta-model or adapted task is missing, truncated, altered or of another format."""


def unknown_name(noun: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not among `known`, with the nearest one first."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return UserError(f"Unknown {noun} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")
