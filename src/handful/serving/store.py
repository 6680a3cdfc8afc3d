"""What keeps the tasks of a service: the same for every database."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from handful.serving.ids import Ids
from handful.serving.records import Version
from handful.serving.rows import Rows

Result = TypeVar("Result")


@dataclass(frozen=True)
class Measured:
    """What a store has done since it was opened.

    commits: how many transactions were committed.
    commit_seconds: that this took.
    log_bytes: of the database's log now; None: the database is asked for it, and not the store.
    """

    commits: int
    commit_seconds: float
    log_bytes: int | None


class Store(ABC):
    """Tasks of many tenants in a database, which several threads read and write at once.

    Attributes:
        remains: what is left of erased rows once their log is emptied, and where; None: nothing is.
        ids: which makes the ids of new rows.
    """

    remains: ClassVar[str | None] = None
    ids: Ids

    @abstractmethod
    def reading(self, tenant: str) -> AbstractContextManager[Rows]:
        """The rows of a tenant as they are now, whatever is written meanwhile. Read them whole, and end.

        Raises `HandfulError` if the database fails.
        """

    @abstractmethod
    def write(self, tenant: str, work: Callable[[Rows], Result]) -> Result:
        """Run work on the rows of a tenant, whole or not at all, and return what it does once that is durable.

        No other write of the tenant runs meanwhile. Work may be run again where nothing of it was kept.

        Raises what the work raises, having kept nothing of it, and `HandfulError` if the database fails: "failed" where
        it may have kept it nevertheless.
        """

    def _carried_out(self, work: Callable[[Rows], Result], rows: Rows) -> Result:
        """What work returns, once what it makes of the counts is noted, too."""
        result = work(rows)
        rows.counts.note()
        return result

    def head(self, tenant: str, task: str) -> Version:
        """The version that predicts for a tenant's task now; `UserError` if it does not exist, or is deleted."""
        with self.reading(tenant) as rows:
            return rows.task(task).head

    def held_head(self, tenant: str, task: str) -> Version | None:
        """The same where it is known without a look at the database, else None; never one that a change replaced."""
        return None

    @abstractmethod
    def empty_log(self) -> None:
        """Bring all that was written into the database's own files, and cut the log: it holds what was erased."""

    @abstractmethod
    def backup(self, path: str | Path) -> Path:
        """Copy the store as it is now into one file, while it is in use; returns the file.

        Raises `UserError` if the path exists, or if the database has its own programs for backups.
        """

    @property
    def busy_for(self) -> float:
        """Seconds for which the one thread that writes has been at its present work; 0.0 without such a thread."""
        return 0.0

    @property
    @abstractmethod
    def measured(self) -> Measured:
        """What it has done since it was opened, by this process."""

    @abstractmethod
    def close(self) -> None:
        """Finish what is being written, and end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
