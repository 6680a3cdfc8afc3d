"""Names of things that sort by when they were made."""

import threading
from collections.abc import Iterable

import uuid_utils


class Ids:
    """Makes ids such as `task_0190...` that never go back, also where the clock does.

    made: ids made before, among them the largest.
    """

    def __init__(self, made: Iterable[str] = ()) -> None:
        self._last = max((int(id_.rpartition("_")[2], 16) for id_ in made), default=0)
        self._lock = threading.Lock()

    def new(self, kind: str) -> str:
        """A new id of this kind."""
        with self._lock:
            self._last = max(uuid_utils.uuid7().int, self._last + 1)
            return f"{kind}_{self._last:032x}"
