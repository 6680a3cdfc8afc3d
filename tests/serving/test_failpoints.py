"""What fails at one step leaves all as it was or as it should be, and the next request is carried out."""

import contextlib
import errno
import os
import shutil
import sqlite3
from functools import partial

import pytest

from handful import Service
from handful.errors import ArtifactError, HandfulError, UserError
from handful.serving import rows
from handful.serving.backups import backup, restore
from handful.serving.sqlite import FILE
from handful.serving.sqlite_store import SqliteStore, upgrade
from serving.failing import Failpoint, failing
from serving.operations import OPERATIONS, finish, in_a_process, make, shelf, shown
from serving.oracle import check
from serving.schemas import migrations
from serving.worlds import classifier, points

POINTS = [
    # operation, step, statement, whether it fails after it
    ("create", "the transaction begins", "BEGIN IMMEDIATE", False),
    ("create", "the request's savepoint", "SAVEPOINT", True),
    ("create", "the counts of the tenant", "INSERT INTO tenants|UPDATE tenants", True),
    ("create", "the row of the task", "INSERT INTO tasks", True),
    ("create", "its examples", "INSERT INTO examples", True),
    ("create", "the version with the blob of its state", "INSERT INTO versions", False),
    ("create", "after the blob", "INSERT INTO versions", True),
    ("create", "the support", "INSERT INTO supports", True),
    ("create", "the head", "INSERT INTO heads", True),
    ("create", "the audit", "INSERT INTO audit", True),
    ("create", "the answer that is kept", "INSERT INTO requests", True),
    ("create", "the release of the savepoint", "RELEASE", False),
    ("create", "the commit", "COMMIT", False),
    ("create", "after the commit", "COMMIT", True),
    ("import", "the version", "INSERT INTO versions", True),
    ("add", "the examples", "INSERT INTO examples", True),
    ("add", "after the commit", "COMMIT", True),
    ("correct", "the head moves", "UPDATE heads", False),
    ("correct", "the states of old versions are dropped", "UPDATE versions", True),
    ("correct", "the commit", "COMMIT", False),
    ("remove", "the head has moved", "UPDATE heads", True),
    ("roll back", "the state is there again", "UPDATE versions", True),
    ("roll back", "the head moves", "UPDATE heads", True),
    ("delete", "the task is marked", "UPDATE tasks", True),
    ("erase", "the support is deleted", "DELETE FROM supports", True),
    ("erase", "the examples are deleted", "DELETE FROM examples", True),
    ("erase", "versions become tombstones", "UPDATE versions SET .*erased_at=[?]", True),
    ("erase", "kept answers are deleted", "DELETE FROM requests", True),
    ("erase", "the erasure is noted", "INSERT INTO erasures", True),
    ("erase", "the commit", "COMMIT", False),
    ("erase", "after the commit", "COMMIT", True),
    ("erase", "the checkpoint", "PRAGMA wal_checkpoint", False),
    ("erase", "after the checkpoint", "PRAGMA wal_checkpoint", True),
    ("erase", "the receipt", "UPDATE erasures", False),
    ("erase a task", "the rows of its versions", "DELETE FROM versions", True),
    ("erase a task", "the checkpoint", "PRAGMA wal_checkpoint", False),
    ("key", "its row", "INSERT INTO keys", True),
    ("tenant", "the audit", "INSERT INTO audit", False),
]

UPGRADING = [
    ("the copy", "VACUUM INTO", False),
    ("after the copy", "VACUUM INTO", True),
    ("the new table", "CREATE TABLE", True),
    ("its rows", "INSERT INTO _alembic", True),
    ("the old table is dropped", "DROP TABLE", True),
    ("the new one takes its name", "ALTER TABLE", True),
    ("the number of the schema", "UPDATE alembic_version", True),
    ("the check of foreign keys", "PRAGMA foreign_key_check", False),
    ("the commit", "COMMIT", False),
]

LATER = pytest.mark.slow
SOON = {"after the blob", "the commit", "after the commit", "the checkpoint"}
"""Steps that the fast tests go through; the slow ones go through all."""
HOW = pytest.mark.parametrize(
    "how", ["an error", pytest.param("a full disk", marks=LATER), pytest.param("a kill", marks=LATER)]
)


def when(step):
    return [] if step in SOON else [LATER]


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def template(model, tmp_path_factory):
    """A store with some tasks."""
    folder = tmp_path_factory.mktemp("failpoints") / "store"
    with Service(model, folder, clock=lambda: 10**18) as service:
        make(service)
    return folder


@pytest.fixture
def folder(template, tmp_path):
    return shutil.copytree(template, tmp_path / "store")


@pytest.fixture(autouse=True)
def few_states(monkeypatch):
    monkeypatch.setattr(rows, "KEPT_STATES", 1)


@pytest.fixture(scope="module")
def before(model, template, tmp_path_factory):
    with Service(model, shutil.copytree(template, tmp_path_factory.mktemp("before") / "store")) as service:
        return shown(service)


@pytest.fixture(scope="module")
def wanted(model, template, tmp_path_factory):
    """What is stored once each operation was done."""
    found = {}

    def after(operation):
        if operation not in found:
            folder = shutil.copytree(template, tmp_path_factory.mktemp("wanted") / "store")
            with Service(model, folder) as service:
                OPERATIONS[operation](service, shelf(service))
                found[operation] = shown(service)
        return found[operation]

    return after


