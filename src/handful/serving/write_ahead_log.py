"""The log of a database in SQLite: it grows while somebody reads what is in it, and is cut before it is too large."""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from handful.errors import HandfulError
from handful.serving.log_lines import log_line
from handful.serving.sqlite import PRAGMAS

MOST: int = PRAGMAS["journal_size_limit"]
"""Bytes from which on it is cut."""
FULL = 2**30
"""Bytes from which on nothing more is written: a reader that does not let go of it would fill the disk."""
READING = 10.0
"""Seconds for which a reader may hold a log that is too large."""
PAUSE = 10.0
"""Seconds between two attempts to cut it."""
PATIENCE = 200
"""Milliseconds for which one attempt waits for readers, and writes wait for it."""

log = logging.getLogger("handful.serving")


class WriteAheadLog:
    """What was written to a database, and is not yet in its own file for all that read it.

    SQLite begins it anew when nobody reads what is in it. Readers that follow one another closely would keep it
    growing, as would one that never ends.

    file: of the database.
    """

    def __init__(self, file: Path) -> None:
        self._path = file.with_name(f"{file.name}-wal")
        self._lock = threading.Lock()
        self._readers: set[_Reader] = set()
        self._next = 0.0

    @property
    def size(self) -> int:
        """In bytes."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def is_full(self) -> bool:
        """Whether it is so large that nothing more may be written."""
        return self.size > FULL

    @contextlib.contextmanager
    def read_by(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Inside, a connection that has begun a transaction reads, and is ended where it holds the log for too long.

        Raises `HandfulError` if it was: what it read may be of different moments.
        """
        reader = _Reader(connection, time.monotonic())
        with self._lock:
            self._readers.add(reader)
        try:
            yield
        finally:
            with self._lock:  # whoever ends it does so before or never
                ended = reader not in self._readers
                self._readers.discard(reader)
        if ended:
            raise HandfulError(
                f"A read of the store took more than {READING:g} s, and its log became too large. Try again later.",
                code="unavailable",
            )

    def bound(self, writer: sqlite3.Connection) -> None:
        """Cut it where it is too large; where others hold it, say so in the log of the program.

        writer: the connection that writes, between two transactions.
        """
        if self.size <= MOST or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PAUSE
        ended = self._end_readers()
        patience = writer.execute("PRAGMA busy_timeout").fetchone()[0]
        writer.execute(f"PRAGMA busy_timeout = {PATIENCE}")
        try:
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            writer.execute(f"PRAGMA busy_timeout = {patience}")
        if ended or self.size > MOST:
            log.warning(log_line("log-held", bytes=self.size, ended=ended))

    def check_room(self) -> None:
        """Raise `HandfulError` if it is full."""
        if self.is_full:
            raise HandfulError(
                f"The store cannot be written: a long read has made its log, {self._path.name}, larger than {FULL:,} "
                f"bytes. End that reader, and try again.",
                code="unwritable",
            )

    def _end_readers(self) -> int:
        """End those of this process that have read for too long; returns how many. In a result, the next row fails."""
        with self._lock:
            late = {one for one in self._readers if time.monotonic() - one.since > READING}
            self._readers -= late
            for one in late:
                with contextlib.suppress(sqlite3.Error):  # it has ended by itself
                    one.connection.execute("ROLLBACK")
                one.connection.interrupt()
        return len(late)


@dataclass(frozen=True, eq=False)
class _Reader:
    """A connection, and when it began to read, in seconds."""

    connection: sqlite3.Connection
    since: float
