"""Requests of an event loop to a service: whole, in time, and never another's answer."""

import asyncio
import itertools
import threading
import time
from functools import partial

import pytest

from handful import Service
from handful.errors import HandfulError, OverloadedError, UserError
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.serving.batcher import LONGEST, Batcher
from handful.types import TaskSpec
from serving.worlds import classifier, points


@pytest.fixture
def service(tmp_path):
    with Service(classifier(), tmp_path / "store") as service:
        yield service


def made(service, name="shelf", **options):
    return service.create(name, points(1, 2, 3, 4), ["a", "a", "b", "b"], **options)


def served(service, use, **options):
    """What `use(batcher)` returns, in an event loop."""

    async def run():
        batcher = Batcher(service, **options)
        try:
            return await use(batcher)
        finally:
            await batcher.close()

    return asyncio.run(run())


def stalled(monkeypatch, owner, name):
    """Has a method wait at its start: returns that it was reached, and what lets it go on."""
    original, reached, go = getattr(owner, name), threading.Event(), threading.Event()

    def slow(*arguments, **options):
        reached.set()
        assert go.wait(10)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, slow)
    return reached, go


async def until(event):
    while not event.is_set():
        await asyncio.sleep(0.001)


def test_predictions_and_changes_are_those_of_the_service(service):
    task = made(service, tenant="t")

    async def use(batcher):
        two = await asyncio.gather(
            batcher.predict("t", task.id, points(7, 8), top=1),
            batcher.predict("u", task.id, points(7)),
            return_exceptions=True,
        )
        added = await batcher.adapt("t", 1, lambda: service.add(task.id, points(5), ["c"], tenant="t"))
        old = await batcher.predict("t", task.id, points(7, 8), version=1, top=1)
        assert max(batcher.busy_for.values()) < 5
        return *two, added, old, {name: lane.seen.taken for name, lane in batcher.lanes.items()}

    predicted, foreign, added, old, taken = served(service, use)
    assert predicted == old == service.predict(task.id, points(7, 8), version=1, top=1, tenant="t")
    assert foreign.code == "not-found"
    assert added == service.get(task.id, tenant="t")
    assert taken == {"predict": 3, "adapt": 1, "convert": 0, "look": 0, "check": 0}


def test_deadlines_are_bounded_and_a_closed_batcher_takes_nothing(service):
    async def use(batcher):
        for seconds in (0.0, -1.0, 60.5, float("nan")):
            with pytest.raises(UserError, match="above 0 and at most 60 seconds"):
                await batcher.predict("t", "task", points(1), deadline=seconds)
        await batcher.close()
        for use in (batcher.predict("t", "task", points(1)), batcher.adapt("t", 1, lambda: None)):
            with pytest.raises(HandfulError) as error:
                await use
            assert error.value.code == "closed"

    served(service, use)


def test_a_change_of_any_cost_is_taken_where_nothing_waits(service):
    assert served(service, lambda batcher: batcher.adapt("t", 10**9, lambda: 7)) == 7


def test_predictions_alone_are_refused_before_their_time_is_over(service):
    async def use(batcher):
        return {name: lane._may_wait for name, lane in batcher.lanes.items()}

    shares = served(service, use)
    assert shares.pop("predict") < 0.5, "of an old request and a new one, the new one is next then"
    assert set(shares.values()) == {1.0}


def test_closing_finishes_what_was_taken(service, monkeypatch):
    task = made(service)
    reached, go = stalled(monkeypatch, service.predictor, "predict")

    async def use(batcher):
        asked = [asyncio.ensure_future(batcher.predict("default", task.id, points(1))) for _ in range(3)]
        await until(reached)
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0.02)
        assert not closing.done()
        go.set()
        await closing
        return [len(one.predictions) for one in await asyncio.gather(*asked)]

    # The work is bound when the batcher is made.
    assert served(service, use) == [1, 1, 1]


def test_a_write_that_has_begun_is_answered_as_it_ends_though_its_deadline_is_over(service, monkeypatch):
    """The deadline must not answer a failure of what is committed later."""
    task = made(service)
    reached, go = stalled(monkeypatch, service.store, "write")

    async def use(batcher):
        def add(number):
            return batcher.adapt("default", 1, lambda: service.add(task.id, points(number), ["c"]), deadline=0.05)

        begun, waits = asyncio.ensure_future(add(5)), asyncio.ensure_future(add(6))
        await until(reached)
        with pytest.raises(OverloadedError) as error:
            await waits
        assert error.value.code == "deadline-exceeded"
        assert not begun.done()
        go.set()
        return await begun

    assert served(service, use, adapting=1).head.number == 2
    assert [version.number for version in service.versions(task.id)] == [1, 2], "what expired was never done"


def test_a_cold_state_is_loaded_once_for_all_who_wait_for_it(service, monkeypatch, tmp_path):
    task = made(service)
    with service.store.reading("default"):
        pass
    service.close()
    with Service(service._states.models["default"], tmp_path / "store") as cold:
        loaded = []
        bank = cold._states._bank(task.head.model_digest)
        load = bank._load
        monkeypatch.setattr(bank, "_load", lambda key: (loaded.append(key), time.sleep(0.02), load(key))[2])

        async def use(batcher):
            return await asyncio.gather(*(batcher.predict("default", task.id, points(1)) for _ in range(64)))

        assert len(served(cold, use, predicting=4)) == 64
        assert loaded == [("default", task.id, 1)]


def test_every_answer_is_its_own_task_s_while_tasks_come_change_and_are_evicted(tmp_path):
    """Each task has one class of its own, in each version another."""
    spec = TaskSpec("classification", (3,), 2, "permuted")
    model = MetaModel(PrototypicalNetwork.build(spec, backbone="linear"))
    wrong, asked = [], itertools.count()
    with Service(model, tmp_path / "store", max_bytes=2_000) as service:

        def create(name):
            labels = [f"{name} v1", f"{name} v1 too"]
            return service.create(name, points(1, 2), labels, tenant=name[0]).id

        ids = {name: create(name) for name in ("a1", "a2", "b1", "b2", "c1")}
        newest = dict.fromkeys(ids, 1)

        async def change(batcher, name):
            for _ in range(8):
                number = newest[name] + 1
                labels = [f"{name} v{number}", f"{name} v{number} too"]
                work = partial(service.correct, ids[name], points(1, 2), labels, tenant=name[0])
                newest[name] = (await batcher.adapt(name[0], 2, work, deadline=LONGEST)).head.number
                assert newest[name] == number

        async def predict(batcher, name):
            while newest[name] < 9:
                at_least = newest[name]
                version = next(asked) % at_least + 1 if next(asked) % 3 == 0 else None
                found = await batcher.predict(name[0], ids[name], points(5), version=version, deadline=LONGEST)
                right = {f"{name} v{found.version}", f"{name} v{found.version} too"}
                if set(found.predictions[0].probabilities) != right or found.version < (version or at_least):
                    wrong.append((name, version, found))

        async def use(batcher):
            await asyncio.gather(
                *(change(batcher, name) for name in ids), *(predict(batcher, name) for name in ids for _ in range(6))
            )
            return sum(batcher.lanes["predict"].seen.sizes.values())

        batches = served(service, use, predicting=8)
    assert not wrong
    assert next(asked) > batches > 1
