"""The heads of tasks in memory, where one process has the store."""

import threading
from collections.abc import Callable, Iterable

from handful.serving.records import Version

MOST = 65_536
"""So many heads are held; the one that came first leaves for the next."""


class Heads:
    """Finds the version that predicts for a task, in the database only where it may have changed since.

    A change of a task calls `forget` after the commit and before any response, so that a replaced head is not found
    once the change has returned.

    read: the head of a tenant's task as it is in the database; raises if it does not exist.
    most: how many are held.
    """

    def __init__(self, read: Callable[[str, str], Version], most: int = MOST) -> None:
        self._read, self._most = read, most
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str], Version] = {}
        self._readers: dict[tuple[str, str], object] = {}  # of those who read a head at once, the last one holds it

    def held(self, tenant: str, task: str) -> Version | None:
        """The head of a tenant's task, without a look at the database; None where it is not held."""
        return self._held.get((tenant, task))

    def of(self, tenant: str, task: str) -> Version:
        """The head of a tenant's task; raises as `read` does."""
        key, reader = (tenant, task), object()
        if (held := self.held(tenant, task)) is not None:
            return held
        with self._lock:
            self._readers[key] = reader
        head = None
        try:
            head = self._read(tenant, task)
            return head
        finally:
            with self._lock:
                if self._readers.get(key) is reader:  # else it may have been replaced since it was read
                    del self._readers[key]
                    if head is not None:
                        self._hold(key, head)

    def forget(self, tenant: str, tasks: Iterable[str]) -> None:
        """Read the heads of these tasks anew when they are asked for."""
        with self._lock:
            for task in tasks:
                self._held.pop((tenant, task), None)
                self._readers.pop((tenant, task), None)

    def _hold(self, key: tuple[str, str], head: Version) -> None:
        if len(self._held) >= self._most:
            del self._held[next(iter(self._held))]
        self._held[key] = head