@HOW
@pytest.mark.parametrize(
    ("operation", "statement", "after"),
    [pytest.param(name, *point, id=f"{name}: {step}", marks=when(step)) for name, step, *point in POINTS],
)
def test_a_request_that_fails_is_done_or_not_and_the_next_one_is(
    model, folder, before, wanted, operation, statement, after, how
):
    if how == "a full disk" and after and statement == "COMMIT":
        how = "an error"  # a full disk undoes a commit
    point, do = Failpoint(statement, after, how, met=True), OPERATIONS[operation]
    go_on = partial(finish, operation=operation, goal=wanted(operation))

    def fail(service):
        task = shelf(service)
        for version in (1, 2):
            service.predict(task, points(9), version=version)
        point.met = False
        with pytest.raises(HandfulError) as told:
            do(service, task)
        assert point.met
        assert told.value.code in ("unwritable", "failed")
        if shown(service) != before:
            partly = "in no table any more" in told.value.message
            assert partly or told.value.code == "failed", "it was said that nothing was done"

    def use(*works):
        with failing(point), Service(model, folder) as service:
            for work in works:
                work(service)

    if how == "a kill":
        in_a_process(lambda: use(fail))
        use(go_on)
    else:
        use(fail, go_on)


@pytest.mark.parametrize(
    ("use", "statement"),
    [
        (lambda s, t: s.get(t), "BEGIN"),
        (lambda s, t: s.tasks(), "SELECT tasks"),
        (lambda s, t: s.predict(t, points(9)), "SELECT versions.state"),
        (lambda s, t: s.add(t, points(22), ["b"]), "SELECT examples"),
        (lambda s, t: s.roll_back(t, 1), "SELECT versions"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_its_own(model, folder, use, statement):
    point = Failpoint(statement, after=False, how="an error", met=True)
    with failing(point, where="mode=ro"), Service(model, folder) as service:
        task = shelf(service)
        point.met = False
        with pytest.raises(HandfulError, match="cannot be read") as told:
            use(service, task)
        assert told.value.code == "unavailable"
        use(service, task)
        check(service)


def test_a_damaged_database_is_said_to_be_damaged(model, folder):
    with Service(model, folder) as service:
        task = shelf(service)
        with (folder / FILE).open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (2**20))
        for use in (
            lambda: service.get(task),
            lambda: service.add(task, points(30), ["a"]),
            lambda: service.delete(task),
        ):
            with pytest.raises(ArtifactError, match="damaged"):
                use()


@HOW
@pytest.mark.parametrize(
    ("statement", "after"), [pytest.param(*point, id=step, marks=when(step)) for step, *point in UPGRADING]
)
def test_an_upgrade_that_fails_leaves_the_store_as_it_was(model, folder, tmp_path, statement, after, how):
    point, further = Failpoint(statement, after, how), migrations(tmp_path)
    where = "mode=ro" if statement == "VACUUM INTO" else "mode=rw"

    def content():
        with contextlib.closing(sqlite3.connect(folder / FILE)) as connection:
            return list(connection.iterdump())

    def fail():
        with failing(point, where), pytest.raises(UserError, match="disk") as told:
            upgrade(folder, further)
        assert told.value.code == "unwritable"

    before = content()
    in_a_process(fail) if how == "a kill" else fail()
    assert point.met == (how != "a kill")
    assert content() == before
    assert upgrade(folder, further).exists()
    assert content() != before


def test_an_upgrade_that_fails_after_its_commit_is_done(folder, tmp_path):
    further, steps = migrations(tmp_path), []
    with failing(Failpoint("COMMIT", after=True, how="an error")), pytest.raises(UserError, match="disk"):
        upgrade(folder, further)
    while upgrade(folder, further) is not None:
        steps.append(1)
    assert len(steps) <= 1


def test_a_store_that_cannot_be_made_is_refused_in_a_sentence(tmp_path):
    for statement in ("PRAGMA journal_mode", "CREATE TABLE tenants", "COMMIT"):
        with failing(Failpoint(statement, False, "a full disk")), pytest.raises(UserError, match="disk is full"):
            SqliteStore(tmp_path / "store")
    SqliteStore(tmp_path / "store").close()


@pytest.mark.parametrize("call", ["os.open", "os.fsync", "Path.rename", "shutil.copyfileobj"])
@pytest.mark.parametrize("number", [errno.ENOSPC, pytest.param(errno.EIO, marks=LATER)])
def test_a_copy_that_fails_leaves_nothing(model, folder, tmp_path, monkeypatch, call, number):
    copy = backup(folder, tmp_path / "copy")

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(f"handful.serving.backups.{call}", fail)
        if call != "shutil.copyfileobj":
            with pytest.raises(UserError, match="Cannot write") as told:
                backup(folder, tmp_path / "second")
            assert told.value.code == "unwritable"
        with pytest.raises(HandfulError, match=r"Cannot (write|read)"):
            restore(copy, tmp_path / "place")
    assert {path.name for path in tmp_path.iterdir()} == {"store", "copy"}
    backup(folder, tmp_path / "second")
    with Service(model, restore(copy, tmp_path / "place")) as service:
        check(service)
