"""A database that fails, or a process that dies, at one statement of many."""

import contextlib
import os
import re
import signal
import sqlite3
from dataclasses import dataclass
from functools import partial

import pytest
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

ERRORS = {
    "an error": ("disk I/O error", "SQLITE_IOERR_WRITE"),
    "a full disk": ("database or disk is full", "SQLITE_FULL"),
}


@dataclass
class Failpoint:
    """Where something fails, once.

    statement: which SQL it is, as a regular expression that its beginning matches.
    after: whether it fails once the statement was carried out, not before.
    how: "an error", in PostgreSQL "a lost connection", "a full disk", which ends the transaction as the database itself
        does, or "a kill".
    met: whether it was come by.
    """

    statement: str
    after: bool
    how: str
    met: bool = False

    def pass_by(self, statement, fail, *, after):
        """Fail here, if this is the place. fail: does it in the way of the database, but for a kill."""
        if self.met or after != self.after or not re.match(self.statement, statement.strip()):
            return
        self.met = True
        if self.how == "a kill":
            os.kill(os.getpid(), signal.SIGKILL)
        fail(self.how)


def _fail(connection, how):
    """As SQLite does."""
    message, name = ERRORS[how]
    if how == "a full disk" and connection.in_transaction:
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
            fail = partial(_fail, self.connection)
            point.pass_by(statement, fail, after=False)
            result = execute(statement, *arguments)
            point.pass_by(statement, fail, after=True)
            return result

    class Connection(sqlite3.Connection):
        def cursor(self, factory=Cursor):
            return super().cursor(factory)

        def execute(self, statement, *arguments):
            return self.cursor().execute(statement, *arguments)

        def commit(self):
            point.pass_by("COMMIT", partial(_fail, self), after=False)
            super().commit()
            point.pass_by("COMMIT", partial(_fail, self), after=True)

    connect = sqlite3.connect

    def connected(place, **how):
        return connect(place, factory=Connection if where in place else sqlite3.Connection, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", connected)
        yield


@contextlib.contextmanager
def failing_in_postgres(point):
    """Inside, all statements in PostgreSQL come by a failpoint."""

    def passing(call):
        def passed(dialect, cursor, statement, *arguments, **named):
            fail = partial(_fail_in_postgres, cursor.connection)
            point.pass_by(statement, fail, after=False)
            call(dialect, cursor, statement, *arguments, **named)
            point.pass_by(statement, fail, after=True)

        return passed

    commit = PGDialect_psycopg.do_commit

    def committed(dialect, connection):
        fail = partial(_fail_in_postgres, connection, committing=True)
        point.pass_by("COMMIT", fail, after=False)
        commit(dialect, connection)
        point.pass_by("COMMIT", fail, after=True)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("do_execute", "do_executemany"):
            patch.setattr(PGDialect_psycopg, name, passing(getattr(PGDialect_psycopg, name)))
        patch.setattr(PGDialect_psycopg, "do_commit", committed)
        yield


def _fail_in_postgres(connection, how, *, committing=False):
    """As the server does, which makes the error itself. committing: which ends the transaction, also where it fails."""
    if how == "a lost connection":
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid(), 5000)")
    try:
        connection.execute("DO $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$")
    finally:
        if committing:
            connection.rollback()
