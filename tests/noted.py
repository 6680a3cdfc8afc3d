"""For tests of what is noted."""

import contextlib
import re

from handful.notes import collecting


@contextlib.contextmanager
def noted(*matches):
    """Some note that is made in here matches, for each of the patterns; the notes are given."""
    with collecting() as notes:
        yield notes
    for match in matches:
        assert any(re.search(match, note.message) for note in notes), list(notes)


@contextlib.contextmanager
def nothing_noted():
    """No note is made in here."""
    with collecting() as notes:
        yield
    assert not list(notes)
