"""Copies of a store: whole or not there, private, made without disturbing it, and restored into nothing else."""

import fcntl
import itertools
import os
import shutil
import signal
import sqlite3
import stat
import sys
import threading

import pytest

from handful import Service
from handful.errors import ArtifactError, UserError
from handful.serving import backups
from handful.serving.backups import UNFINISHED, backup, restore
from handful.serving.sqlite import FILE
from handful.serving.sqlite_store import SqliteStore
from serving.oracle import check
from serving.worlds import classifier, points


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """A store with a task, which no service has."""
    place = tmp_path_factory.mktemp("backups") / "store"
    with Service(model, place) as service:
        service.create("shelf", points(1, 2, 3, 4), ["a", "a", "b", "b"])
    return place


@pytest.fixture
def copy(folder, tmp_path):
    return backup(folder, tmp_path / "copy.sqlite3")


def names(folder):
    return {path.name for path in folder.iterdir()}


def shown(service, task):
    return [dict(one.probabilities) for one in service.predict(task, points(20, 21)).predictions]


def test_a_restored_backup_has_all_that_was_acknowledged_before_it(model, tmp_path):
    before, stop, begun = [], threading.Event(), threading.Event()

    def write(service):
        for number in range(10**6):
            task = service.create(f"task {number}", points(*range(number, number + 4)), ["a", "a", "b", "b"])
            before.append((task.id, service.correct(task.id, points(number), ["b"]).head.number))
            begun.set()
            if stop.is_set():
                return

    with Service(model, tmp_path / "store") as service:
        writing = threading.Thread(target=write, args=(service,))
        writing.start()
        begun.wait(30)
        acknowledged = list(before)
        copy = service.store.backup(tmp_path / "copy.sqlite3")
        stop.set()
        writing.join()
        wanted = {task: shown(service, task) for task, _ in acknowledged}
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with Service(model, restore(copy, tmp_path / "restored")) as restored:
        assert {task: shown(restored, task) for task, _ in acknowledged} == wanted
        assert all(restored.get(task).head.number == number for task, number in acknowledged)
        assert check(restored) >= 2 * len(acknowledged)
        restored.create("it can be written", points(1, 2, 3, 4), ["a", "a", "b", "b"])
    assert stat.S_IMODE((tmp_path / "restored" / FILE).stat().st_mode) == 0o600
    assert names(tmp_path / "restored") == {FILE}


def test_no_second_connection_writes_while_a_backup_is_made(folder, tmp_path, monkeypatch):
    with SqliteStore(folder) as store:
        opened, connect = [], sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda place, **how: opened.append(place) or connect(place, **how))
        store.backup(tmp_path / "copy.sqlite3")
    assert [place.rpartition("?")[2] for place in opened[:2]] == ["mode=ro", "mode=ro&immutable=1"]
    assert len(opened) == 2


def test_a_backup_replaces_nothing_and_follows_no_link(folder, copy, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "stale").with_name("stale-wal").write_bytes(b"of an earlier one")
    for place in (copy, tmp_path / "link", tmp_path / "stale"):
        with pytest.raises(UserError, match="already exists"):
            backup(folder, place)
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(UserError, match="Cannot write"):
        backup(folder, tmp_path / "no" / "copy")
    with pytest.raises(ArtifactError, match="does not contain a store"):
        backup(tmp_path, tmp_path / "nothing")


def test_a_damaged_store_is_named_and_leaves_no_backup(folder, tmp_path):
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    with (damaged / FILE).open("r+b") as file:
        file.seek(8192)
        file.write(b"x" * 40_000)
    with pytest.raises(ArtifactError, match=f"The store in {damaged} is damaged"):
        backup(damaged, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_backup_of_what_a_killed_process_left_has_it_all_and_leaves_it_there(folder, model, tmp_path):
    with Service(model, tmp_path / "used") as service:
        service.create("shelf", points(1, 2, 3, 4), ["a", "a", "b", "b"])
        assert (tmp_path / "used" / f"{FILE}-wal").stat().st_size
        shutil.copytree(tmp_path / "used", tmp_path / "killed")
    log = (tmp_path / "killed" / f"{FILE}-wal").read_bytes()
    copy = backup(tmp_path / "killed", tmp_path / "copy")
    assert (tmp_path / "killed" / f"{FILE}-wal").read_bytes() == log
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT COUNT(*) FROM tasks").fetchone() == (1,)


@pytest.mark.parametrize("content", ["a file", "a store", "a link"])
def test_a_backup_is_restored_into_an_empty_folder_alone(copy, folder, tmp_path, content):
    place = tmp_path / "place"
    if content == "a link":
        (tmp_path / "empty").mkdir()
        place.symlink_to(tmp_path / "empty")
    elif content == "a store":
        shutil.copytree(folder, place)
    else:
        place.mkdir()
        (place / f"{FILE}-wal").write_bytes(b"stale")
    before = {path: path.read_bytes() for path in place.iterdir()}
    with pytest.raises(UserError, match="is not empty"):
        restore(copy, place)
    assert {path: path.read_bytes() for path in place.iterdir()} == before


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_a_database_with_files_beside_it_is_no_backup(copy, tmp_path, end):
    copy.with_name(copy.name + end).write_bytes(b"")
    with pytest.raises(UserError, match="in use, or of a killed process"):
        restore(copy, tmp_path / "place")
    assert not (tmp_path / "place").exists()


def foreign(path, *statements):
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def linked(copy):
    copy.rename(copy.with_name("other"))
    copy.symlink_to(copy.with_name("other"))


def executed(statement):
    def change(copy):
        with sqlite3.connect(copy) as connection:
            connection.execute(statement)
        connection.close()

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (linked, "Cannot read"),
        (lambda copy: copy.unlink(), "Cannot read"),
        (lambda copy: copy.unlink() or copy.mkdir(), "is not a file"),
        (lambda copy: copy.unlink() or os.mkfifo(copy), "is not a file"),
        (lambda copy: copy.write_bytes(b""), "not a backup of a store"),
        (lambda copy: copy.write_bytes(b"no database" * 500), "not the database of a store, or damaged"),
        (lambda copy: copy.write_bytes(copy.read_bytes()[:-5000]), "damaged"),
        (lambda copy: foreign(copy, "CREATE TABLE t (a)", "CREATE INDEX i ON t (a)"), "not a backup of a store"),
        (executed("CREATE TRIGGER t AFTER INSERT ON tasks BEGIN DELETE FROM audit; END"), "not a backup of a store"),
        (executed("UPDATE heads SET version = 9"), "heads has rows with broken references"),
        (executed("UPDATE alembic_version SET version_num = '9999'"), "the schema 9999"),
    ],
)
def test_what_is_no_whole_backup_of_a_store_is_not_restored(copy, tmp_path, change, message):
    change(copy)
    with pytest.raises(ArtifactError, match=message):
        restore(copy, tmp_path / "place")
    assert not (tmp_path / "place").exists()


