"""The errors that handful raises on purpose.

A mistake of the user is a `UserError`: its message names the offending thing and the way out, and the command
line prints it without a stack trace. Everything else is a bug of handful and shows its trace.
"""

import contextlib
import copy
import difflib
import itertools
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import ClassVar, Self, TypeAlias

Field: TypeAlias = tuple[str | int, ...]
"""The part of the arguments, from the outside in, such as `("examples", 3, "input", "price")`; `()` is the whole."""

CODES = {
    # what was asked for
    "invalid-request": "invalid-request",
    "unknown-name": "invalid-request",
    "unwritable": "storage-full",
    "invalid-json": "invalid-request",
    "invalid-multipart": "invalid-request",
    "unauthenticated": "unauthenticated",
    "forbidden": "forbidden",
    "quota-exceeded": "quota-exceeded",
    "task-too-large": "quota-exceeded",
    "name-taken": "name-taken",
    "version-conflict": "version-conflict",
    "precondition-required": "precondition-required",
    "idempotency-in-progress": "idempotency-in-progress",
    "idempotency-mismatch": "idempotency-mismatch",
    "missing-encoder": "not-ready",
    "closed": "not-ready",
    # the user's data
    "invalid-data": "invalid-request",
    "contradictory-labels": "contradictory-labels",
    "missing-label": "invalid-request",
    "missing-value": "invalid-request",
    "non-finite": "non-finite",
    "not-found": "not-found",
    "one-class": "too-few-examples",
    "archive-unsafe": "archive-unsafe",
    "payload-too-large": "payload-too-large",
    "input-too-large": "payload-too-large",
    "ragged-input": "ragged-input",
    "too-few-examples": "too-few-examples",
    "unknown-label": "unknown-label",
    "unsupported-media": "unsupported-media",
    "wrong-shape": "wrong-shape",
    # files of handful
    "damaged-artifact": "task-quarantined",
    "missing-artifact": "not-ready",
    "other-model": "version-conflict",
    "other-version": "not-ready",
    "untrusted-model": "not-ready",
    # what went wrong on the way
    "adapt-diverged": "adapt-diverged",
    "client-left": "invalid-request",
    "deadline-exceeded": "deadline-exceeded",
    "failed": "outcome-unknown",
    "unreachable": "not-ready",
    "out-of-memory": "overloaded",
    "overloaded": "overloaded",
    "training-diverged": "adapt-diverged",
    "unavailable": "not-ready",
}
"""Every code of an error, and the slug of the service's problem that it is."""

MOST_COMPARED, LONGEST_COMPARED = 1_000, 100
"""So many names, of so many letters, are compared with one that is not among them."""

_PARAMETER = re.compile(r"\{(\w+)\}")


class HandfulError(Exception):
    """Root of all errors of this package.

    message: what is wrong, with names from the user's data; shown unchanged.
    code: of `CODES`; the class's own if not given.
    field: the part of the arguments that is wrong.
    hint: the way out, which names parameters as `{way}` and contains nothing from outside: each interface spells them
        in its own way, and a name in braces in the user's data is never replaced.
    unquoted: the message without the inputs that it quotes, which a service does not show; "" if it quotes none.
    """

    default_code: ClassVar[str] = "failed"

    def __init__(self, message: str, *, code: str = "", field: Field = (), hint: str = "", unquoted: str = "") -> None:
        super().__init__(message)
        self.message, self.unquoted = message, unquoted
        self.code = code or self.default_code
        self.field = field
        self.hint = hint

    def __str__(self) -> str:
        return self.spelled("{}=".format)

    def spelled(self, parameter: Callable[[str], str]) -> str:
        """Message and hint, with each parameter of the hint as `parameter(name)` writes it."""
        return f"{self.message} {spelled(self.hint, parameter)}".rstrip()

    def about(self, what: str, *field: str | int) -> Self:
        """The same error about one of several things: its name precedes the message, its place the field."""
        error = copy.copy(self)
        error.message, error.field = f"{what}: {self.message}", (*field, *self.field)
        error.unquoted = self.unquoted and f"{what}: {self.unquoted}"
        return error


class UserError(HandfulError, ValueError):
    """Something in the input, the options or the files is wrong; the message says what, and what to do."""

    default_code = "invalid-request"


class DataError(UserError):
    """The user's data cannot be used as it is: a file, a column, a class, a task."""

    default_code = "invalid-data"


class DivergedError(HandfulError):
    """A prediction, or what adapting keeps of a task, is not finite.

    key: the task, among several; None for a single one.
    """

    default_code = "adapt-diverged"

    def __init__(
        self, message: str, key: Hashable = None, *, code: str = "", field: Field = (), hint: str = ""
    ) -> None:
        super().__init__(message, code=code, field=field, hint=hint)
        self.key = key


class ArtifactError(HandfulError):
    """A saved run, meta-model or adapted task is missing, damaged, refused or of another format.

    Not a `UserError`, since it is not a mistake of the caller.
    """

    default_code = "damaged-artifact"


class OverloadedError(HandfulError):
    """The service has more work than it can do in time, and did not start this.

    retry_after: seconds after which to retry.
    """

    default_code = "overloaded"

    def __init__(
        self, message: str, *, retry_after: int = 1, code: str = "", field: Field = (), hint: str = ""
    ) -> None:
        super().__init__(message, code=code, field=field, hint=hint)
        self.retry_after = retry_after


@contextlib.contextmanager
def within(*field: str | int) -> Iterator[None]:
    """Errors raised within this context are about this part of the arguments, and the part of it that they name."""
    try:
        yield
    except HandfulError as error:
        error.field = (*field, *error.field)
        raise


def spelled(text: str, parameter: Callable[[str], str]) -> str:
    """A text of handful's own with each `{name}` in it as `parameter(name)` writes it."""
    return _PARAMETER.sub(lambda found: parameter(found[1]), text)


def named(*parameters: str) -> str:
    """Parameters as a hint names them: "{way}, {shot} or {query_shot}"."""
    *before, last = (f"{{{name}}}" for name in parameters)
    return f"{', '.join(before)} or {last}" if before else last


def count_of(number: float, noun: str, plural: str = "") -> str:
    """ "1 task" or "1,200 tasks". plural: of the noun; "": it takes an s."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun if number == 1 else plural or f'{noun}s'}"


def nearest_of(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The one of some names that is most like a name; None if none is like it.

    Comparing takes long where names are: long ones, and those beyond the first thousand, are not compared.

    >>> nearest_of("wieght", ["weight", "color"])
    'weight'
    """
    if len(name) > LONGEST_COMPARED:
        return None
    compared = [one for one in itertools.islice(names, MOST_COMPARED) if len(one) <= LONGEST_COMPARED]
    return next(iter(difflib.get_close_matches(name, compared, n=1, cutoff=cutoff)), None)


def unknown_name(noun: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not among `known`, with the nearest one first."""
    names = sorted(known)
    nearest = nearest_of(name, names)
    guess = "" if nearest is None else f" Did you mean {nearest!r}?"
    message = f"Unknown {noun} {name!r}.{guess} Known: {', '.join(names) or 'none'}."
    return UserError(message, code="unknown-name")
