"""Tasks move to the present model of their name, unless that is surely worse on their examples."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from sqlalchemy import func, select

from handful import MetaModel, Service
from handful.errors import DataError, UserError
from handful.pipelines.arrays import ArrayPipeline
from handful.serving.opening import open_store
from handful.serving.tables import ENCODINGS
from serving.oracle import check
from serving.worlds import blind, classifier, clusters, points, regressor


def scaled(seed, width):
    spread = {"median": [0.0], "width": [width], "clipped": [False]}
    return MetaModel(classifier(seed).learner, ArrayPipeline(raw_shape=[3], spread=spread))


@pytest.fixture
def store(place):
    with open_store(place) as store:
        yield store


def made(model, store, inputs=None, labels=None, **options):
    """A task that was adapted to a model which the service is not started with any more."""
    if inputs is None:
        inputs, labels = clusters(10)
    with Service(model, store) as service:
        return service.create("shelf", inputs, labels, **options)


def stored(store, task, version):
    with store.reading("default") as rows:
        return rows.state(task.id, version)


def test_a_task_moves_to_the_present_model_as_a_new_version(store):
    old, new = classifier(), classifier(seed=1)
    task = made(old, store)
    with Service(new, store) as service:
        moved = service.readapt(task.id, actor="ann")
        assert moved.promoted
        head = moved.task.head
        assert (head.number, head.parent, head.change, head.actor) == (2, 1, "readapted", "ann")
        assert head.model_digest == new.digest
        assert head.estimate == moved.after
        assert (moved.before.value, moved.after.value) == (1.0, 1.0)
        inputs, labels = clusters(10)
        library = new.adapt(torch.tensor(inputs), labels)
        assert stored(store, task, 2) == replace_support(library)
        assert service.predict(task.id, points(1)).model_digest == new.digest
        assert service.predict(task.id, points(1), version=1).model_digest == old.digest
        again = service.readapt(task.id)
        assert (again.promoted, [note.code for note in again.task.notes]) == (False, ["present-model"])
        assert service.add(task.id, points(1), ["a"]).head.model_digest == new.digest
        assert service.roll_back(task.id, 1).head.model_digest == old.digest
        assert service.readapt(task.id).task.head.number == 4
        check(service)


def replace_support(task):
    return replace(task, support=None, manifest=None, holds_examples=False).to_bytes()


def test_a_task_stays_where_the_present_model_is_surely_worse(store):
    old, worse = classifier(), blind()
    task = made(old, store)
    with Service(worse, store) as service:
        kept = service.readapt(task.id)
        assert not kept.promoted
        assert kept.task.head.number == 1
        assert kept.before.value == 1.0 > kept.after.value
        assert [note.code for note in kept.task.notes] == ["not-promoted"]
        assert len(service.versions(task.id)) == 1


def test_a_task_moves_where_nothing_can_be_said_of_it(store):
    task = made(classifier(), store, points(1, 2), ["a", "b"])
    with Service(blind(), store) as service:
        moved = service.readapt(task.id)
        assert (moved.promoted, moved.before, moved.after) == (True, None, None)
        assert {note.code for note in moved.task.notes} == {"no-estimate"}


def test_raw_examples_are_read_by_the_present_pipeline_and_erased_in_every_encoding(store):
    old, new = scaled(0, 0.0), scaled(1, 4.0)
    task = made(old, store)
    with Service(new, store) as service:
        service.readapt(task.id)
        library = new.adapt(new.pipeline.encode(clusters(10)[0]), clusters(10)[1])
        assert stored(store, task, 2) == replace_support(library)
        check(service)  # either version by its own encoding
        first = service.examples(task.id)[0]
        assert first.id == service.examples(task.id, 1)[0].id
        assert encodings(store) == 20
        service.erase(task.id, [first.id])
        assert encodings(store) == 19
        assert [one.erased_at is None for one in service.versions(task.id)] == [False, False, True]
        service.erase_task(task.id)
        assert encodings(store) == 0


def encodings(store):
    with store.reading("default") as rows:
        return rows._run(select(func.count()).select_from(ENCODINGS)).scalar()


def test_an_equal_pipeline_needs_no_second_encoding(store):
    task = made(scaled(0, 4.0), store)
    with Service(scaled(1, 4.0), store) as service:
        assert service.readapt(task.id).promoted
        assert encodings(store) == 0


def test_many_that_ask_at_once_are_one(store, monkeypatch):
    task = made(classifier(), store)
    works, gate = [], threading.Barrier(64)

    def slow(*arguments):
        works.append(threading.get_ident())
        over.wait(0.2)
        return adapt(*arguments)

    over = threading.Event()
    with Service(classifier(seed=1), store) as service:
        adapt = service.states.adapt
        monkeypatch.setattr(service.states, "adapt", slow)

        def ask(_):
            gate.wait()
            return service.readapt(task.id)

        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(ask, range(64)))
        assert len(works) == 1
        assert {answer.task.head.number for answer in answers} == {2}
        assert answers.count(answers[0]) == 64
        assert len(service.versions(task.id)) == 2


def test_each_actor_that_asks_at_once_has_an_answer_of_its_own(store, monkeypatch):
    task = made(classifier(), store)
    begun, go = threading.Event(), threading.Event()

    def slow(*arguments):
        begun.set()
        assert go.wait(10)
        return adapt(*arguments)

    with Service(classifier(seed=1), store) as service, ThreadPoolExecutor(3) as pool:
        adapt = service.states.adapt
        monkeypatch.setattr(service.states, "adapt", slow)
        first = pool.submit(service.readapt, task.id, actor="ann")
        assert begun.wait(10)
        second = pool.submit(service.readapt, task.id, actor="bob")
        third = pool.submit(service.readapt, task.id, actor="eve", expected=1)
        assert not second.done()
        go.set()
        assert first.result().promoted
        assert (second.result().promoted, second.result().task.head) == (False, first.result().task.head)
        with pytest.raises(UserError) as error:
            third.result()
        assert error.value.code == "version-conflict"
        assert [one.actor for one in service.audit() if one.action == "readapted"] == ["ann"]


def test_a_failure_is_of_all_that_asked_and_the_next_one_tries_again(store, monkeypatch):
    task = made(classifier(), store)

    def fail(*_):
        raise RuntimeError("in the middle")

    with Service(classifier(seed=1), store) as service:
        monkeypatch.setattr(service.states, "adapt", fail)
        with pytest.raises(RuntimeError):
            service.readapt(task.id)
        monkeypatch.undo()
        assert service.readapt(task.id).promoted


def test_an_example_that_comes_while_a_task_moves_is_encoded_anew(store, monkeypatch):
    task = made(scaled(0, 0.0), store)
    with Service(scaled(1, 4.0), store) as service:
        adapt = service.states.adapt

        def late(*arguments):
            monkeypatch.undo()
            service.readapt(task.id)  # while the addition adapts
            return adapt(*arguments)

        monkeypatch.setattr(service.states, "adapt", late)
        added = service.add(task.id, points(3), ["a"])
        assert (added.head.number, added.head.model_digest) == (3, service.models["default"].digest)
        fresh = service.create("fresh", [*clusters(10)[0], *points(3)], [*clusters(10)[1], "a"])
        assert fresh.head.digest == added.head.digest


def test_what_cannot_move_is_refused_with_the_reason(store):
    old = classifier()
    task = made(old, store)
    with Service(old, store) as service:
        bare = service.create("bare", points(1, 2), ["a", "b"], keep_examples=False)
        came = service.import_task("came in", service.export(task.id))
    with Service(classifier(seed=1), store) as service:
        with pytest.raises(UserError, match="not stored, so the task cannot change"):
            service.readapt(bare.id)
        with pytest.raises(DataError, match="were imported from a file"):
            service.readapt(came.id)
        with pytest.raises(UserError, match="at version 1, not 2") as conflict:
            service.readapt(task.id, expected=2)
        assert conflict.value.code == "version-conflict"
        with pytest.raises(UserError) as foreign:
            service.readapt(task.id, tenant="other")
        assert foreign.value.code == "not-found"
    with Service({"other": classifier(seed=1)}, store) as service, pytest.raises(UserError, match="no model 'default'"):
        service.readapt(task.id)
    with Service(regressor(), store) as service, pytest.raises(UserError, match="is for regression, unlike the task"):
        service.readapt(task.id)


def test_a_model_that_comes_from_the_store_is_built_once_for_all_that_wait(store, monkeypatch):
    task = made(classifier(), store)
    loads, load, gate = [], MetaModel.from_bytes, threading.Barrier(16)
    monkeypatch.setattr(MetaModel, "from_bytes", lambda *a, **k: loads.append(1) or load(*a, **k))
    with Service(classifier(seed=1), store) as service:

        def ask(_):
            gate.wait()
            return service.predict(task.id, points(1)).version

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(ask, range(16))) == [1] * 16
    assert len(loads) == 1
