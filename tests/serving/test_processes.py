"""Several processes change the tasks of one database at once and are killed: it stays whole, with all they did."""

import json
import os
import random
import signal
import time
import traceback

import pytest

from handful import Service
from handful.errors import UserError
from serving.clusters import settled
from serving.oracle import check
from serving.worlds import classifier, points

EXPECTED = {"contradictory-labels", "name-taken", "not-found", "one-class", "too-few-examples", "version-conflict"}


def act(service, choose, actor):
    """Change some task in some way; returns its id, the version that it has now, and a key to ask for it again."""
    tasks = service.tasks()
    how = {"actor": actor}
    if len(tasks) < 3 or choose.random() < 0.05:
        key, name = f"key {choose.random()}", f"shelf {choose.randrange(5)}"
        task = service.create(name, points(*range(4)), ["a", "a", "b", "b"], idempotency_key=key, **how)
        return task.id, 1, key
    id_, number, label = choose.choice(tasks).id, choose.randrange(4, 40), choose.choice("abc")
    kind = choose.choice(["add", "add", "correct", "roll back", "remove", "erase", "predict"])
    if kind == "add":
        return id_, service.add(id_, points(number), [label], **how).head.number, None
    if kind == "correct":
        return id_, service.correct(id_, points(number), [label], **how).head.number, None
    if kind == "roll back":
        version = choose.choice(service.versions(id_)).number
        return id_, service.roll_back(id_, version, **how).head.number, None
    if kind == "predict":
        return id_, service.predict(id_, points(number)).version, None
    example = choose.choice(service.examples(id_)).id
    if kind == "remove":
        return id_, service.remove(id_, [example], **how).head.number, None
    return id_, service.erase(id_, [example], **how).version, None


def work(model, address, seed, out):
    """Change tasks for ever, and write down what is acknowledged, one JSON a line."""
    choose = random.Random(seed)
    with Service(model, address) as service:
        while True:
            try:
                done = act(service, choose, f"process {seed}")
            except UserError as error:
                if error.code not in EXPECTED:
                    raise
            else:
                os.write(out, json.dumps(done).encode() + b"\n")


def started(model, address, seed):
    """A process at work, and where it says what it has done."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            work(model, address, seed, writing)
        except BaseException:
            os.write(writing, json.dumps(traceback.format_exc()).encode() + b"\n")
        finally:
            os._exit(1)
    os.close(writing)
    return child, reading


def killed(child, reading, after, pause):
    """What a process acknowledged that was killed some seconds after it had acknowledged some things."""
    with os.fdopen(reading) as told:
        try:
            lines = [told.readline() for _ in range(after)]
            time.sleep(pause)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        lines += [line for line in told if line.endswith("\n")]
    done = [json.loads(line or '"it ended by itself"') for line in lines]
    assert all(isinstance(one, list) for one in done), done[-1]
    return done


@pytest.mark.slow
def test_three_processes_that_are_killed_leave_a_store_that_is_whole(cluster):
    model, address, choose, told = classifier(), cluster.store(), random.Random(0), []
    running = [started(model, address, seed) for seed in range(3)]
    try:
        for seed in range(3, 15):
            told += killed(*running.pop(0), after=6, pause=choose.uniform(0, 0.05))
            running.append(started(model, address, seed))
    finally:
        for process in running:
            told += killed(*process, after=1, pause=0)
    settled(cluster, address)
    with Service(model, address) as service:
        assert check(service) >= 20
        versions = {task.id: service.versions(task.id) for task in service.tasks()}
        with service.store.reading("default") as rows:
            for id_, version, key in told:
                assert 1 <= version <= len(versions[id_])
                if key and not rows.receipts.of_task(id_):
                    assert json.loads(rows.answer(key, 0)[1])["task"] == id_
    assert len(told) >= 75
    actors = [{one.actor for one in of_task} for of_task in versions.values()]
    assert max(map(len, actors)) >= 4, "they changed the same tasks"
