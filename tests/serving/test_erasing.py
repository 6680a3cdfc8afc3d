"""What was erased is nowhere, the receipt says so, and the task is as if it had never been shown it."""

import json
import threading

import pytest
import torch

from handful import Service
from handful.errors import DataError, HandfulError, UserError
from handful.models.meta_model import MetaModel
from handful.pipelines.texts import TextPipeline
from handful.serving import sqlite
from serving.oracle import check
from serving.worlds import classifier, points

MARKER, LABEL = b"MARKER-7f3a", b"LABEL-91c0"


@pytest.fixture
def service(place):
    with Service(classifier(), place) as service:
        yield service


def made(service, name="shelf", numbers=(1, 2, 3, 4, 5)):
    return service.create(name, points(*numbers), ["a", "a", "b", "b", "c"][: len(numbers)])


def ids(service, task, **options):
    return [one.id for one in service.examples(task.id, **options)]


def texts(tmp_path, monkeypatch):
    embed = lambda _, given: torch.tensor([[len(text), text.count("a"), 1.0] for text in given])  # noqa: E731
    monkeypatch.setattr(TextPipeline, "_embedded", embed)
    pipeline = TextPipeline(text="text", width=3, encoder="none", revision="none")
    return Service(MetaModel(classifier().learner, pipeline), tmp_path / "store")


