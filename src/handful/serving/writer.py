"""The one thread and connection that writes to a store, several requests to a transaction."""

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from handful.errors import ArtifactError, HandfulError
from handful.serving.sqlite import error_of_sqlite, is_damage

Result = TypeVar("Result")

REQUESTS, SECONDS = 64, 0.002
"""The most requests of one transaction, and how long it takes in further ones."""


class Writer:
    """Runs requests in the order in which they come, each whole or not at all, and answers once they are on disk.

    Those that wait when a transaction begins share it; none waits for others to come. Each has a savepoint of its own,
    so that it fails alone.

    engine: of which one connection is held.
    between: called with the driver's connection after each transaction that was committed, and its responses.

    Attributes:
        commits: how many transactions were committed.
        commit_seconds: that this took.
    """

    def __init__(self, engine: Engine, between: Callable[[sqlite3.Connection], object] = lambda _: None) -> None:
        self.commits, self.commit_seconds = 0, 0.0
        self._since: float | None = None
        self._engine, self._between = engine, between
        self._waiting: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._held: list[_Request | None] = []
        self._closing = threading.Lock()
        self._closed = False
        self._connection: Connection | None = None
        self._committing = False
        self._thread = threading.Thread(target=self._serve, name="handful-writer", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[Connection], Result], then: Callable[[], object] = lambda: None) -> Result:
        """What the work returns, once its writes are durable; or raise what it raises, having kept nothing of them.

        then: called after the commit, whatever became of it, and before anyone is answered; raises nothing.

        A database that cannot be written is a `HandfulError`, "failed" where it may have been written nevertheless.
        """
        return self._hand_in(_Request(work, then))  # type: ignore[no-any-return]

    def outside(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """What the work returns, on the driver's connection between two transactions; else as `run`."""
        return self._hand_in(_Request(work, outside=True))  # type: ignore[no-any-return]

    @property
    def busy_for(self) -> float:
        """Seconds for which it has been at the present transaction; 0.0 without one."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> None:
        """Finish what was handed in, and end."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._thread.join()

    def _hand_in(self, request: "_Request") -> Any:
        with self._closing:
            if self._closed:
                raise HandfulError("The store is closed.", code="closed")
            self._waiting.put(request)
        return request.answer.result()

    def _serve(self) -> None:
        while (first := self._held.pop() if self._held else self._waiting.get()) is not None:
            group: list[_Request] = []
            self._since = time.monotonic()
            try:
                self._committing = False
                if first.outside:
                    group.append(first)
                    first.result = first.work(self._driver())
                else:
                    self._commit(first, group)
                    self.commits += 1
            except BaseException as error:
                for request in group or [first]:
                    request.error = error
                    request.tell(unknown=self._committing)
                self._drop_connection()
            else:
                for request in group:
                    request.tell()
                self._rest()
            self._since = None
        self._drop_connection()

    def _commit(self, first: "_Request", group: list["_Request"]) -> None:
        """Run a request, and those that wait already, in one transaction."""
        connection, until = self._connected(), time.monotonic() + SECONDS
        with connection.begin():
            request: _Request | None = first
            while request is not None:
                group.append(request)
                _attempt(request, connection)
                request = self._next() if len(group) < REQUESTS and time.monotonic() < until else None
            self._committing, started = True, time.monotonic()
        self.commit_seconds += time.monotonic() - started

    def _next(self) -> "_Request | None":
        try:
            request = self._waiting.get_nowait()
        except queue.Empty:
            return None
        if request is None or request.outside:
            self._held.append(request)
            return None
        return request

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _driver(self) -> sqlite3.Connection:
        driver = self._connected().connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection), "no other one is made"
        return driver

    def _rest(self) -> None:
        """Do what is to be done between two transactions; nobody waits for it, so that it only costs the connection."""
        try:
            self._between(self._driver())
        except sqlite3.Error:
            self._drop_connection()

    def _drop_connection(self) -> None:
        """The next request gets another connection: what this one would do is not known."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DBAPIError):
                connection.close()


def _attempt(request: "_Request", connection: Connection) -> None:
    """Run one request in a savepoint; raise its error only where it ended the whole transaction."""
    connection.exec_driver_sql("SAVEPOINT request")
    try:
        request.result = request.work(connection)
    except Exception as error:
        if not _in_transaction(connection):  # a full disk ends it: the members before are gone too
            raise
        connection.exec_driver_sql("ROLLBACK TO request")
        request.error = error
    connection.exec_driver_sql("RELEASE request")


def _in_transaction(connection: Connection) -> bool:
    driver = connection.connection.dbapi_connection
    return isinstance(driver, sqlite3.Connection) and driver.in_transaction


class _Request:
    """Work, and what became of it.

    then: see `Writer.run`.
    outside: whether it runs outside of transactions.
    """

    def __init__(
        self, work: Callable[[Any], Any], then: Callable[[], object] = lambda: None, *, outside: bool = False
    ) -> None:
        self.work, self.then, self.outside = work, then, outside
        self.answer: Future[Any] = Future()
        self.result: Any = None
        self.error: BaseException | None = None

    def tell(self, *, unknown: bool = False) -> None:
        """Answer.

        unknown: whether an error may have left what was written.
        """
        self.then()
        if self.error is None:
            self.answer.set_result(self.result)
        else:
            self.answer.set_exception(_failure(self.error, unknown=unknown))


NOTHING_WRITTEN = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_BUSY")
"""Errors of SQLite that undo a commit."""


def _failure(error: BaseException, *, unknown: bool = False) -> BaseException:
    """The error for a request: for one of the database, whether the request may have been written nevertheless."""
    reason = error_of_sqlite(error)
    if reason is None:
        return error
    told: HandfulError
    if is_damage(reason):
        told = ArtifactError(f"The store is damaged ({reason}). Restore a backup.")
    elif unknown and not reason.sqlite_errorname.startswith(NOTHING_WRITTEN):
        told = HandfulError(
            f"The store failed ({reason}), and this request may have been carried out. Check before you repeat it."
        )
    else:
        told = HandfulError(
            f"The store cannot be written ({reason}), and nothing of this request was stored. Make room on its disk, "
            "or make it writable, and try again.",
            code="unwritable",
        )
    told.__cause__ = error
    return told
