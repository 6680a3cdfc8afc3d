"""Servers of PostgreSQL for tests: a cluster of its own in a temporary folder, and databases in it."""

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, insert, select, text

from handful.serving.opening import upgrade
from handful.serving.tables import METADATA

DEBIAN = "/usr/lib/postgresql/15/bin"
MEMORY = "/dev/shm"
WATCH = """
folder=$1; shift
exec 3<&0
"$@" <&- 3<&- &
read line <&3 || gone=yes
kill -QUIT $!; wait $!
[ -z "$gone" ] || rm -rf "$folder"
"""
"""Runs a server until a line comes, or the process ends that would write it: then without its folder too."""

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
    """How a process is started as a user that may run a server, which root may not, and who that is."""
    if os.getuid():
        return {}, (os.getuid(), os.getgid())
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}, (found.pw_uid, found.pw_gid)
    pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres' or 'nobody'")


class Cluster:
    """A running server with the roles of a store: its superuser, an owner of tables, and one for the service.

    Commits are not synced: they outlive the server, and no test cuts the power.
    """

    def __init__(self):
        self._bin, self._as, owner = programs(), *_user()
        memory = os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > 2**30
        self._folder = Path(tempfile.mkdtemp(prefix="handful-pg-", dir=MEMORY if memory else None))
        self._data, self._numbers = self._folder / "data", itertools.count()
        os.chown(self._folder, *owner)
        options = ["-U", "root", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        command = [self._bin / "initdb", "-D", self._data, *options]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, **self._as)
        assert done.returncode == 0, done.stdout + done.stderr
        self.start()
        with self.superuser() as connection:
            connection.execute(f"CREATE ROLE {OWNER} LOGIN")
            connection.execute(f"CREATE ROLE {SERVICE} LOGIN")
        self._template = self._first_rows = None

    def start(self):
        """Start the server, and wait until it takes connections. It ends with this process, however that ends."""
        settings = {
            "unix_socket_directories": self._folder,
            "listen_addresses": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            "deadlock_timeout": "100ms",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        command = ["sh", "-c", WATCH, "sh", self._folder, self._bin / "postgres", "-D", self._data, *options]
        with (self._folder / "log").open("a") as log:
            self._watch = subprocess.Popen(
                command,
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as,
            )
        until = time.monotonic() + 30
        while True:
            try:
                return self.superuser().close()
            except psycopg.OperationalError:
                assert self._watch.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < until
                time.sleep(0.02)

    def stop(self):
        """End the server at once, as a crash does."""
        self._watch.communicate(b"stop\n")

    def close(self):
        self.stop()
        shutil.rmtree(self._folder)

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


def settled(cluster, address):
    """Wait until the server has seen that nobody is connected any more."""
    sessions, until = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = %s", time.monotonic() + 30
    with cluster.superuser() as connection:
        while connection.execute(sessions, [name_of(address)]).fetchone() != (0,):
            assert time.monotonic() < until
            time.sleep(0.01)