def raw_files(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("secure", [True, False])
def test_no_file_holds_what_was_erased(tmp_path, monkeypatch, caplog, secure):
    if not secure:  # what SQLite does by default where it is not built otherwise
        monkeypatch.setitem(sqlite.PRAGMAS, "secure_delete", 0)
    secret = f"{MARKER.decode()} " * 40
    with texts(tmp_path, monkeypatch) as service:
        task = service.create("mail", ["aa", "bbbb", secret], ["x", "y", "x"], idempotency_key="k1")
        service.add(task.id, [f"{secret} more"], [LABEL.decode()], idempotency_key="k2")
        service.roll_back(task.id, 1)
        service.predict(task.id, ["aaa"])
        service.correct(task.id, [secret], ["y"])
        gone = {
            one.id for number in (1, 2, 3) for one in service.examples(task.id, number) if MARKER.decode() in one.input
        }
        assert len(gone) == 3
        before = raw_files(tmp_path)
        assert MARKER in before
        assert LABEL in before
        reading, let_go = threading.Event(), threading.Event()

        def read():
            with service.store.reading("default") as rows:
                rows.tasks(9)
                reading.set()
                let_go.wait(10)

        reader = threading.Thread(target=read)
        reader.start()
        reading.wait(10)
        threading.Timer(0.2, let_go.set).start()
        receipt = service.erase(task.id, sorted(gone))
        reader.join()
        service.store.backup(tmp_path / "backup.sqlite3")
        for _ in range(2):
            after = raw_files(tmp_path)
            assert (MARKER in after or LABEL in after) == (not secure)
            service.close()
        assert MARKER.decode() not in caplog.text
    assert (receipt.version, set(receipt.examples)) == (4, gone)


def test_the_task_is_one_that_was_never_shown_them(service):
    task = made(service)
    receipt = service.erase(task.id, [ids(service, task)[4]])
    other = made(service, "other", (1, 2, 3, 4))
    assert (receipt.version, receipt.digest) == (2, other.head.digest)
    head = service.get(task.id).head
    assert (head.number, head.parent, head.change, head.labels) == (2, 1, "erased", ("a", "b"))
    assert service.predict(task.id, points(9)).predictions == service.predict(other.id, points(9)).predictions
    check(service)


def test_versions_that_held_one_are_tombstones_and_the_others_stay(service):
    task = made(service, numbers=(1, 2, 3, 4))
    before = service.predict(task.id, points(9)).predictions
    service.add(task.id, points(6), ["c"])
    service.add(task.id, points(7), ["d"])
    service.roll_back(task.id, 1)
    example = ids(service, task, version=2)[4]
    receipt = service.erase(task.id, [example])
    assert (receipt.version, receipt.digest) == (1, service.get(task.id).head.digest)
    assert [one.erased_at is None for one in service.versions(task.id)] == [True, False, False]
    assert service.predict(task.id, points(9)).predictions == before
    assert service.examples(task.id, 3) == []
    for use in (lambda: service.predict(task.id, points(9), version=2), lambda: service.roll_back(task.id, 3)):
        with pytest.raises(UserError, match="was erased") as error:
            use()
        assert error.value.code == "not-found"
    assert service.add(task.id, points(8), ["d"]).head.number == 4
    check(service)


def test_the_same_erasure_gives_the_same_receipt_and_another_is_an_error(service):
    task = made(service)
    example = ids(service, task)[4]
    receipt = service.erase(task.id, [example])
    assert service.erase(task.id, [example]) == receipt
    with pytest.raises(UserError, match="has no example"):
        service.erase(task.id, [example, "ex_7"])
    with pytest.raises(UserError, match="does not exist"):
        service.erase(task.id, [example], tenant="other")
    with pytest.raises(UserError, match="The examples to erase are missing"):
        service.erase(task.id, [])


def test_without_a_cut_log_there_is_no_receipt_yet(service, monkeypatch):
    task = made(service)
    example = ids(service, task)[4]

    def fail():
        raise HandfulError("A reader holds the log.")

    monkeypatch.setattr(service.store, "empty_log", fail)
    with pytest.raises(HandfulError, match="in no table any more"):
        service.erase(task.id, [example])
    assert example not in ids(service, task)
    monkeypatch.undo()
    receipt = service.erase(task.id, [example])
    assert receipt.finished_at >= receipt.started_at
    assert len(service.versions(task.id)) == 2


def test_what_cannot_be_adapted_to_is_not_left(service):
    task = service.create("shelf", points(1, 2), ["a", "b"])
    for some in (ids(service, task)[:1], ids(service, task)):
        with pytest.raises(DataError, match="erase the whole task"):
            service.erase(task.id, some)
    assert service.get(task.id) == task


def test_a_whole_task_is_erased_and_its_name_is_free(service):
    task = made(service)
    service.predict(task.id, points(9))
    service.delete(task.id)
    with pytest.raises(UserError, match="at version 1, not 2"):
        service.erase_task(task.id, expected=2)
    receipt = service.erase_task(task.id, expected=1)
    assert (receipt.version, receipt.digest, len(receipt.examples)) == (None, None, 5)
    assert service.erase_task(task.id, expected=1) == receipt
    for use in (service.get, service.restore):
        with pytest.raises(UserError, match="does not exist"):
            use(task.id)
    assert made(service).name == "shelf"
    with pytest.raises(UserError, match="does not exist"):
        service.erase_task(task.id, tenant="other")
    [bank] = service._states._banks.values()
    assert len(bank) == 1


def test_a_state_that_is_being_loaded_is_not_kept(service, monkeypatch):
    task = made(service)
    example = ids(service, task)[4]
    [bank] = service._states._banks.values()
    bank.remove(("default", task.id, 1))
    load = bank._load

    def slow(key):
        found = load(key)
        service.erase(task.id, [example])
        return found

    monkeypatch.setattr(bank, "_load", slow)
    with pytest.raises(UserError, match="was erased"):
        service.predict(task.id, points(9))
    assert ("default", task.id, 1) not in bank


def test_deleted_tasks_are_erased_after_a_week(place):
    now = [10**18]
    with Service(classifier(), place, clock=lambda: now[0]) as service:
        task, other = made(service), made(service, "other")
        service.delete(task.id)
        now[0] += 6 * 86400 * 10**9
        assert service.purge() == []
        assert service.restore(task.id) == task
        service.delete(task.id)
        now[0] += 8 * 86400 * 10**9
        with pytest.raises(UserError, match="does not exist"):
            service.restore(task.id)
        assert [receipt.task for receipt in service.purge()] == [task.id]
        assert [one.id for one in service.tasks()] == [other.id]


def test_answers_to_requests_are_erased_with_the_examples(service):
    task = service.create("shelf", points(1, 2, 3), ["a", "b", "b"], idempotency_key="k")
    service.erase(task.id, ids(service, task)[2:])
    with service.store.reading("default") as rows:
        assert rows.answer("k", 0) is None
        [erasure] = rows.receipts.of_task(task.id)
    assert len(json.loads(erasure.examples)) == 1
