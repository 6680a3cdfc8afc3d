"""Notes: information for the user about data or a run that is not an error."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from handful.errors import Field, spelled


@dataclass(frozen=True)
class Note:
    """A note.

    code: what kind of note, such as "left-out".
    message: for the user, as it is.
    field: the part of the arguments that it is about.
    count: of the affected things, such as cells.
    hint: an alternative, which names parameters as `{way}`, like the hints of errors.
    """

    code: str
    message: str
    field: Field = ()
    count: int = 1
    hint: str = ""

    def spelled(self, parameter: Callable[[str], str]) -> str:
        """Message and hint, with each parameter of the hint as `parameter(name)` writes it."""
        return f"{self.message} {spelled(self.hint, parameter)}".rstrip()


class Notes:
    """The notes of one piece of work in their order, equal ones merged into one with the sum of their counts.

    hear: called with each new note when it is made.
    """

    def __init__(self, hear: Callable[[Note], None] | None = None) -> None:
        self._counts: dict[tuple[str, str, Field, str], int] = {}
        self._hear = hear

    def add(self, note: Note) -> None:
        """Add a note."""
        what = note.code, note.message, note.field, note.hint
        if what not in self._counts and self._hear:
            self._hear(note)
        self._counts[what] = self._counts.get(what, 0) + note.count

    def __iter__(self) -> Iterator[Note]:
        return (Note(code, message, field, count, hint) for (code, message, field, hint), count in self._counts.items())

    def __len__(self) -> int:
        return len(self._counts)


_collecting: ContextVar[Notes | None] = ContextVar("notes", default=None)
_log = logging.getLogger("handful")


@contextlib.contextmanager
def collecting(hear: Callable[[Note], None] | None = None) -> Iterator[Notes]:
    """Collect the notes made within this context, in this thread or asynchronous task only.

    >>> with collecting() as notes:
    ...     note("left-out", "A class is left out.")
    ...     note("left-out", "A class is left out.")
    >>> list(notes)
    [Note(code='left-out', message='A class is left out.', field=(), count=2, hint='')]
    """
    notes = Notes(hear)
    token = _collecting.set(notes)
    try:
        yield notes
    finally:
        _collecting.reset(token)


def note(code: str, message: str, field: Field = (), count: int = 1, *, hint: str = "") -> None:
    """Make a note, for the nearest `collecting` around; without one it goes to the log "handful", as a warning."""
    notes = _collecting.get()
    if notes is None:
        _log.warning("%s", Note(code, message, hint=hint).spelled("{}=".format))
    else:
        notes.add(Note(code, message, field, count, hint))
