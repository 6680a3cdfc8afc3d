"""Servers of PostgreSQL for tests: a cluster of its own in a temporary folder, and databases in it."""

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, insert, select, text

from handful.serving.opening import upgrade
from handful.serving.tables import METADATA

DEBIAN = "/usr/lib/postgresql/15/bin"
MEMORY = "/dev/shm"
OWNER, SERVICE = "handful_owner", "handful_service"


def programs():
    """The folder of PostgreSQL's programs, or why there is none."""
    asked = os.environ.get("HANDFUL_PG_BIN")
    configured = shutil.which("pg_config")
    places = [asked] if asked else [configured and _output(configured, "--bindir"), DEBIAN]
    for place in filter(None, places):
        if (Path(place) / "initdb").exists():
            return Path(place)
    pytest.skip(f"PostgreSQL is not here: no initdb in {', '.join(filter(None, places))}")


def _output(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _user():
    """Whom the server runs as: it refuses root."""
    if os.getuid():
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres' or 'nobody'")


class Cluster:
    """A running server with the roles of a store: its superuser, an owner of tables, and one for the service.

    Commits are not synced: they outlive the server, and no test cuts the power.
    """

    def __init__(self):
        self._bin, self._as = programs(), _user()
        memory = os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > 2**30
        self._folder = Path(tempfile.mkdtemp(prefix="handful-pg-", dir=MEMORY if memory else None))
        self._numbers = itertools.count()
        if self._as:
            os.chown(self._folder, self._as.pw_uid, self._as.pw_gid)
        os.chmod(self._folder, 0o755)
        self._run("initdb", "-D", self._data, "-U", "root", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        settings = f"-k {self._folder} -c listen_addresses= -c fsync=off -c max_connections=100"
        self._options = f"{settings} -c shared_buffers=16MB -c deadlock_timeout=100ms"
        self.start()
        with self.superuser() as connection:
            connection.execute(f"CREATE ROLE {OWNER} LOGIN")
            connection.execute(f"CREATE ROLE {SERVICE} LOGIN")
        self._template = self._first_rows = None

    @property
    def _data(self):
        return self._folder / "data"

    def _run(self, program, *arguments):
        how = {"user": self._as.pw_uid, "group": self._as.pw_gid, "extra_groups": []} if self._as else {}
        done = subprocess.run(
            [self._bin / program, *map(str, arguments)],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **how,
        )
        assert done.returncode == 0, done.stdout

    def start(self):
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self._folder / "log", "-o", self._options)

    def stop(self, mode="immediate"):
        self._run("pg_ctl", "stop", "-w", "-D", self._data, "-m", mode)

    def close(self):
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def address(self, database, role=SERVICE):
        return f"postgresql://{role}@/{database}?host={self._folder}"

    def superuser(self, database="postgres"):
        return psycopg.connect(self.address(database, "root"), autocommit=True)

    def database(self, template="template1"):
        """The name of a new database, whose owner is that of the tables to be."""
        name = f"store_{next(self._numbers)}"
        with self.superuser() as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {template}")
        return name

    def own_store(self):
        """The address of a store in a database of its own, whose schema and settings a test may change."""
        if self._template is None:
            self._template = self.database()
            upgrade(self.address(self._template, OWNER), role=SERVICE)
        return self.address(self.database(self._template))

    def store(self):
        """The address of an empty store, which takes a tenth of the time of one in a database of its own."""
        if self._first_rows is None:
            self._shared = create_engine(
                self.address(name_of(self.own_store()), "root").replace(":", "+psycopg:", 1), poolclass=NullPool
            )
            with self._shared.begin() as connection:
                self._first_rows = {t: connection.execute(select(t)).mappings().all() for t in METADATA.sorted_tables}
        with self._shared.begin() as connection:
            connection.execute(text(f"TRUNCATE {', '.join(METADATA.tables)}"))
            for table, rows in self._first_rows.items():
                if rows:
                    connection.execute(insert(table), [dict(row) for row in rows])
        return self.address(self._shared.url.database)


def name_of(address):
    """The database of an address."""
    return address.partition("@/")[2].partition("?")[0]
