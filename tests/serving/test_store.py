"""A store: its settings, who may open it, how its schema changes, and copies of it."""

import importlib
import itertools
import os
import shutil
import signal
import sqlite3
import stat
from dataclasses import replace

import pytest
from sqlalchemy import Engine, event, inspect

from handful import serving
from handful.errors import ArtifactError, UserError
from handful.serving import schema, sqlite
from handful.serving.records import Example
from handful.serving.rows import entry_hash
from handful.serving.sqlite import FILE, PRAGMAS, check_local, engine_of
from handful.serving.sqlite_store import SqliteStore, upgrade
from handful.serving.tables import METADATA
from serving.schemas import HEAD, NEXT, migrations

FACTS = {
    "parent": None,
    "change": "created",
    "actor": "ann",
    "created_at": 5,
    "model": "toys",
    "model_digest": "m1",
    "labels": '["a", "b"]',
    "targets": None,
}


@pytest.fixture
def store(tmp_path):
    with SqliteStore(tmp_path / "store") as store:
        yield store


def make(store, tenant="t", id_="task_1", name="shelf", examples=("ex_1", "ex_2")):
    def work(rows):
        if not rows.has_model("m1"):
            rows.insert_model("m1", b"weights")
        rows.insert_task(id_, name, keep_examples=True, at=5)
        rows.insert_examples(id_, [Example(one, "text", b"x", b"y", "a") for one in examples], 5)
        rows.insert_version(id_, 1, examples, examples=len(examples), digest="d", state=b"s", **FACTS)
        rows.set_head(id_, 1)
        rows.log(5, "ann", "created", id_, 1)

    store.write(tenant, work)


def counts(path):
    with sqlite3.connect(path) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in names}


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "alembic" else name)
    with pytest.raises(UserError, match=r"A service needs alembic, .*pip install '\.\[serve\]'"):
        importlib.reload(serving)


def test_migrations_make_the_tables_that_queries_use(store):
    with store._reading.connect() as connection:
        found = inspect(connection)
        for name, table in METADATA.tables.items():
            columns = {column["name"]: column["nullable"] for column in found.get_columns(name)}
            assert columns == {column.name: column.nullable for column in table.columns}
            assert found.get_pk_constraint(name)["constrained_columns"] == [c.name for c in table.primary_key]
            keys = {(tuple(key["constrained_columns"]), key["referred_table"]) for key in found.get_foreign_keys(name)}
            assert keys == {(tuple(k.column_keys), k.referred_table.name) for k in table.foreign_key_constraints}
            assert {index["name"] for index in found.get_indexes(name)} == {index.name for index in table.indexes}
        assert {*found.get_table_names()} == {*METADATA.tables, "alembic_version"}


def test_the_tenant_stands_first_in_every_key_but_that_of_models():
    firsts = {name: next(iter(table.primary_key)).name for name, table in METADATA.tables.items()}
    assert firsts.pop("models") == "digest"
    assert set(firsts.values()) == {"tenant"}


def test_a_row_of_one_tenant_is_none_of_another(store):
    make(store)
    make(store, tenant="u", name="shelf")
    with store.reading("u") as rows:
        assert rows.task("task_1").name == "shelf"
        assert [entry.number for entry in rows.audit(9)] == [1]
    with store.reading("v") as rows:
        assert (rows.tasks(9), rows.examples("task_1", 1), rows.audit(9), rows.state("task_1", 1)) == ([], [], [], None)
        with pytest.raises(UserError, match="task 'task_1' does not exist"):
            rows.task("task_1")
    store.write("v", lambda rows: rows.erase_task("task_1"))
    with store.reading("t") as rows:
        assert len(rows.examples("task_1", 1)) == 2