# Kills


def killed_at(call, work):
    """Do work in a process that is killed at the n-th call that the module makes; returns whether it came so far."""
    child = os.fork()
    if not child:
        left = [call]

        def profile(frame, event, argument):
            if event in ("call", "c_call") and frame.f_code.co_filename == backups.__file__:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(profile)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def killed_everywhere(work, after, every):
    call = 1
    while killed_at(call, work):
        after()
        call += every
    after()
    return call


EVERY = pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])


@EVERY
def test_a_killed_backup_leaves_nothing_under_its_name(folder, tmp_path, every):
    target, seen = tmp_path / "copies" / "copy", []

    def after():
        seen.append(target.exists())
        if target.exists():
            with sqlite3.connect(target) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                assert connection.execute("SELECT COUNT(*) FROM versions").fetchone() == (1,)
        for path in target.parent.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            path.unlink()

    target.parent.mkdir()
    assert killed_everywhere(lambda: backup(folder, target), after, every) > 15
    assert seen == sorted(seen)
    assert 1 <= sum(seen) < len(seen)


def test_what_a_killed_backup_left_is_gone_after_the_next_but_not_one_that_is_made(folder, tmp_path):
    left = tmp_path / f"{UNFINISHED}0123"
    for call in itertools.count(12, 3):
        assert killed_at(call, lambda: backup(folder, tmp_path / "copy")), "it was never killed half way"
        if any(tmp_path.glob(f"{UNFINISHED}*")):
            break
    with left.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        backup(folder, tmp_path / "copy")
        assert [*tmp_path.glob(f"{UNFINISHED}*")] == [left]
    backup(folder, tmp_path / "another")
    assert not left.exists()


def test_a_backup_that_begins_while_another_is_put_in_its_place_takes_nothing_from_it(folder, tmp_path, monkeypatch):
    sync, seen = backups._sync, []

    def sync_while_another_begins(place):
        sync(place)
        seen.append(place.name)
        backups._remove_unfinished(tmp_path)

    monkeypatch.setattr(backups, "_sync", sync_while_another_begins)
    backup(folder, tmp_path / "copy")
    assert seen[0].startswith(UNFINISHED)
    assert names(tmp_path) == {"copy"}


def test_a_copy_that_another_backup_removed_before_it_was_locked_is_begun_anew(folder, tmp_path, monkeypatch):
    lock, removed = fcntl.flock, []

    def lock_late(file, how):
        if how == fcntl.LOCK_EX and not removed:
            removed.extend(tmp_path.glob(f"{UNFINISHED}*"))
            backups._remove_unfinished(tmp_path)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with sqlite3.connect(backup(folder, tmp_path / "copy")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM tasks").fetchone() == (1,)
    assert len(removed) == 1
    assert names(tmp_path) == {"copy"}


@EVERY
def test_a_killed_restoration_leaves_no_half_store(copy, tmp_path, every):
    place, seen = tmp_path / "place", []

    def after():
        seen.append((place / FILE).exists())
        if (place / FILE).exists():
            assert (place / FILE).read_bytes() == copy.read_bytes()
        shutil.rmtree(place, ignore_errors=True)

    assert killed_everywhere(lambda: restore(copy, place), after, every) > 15
    assert seen == sorted(seen)
    assert seen[-1]


def test_a_restoration_needs_no_new_folder_after_one_that_was_killed(copy, tmp_path):
    place = tmp_path / "place"
    for call in itertools.count(12, 3):
        assert killed_at(call, lambda: restore(copy, place)), "it was never killed half way"
        if any(place.glob(f"{UNFINISHED}*")):
            break
    assert len(names(place)) == 2, "its lock, and the copy"
    restore(copy, place)
    assert names(place) == {FILE}


def test_a_file_that_is_no_database_is_named_as_the_user_named_it(tmp_path):
    (tmp_path / "notes.txt").write_text("no database, but a text that is long enough to be taken for one" * 20)
    with pytest.raises(ArtifactError, match=r"notes\.txt is not the database"):
        restore(tmp_path / "notes.txt", tmp_path / "store")
