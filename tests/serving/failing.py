"""SQLite that fails, or a process that dies, at one statement of many."""

import contextlib
import os
import re
import signal
import sqlite3
from dataclasses import dataclass

import pytest

ERRORS = {
    "an error": ("disk I/O error", "SQLITE_IOERR_WRITE"),
    "a full disk": ("database or disk is full", "SQLITE_FULL"),
}


@dataclass
class Failpoint:
    """Where something fails, once.

    statement: which SQL it is, as a regular expression that its beginning matches.
    after: whether it fails once the statement was carried out, not before.
    how: "an error", "a full disk", which ends the transaction as SQLite itself does, or "a kill".
    met: whether it was come by.
    """

    statement: str
    after: bool
    how: str
    met: bool = False

    def pass_by(self, connection, statement, *, after):
        """Fail here, if this is the place."""
        if self.met or after != self.after or not re.match(self.statement, statement.strip()):
            return
        self.met = True
        if self.how == "a kill":
            os.kill(os.getpid(), signal.SIGKILL)
        message, name = ERRORS[self.how]
        if self.how == "a full disk" and connection.in_transaction:
            connection.rollback()
        error = sqlite3.OperationalError(message)
        error.sqlite_errorname = name
        raise error


@contextlib.contextmanager
def failing(point, where="mode=rw"):
    """Connections that are opened in here come by a failpoint with all their statements.

    where: a part of the address of those that do.
    """

    class Cursor(sqlite3.Cursor):
        def execute(self, statement, *arguments):
            return self._done(super().execute, statement, *arguments)

        def executemany(self, statement, *arguments):
            return self._done(super().executemany, statement, *arguments)

        def _done(self, execute, statement, *arguments):
            point.pass_by(self.connection, statement, after=False)
            result = execute(statement, *arguments)
            point.pass_by(self.connection, statement, after=True)
            return result

    class Connection(sqlite3.Connection):
        def cursor(self, factory=Cursor):
            return super().cursor(factory)

        def execute(self, statement, *arguments):
            return self.cursor().execute(statement, *arguments)

        def commit(self):
            point.pass_by(self, "COMMIT", after=False)
            super().commit()
            point.pass_by(self, "COMMIT", after=True)

    connect = sqlite3.connect

    def connected(place, **how):
        return connect(place, factory=Connection if where in place else sqlite3.Connection, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", connected)
        yield