def test_settings_are_read_back_and_a_difference_stops_the_start(tmp_path, store, monkeypatch):
    for writes in (True, False):
        with engine_of(tmp_path / "store" / FILE, writes=writes).connect() as connection:
            driver = connection.connection.dbapi_connection
            assert {name: driver.execute(f"PRAGMA {name}").fetchone()[0] for name in PRAGMAS} == PRAGMAS
    monkeypatch.setitem(sqlite.PRAGMAS, "synchronous", 7)
    with pytest.raises(UserError, match="SQLite does not keep synchronous = 7"):
        SqliteStore(tmp_path / "other")


def test_readers_cannot_write_and_see_one_state(store):
    make(store)
    with store.reading("t") as rows:
        assert len(rows.tasks(9)) == 1
        make(store, id_="task_2", name="other")
        assert len(rows.tasks(9)) == 1
        with pytest.raises(Exception, match="readonly database"):
            rows.set_deleted("task_1", 3)


def test_a_second_process_is_refused_and_the_folder_is_free_at_the_end(tmp_path):
    with SqliteStore(tmp_path / "store"), pytest.raises(UserError, match="Another service is running"):
        SqliteStore(tmp_path / "store")
    with SqliteStore(tmp_path / "store") as store:
        make(store)
    assert stat.S_IMODE(os.stat(tmp_path / "store" / FILE).st_mode) == 0o600


@pytest.mark.parametrize("content", [b"no database" * 500, b"SQLite format 3\x00" + b"\xff" * 8000])
def test_another_file_in_its_place_is_refused_and_stays(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match="not the database of a store, or damaged"):
        SqliteStore(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content


def test_a_network_file_system_is_refused(tmp_path):
    mounts = f"disk / ext4 rw 0 0\nserver:/x {str(tmp_path).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n"
    with pytest.raises(UserError, match="network file system \\(nfs4\\)"):
        check_local(tmp_path / "store", mounts)
    check_local(tmp_path / "store", mounts.replace("nfs4", "ext4"))


def test_the_head_moves_from_where_it_is_expected_only(store):
    make(store)

    def second(rows):
        rows.insert_version("task_1", 2, ["ex_1"], examples=1, digest="d", state=b"s", **FACTS)
        rows.set_head("task_1", 2, expected=1)

    store.write("t", second)
    with pytest.raises(UserError, match="no longer at version 1") as conflict:
        store.write("t", lambda rows: rows.set_head("task_1", 1, expected=1))
    assert conflict.value.code == "version-conflict"
    with pytest.raises(Exception, match="FOREIGN KEY"):
        store.write("t", lambda rows: rows.set_head("task_1", 3, expected=2))
    with store.reading("t") as rows:
        assert (rows.task("task_1").head.number, rows.last_number("task_1")) == (2, 2)


def test_names_are_taken_until_their_task_is_deleted(store):
    make(store)
    with pytest.raises(UserError, match="A task 'shelf' already exists"):
        make(store, id_="task_2")
    store.write("t", lambda rows: rows.set_deleted("task_1", 9))
    make(store, id_="task_2")


def test_the_audit_is_a_chain(store):
    make(store)
    make(store, id_="task_2", name="other")
    with store.reading("t") as rows:
        first, second = rows.audit(9)
    assert first.hash == entry_hash("", "t", 1, 5, "ann", "created", "task_1", 1)
    assert second.hash == entry_hash(first.hash, "t", 2, 5, "ann", "created", "task_2", 1)
    assert second.hash != replace(second, hash=entry_hash("", "t", 2, 5, "ann", "created", "task_2", 1)).hash


def test_ids_never_go_back(store, tmp_path, monkeypatch):
    ids = [store.ids.new("task") for _ in range(100)]
    assert ids == sorted(set(ids))
    make(store, id_=ids[-1])
    store.close()
    monkeypatch.setattr("uuid_utils.uuid7", lambda: __import__("uuid").UUID(int=1))  # a clock that is off
    with SqliteStore(tmp_path / "store") as again:
        assert again.ids.new("task") > ids[-1]


# Schemas


@pytest.fixture
def closed(tmp_path):
    with SqliteStore(tmp_path / "store") as store:
        make(store)
    return tmp_path / "store"


def test_a_rebuilt_table_keeps_the_rows_of_others_and_a_copy_is_made(closed, tmp_path):
    before = counts(closed / FILE)
    copy = upgrade(closed, migrations(tmp_path))
    assert counts(closed / FILE) == counts(copy) == before
    with sqlite3.connect(closed / FILE) as connection:
        assert "note" in connection.execute("SELECT sql FROM sqlite_master WHERE name = 'tasks'").fetchone()[0]
    assert upgrade(closed, tmp_path / "migrations") is None


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("op.execute('DELETE FROM supports')", "would change supports from 2 rows to 0"),
        ('op.execute("UPDATE heads SET version = 9")', "with broken references"),
        ("raise RuntimeError('killed')", "killed"),
    ],
)
def test_a_failing_migration_leaves_everything_as_it_was(closed, tmp_path, more, reason):
    def content():
        with sqlite3.connect(closed / FILE) as connection:
            return list(connection.iterdump())

    before = content()
    with pytest.raises(Exception, match=reason):
        upgrade(closed, migrations(tmp_path, more))
    assert content() == before
    SqliteStore(closed).close()


