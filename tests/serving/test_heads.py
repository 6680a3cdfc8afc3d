"""Heads in memory: found without the database, and never an older one than the last change that has returned."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from handful import Service
from handful.errors import HandfulError, UserError
from handful.serving.heads import Heads
from handful.serving.rows import Rows
from serving.worlds import classifier, points


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture
def service(model, place):
    with Service(model, place) as service:
        yield service


@pytest.fixture
def in_folder(model, tmp_path):
    with Service(model, tmp_path / "store") as service:
        yield service


def made(service, **options):
    return service.create("shelf", points(1, 2), ["a", "b"], **options)


def refuse(*_, **__):
    raise AssertionError("the database is read")


def test_a_warm_prediction_reads_no_database(in_folder, monkeypatch):
    task = made(in_folder)
    in_folder.predict(task.id, points(3))
    monkeypatch.setattr(Rows, "__init__", refuse)
    assert in_folder.predict(task.id, points(3)).version == 1


def test_every_change_of_a_head_is_seen_at_once(service):
    task = made(service)

    def version():
        return service.predict(task.id, points(3)).version

    assert version() == 1
    service.add(task.id, points(5), ["c"])
    assert version() == 2
    service.roll_back(task.id, 1)
    assert version() == 1
    service.erase(task.id, [service.examples(task.id, 2)[2].id])
    assert version() == 1
    for away in (service.delete, service.erase_task):
        away(task.id)
        with pytest.raises(UserError, match="does not exist"):
            version()
        if away == service.delete:
            service.restore(task.id)
            assert version() == 1


def test_a_head_is_of_its_tenant_alone(service):
    task = made(service, tenant="t")
    service.predict(task.id, [], tenant="t")
    with pytest.raises(UserError) as foreign:
        service.predict(task.id, [], tenant="u")
    assert foreign.value.code == "not-found"


def test_what_was_read_before_a_change_is_not_held_after_it():
    reads, reading, go = iter(["old", "new"]), threading.Event(), threading.Event()

    def read(tenant, task):
        found = next(reads)
        reading.set()
        go.wait(10)
        return found

    heads = Heads(read)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(heads.of, "t", "task")
        reading.wait(10)
        heads.forget("t", ["task"])
        go.set()
        assert slow.result() == "old"
    assert heads.of("t", "task") == heads.of("t", "task") == "new"
    heads.forget("u", ["task"])
    assert heads.of("t", "task") == "new"


def test_a_bounded_number_of_heads_is_held_and_no_failure():
    reads = []

    def read(tenant, task):
        reads.append(task)
        if task == "none":
            raise UserError("There is no task.")
        return task

    heads = Heads(read, most=2)
    for task in "abcbc":
        assert heads.of("t", task) == task
    assert reads == ["a", "b", "c"]
    assert heads.of("t", "a") == "a"
    for _ in range(2):
        with pytest.raises(UserError):
            heads.of("t", "none")
    assert reads == ["a", "b", "c", "a", "none", "none"]


def test_a_head_is_read_anew_where_a_commit_may_have_been_kept(in_folder, monkeypatch):
    task = made(in_folder)
    in_folder.predict(task.id, [])
    commit = in_folder.store.writer._commit

    def lost(*arguments):
        commit(*arguments)
        raise HandfulError("The answer is lost.")

    monkeypatch.setattr(in_folder.store.writer, "_commit", lost)
    with pytest.raises(HandfulError, match="lost"):
        in_folder.add(task.id, points(5), ["c"])
    assert in_folder.predict(task.id, []).version == 2


def test_no_prediction_is_older_than_a_change_that_has_returned(service):
    task = made(service)
    known, over = [1], threading.Event()

    def watch():
        while not over.is_set():
            least = known[0]
            assert service.predict(task.id, []).version >= least

    def change(number):
        version = service.add(task.id, points(number), ["a"]).head.number
        assert service.predict(task.id, []).version >= version
        known[0] = max(known[0], version)  # may lag behind, and never leads

    with ThreadPoolExecutor(5) as pool:
        watching = [pool.submit(watch) for _ in range(2)]
        list(pool.map(change, range(30, 36)))
        over.set()
        for one in watching:
            one.result()
    assert service.predict(task.id, []).version == 7