def test_older_and_newer_schemas_are_refused(closed, tmp_path, monkeypatch):
    folder = migrations(tmp_path)
    with (
        engine_of(closed / FILE, writes=False).connect() as connection,
        pytest.raises(ArtifactError, match=r"earlier version.*Upgrade it"),
    ):
        schema.check_schema(connection, closed, folder)
    upgrade(closed, folder)
    with pytest.raises(ArtifactError, match=f"schema {NEXT}, but this version of handful reads {HEAD}"):
        SqliteStore(closed)
    with pytest.raises(ArtifactError, match="does not contain a store"):
        upgrade(tmp_path)


def test_the_log_is_emptied_but_for_a_reader(store, monkeypatch):
    make(store)
    log = store.path / f"{FILE}-wal"
    assert log.stat().st_size
    monkeypatch.setattr("handful.serving.sqlite_store.PATIENCE", 0.0)
    store.writer.outside(lambda connection: connection.execute("PRAGMA busy_timeout = 1"))
    with store.reading("t") as rows:
        rows.tasks(9)
        make(store, id_="task_2", name="other")
        with pytest.raises(Exception, match="cannot be truncated while a reader"):
            store.empty_log()
    store.empty_log()
    assert not log.stat().st_size


# Kills


def killed_at(statement, work):
    """Do work in a process that is killed before its n-th statement; returns whether it came so far."""
    child = os.fork()
    if not child:
        try:
            count = itertools.count(1)

            def before(*_):
                if next(count) == statement:
                    os.kill(os.getpid(), signal.SIGKILL)

            event.listen(Engine, "before_cursor_execute", before)
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def killed_everywhere(work, after, every):
    for statement in itertools.count(1, every):
        was_killed = killed_at(statement, work)
        after()
        if not was_killed:
            return statement


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_a_store_that_was_killed_while_it_was_made_opens(tmp_path, every):
    def after():
        with SqliteStore(tmp_path / "store") as store:
            make(store)
        shutil.rmtree(tmp_path / "store")

    assert killed_everywhere(lambda: SqliteStore(tmp_path / "store"), after, every) > 12


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_a_store_that_was_killed_while_it_was_upgraded_is_whole(closed, tmp_path, every):
    folder, before = migrations(tmp_path), counts(closed / FILE)

    def after():
        with sqlite3.connect(tmp_path / "killed" / FILE) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert counts(tmp_path / "killed" / FILE) == before
        upgrade(tmp_path / "killed", folder)
        assert counts(tmp_path / "killed" / FILE) == before
        shutil.rmtree(tmp_path / "killed")
        shutil.copytree(closed, tmp_path / "killed")

    shutil.copytree(closed, tmp_path / "killed")
    assert killed_everywhere(lambda: upgrade(tmp_path / "killed", folder), after, every) > 12
