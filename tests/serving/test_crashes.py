"""A process that is killed at any moment leaves a store that is whole, with all that it acknowledged."""

import json
import os
import random
import signal
import time

import pytest
from tests.serving.kills import run

from handful import Service
from serving.oracle import check
from serving.worlds import classifier, points


def serve(model, folder, seed, out):
    """Change tasks for ever, and write down what is acknowledged, one JSON a line."""
    choose = random.Random(seed)
    with Service(model, folder) as service:
        while True:
            name, key = f"task {choose.random()}", f"key {choose.random()}"
            numbers = choose.sample(range(50), 4)
            task = service.create(name, points(*numbers), ["a", "a", "b", "b"], idempotency_key=key)
            say(out, task.id, 1, numbers, key)
            numbers += choose.sample(range(50, 60), 1)
            version = service.add(task.id, points(numbers[-1]), ["c"]).head.number
            say(out, task.id, version, numbers)
            version = service.correct(task.id, points(numbers[0]), ["b"]).head.number
            say(out, task.id, version, numbers)
            service.roll_back(task.id, 1)
            say(out, task.id, 1, numbers[:4])
            example = service.examples(task.id)[3].id
            receipt = service.erase(task.id, [example])
            say(out, task.id, receipt.version, numbers[:3], erased=example)


def say(out, id_, version, numbers, key=None, erased=None):
    line = {"id": id_, "version": version, "examples": len(numbers), "key": key, "erased": erased}
    os.write(out, json.dumps(line).encode() + b"\n")


def killed(model, folder, seed):
    """What a process acknowledged that was killed at some moment."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            serve(model, folder, seed, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as told:
        first = told.readline()
        assert first, "it ended by itself"
        time.sleep(random.Random(seed).uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        return [json.loads(line) for line in [first, *told] if line.endswith("\n")]


def crash(model, folder, kills):
    acknowledged = 0
    for seed in range(kills):
        told = killed(model, folder, seed)
        with Service(model, folder) as service:
            check(service)
            versions = {line["id"]: {one.number: one for one in service.versions(line["id"])} for line in told}
            for line in told:
                acknowledged += 1
                one = versions[line["id"]][line["version"]]
                assert one.erased_at is not None or one.examples == line["examples"]
                if line["erased"]:
                    assert service.erase(line["id"], [line["erased"]]).version == line["version"]
            last = told[-1]
            head = service.get(last["id"]).head.number
            newest = max(versions[last["id"]])
            assert head in (last["version"], newest, 1), "the last acknowledged, or the one that was under way"
            with service.store.reading("default") as rows:
                for line in told:
                    if line["key"] and sum(other["id"] == line["id"] for other in told) < 4:  # nothing is being erased
                        assert json.loads(rows.answer(line["key"], 0)[1])["task"] == line["id"]
    return acknowledged


def test_a_killed_process_loses_nothing_acknowledged(tmp_path):
    assert crash(classifier(), tmp_path / "store", 6) >= 6


@pytest.mark.slow
def test_many_killed_processes_lose_nothing_acknowledged(tmp_path):
    assert crash(classifier(), tmp_path / "store", 60) >= 60


def test_a_killed_server_loses_nothing_acknowledged(tmp_path):
    counts = run(tmp_path, 4)
    assert counts["lost"] == 0
    assert counts["acknowledged"] >= 4
    assert counts["sent again"] >= 4


@pytest.mark.slow
def test_a_server_that_is_killed_often_loses_nothing_acknowledged(tmp_path):
    counts = run(tmp_path, 60, seed=1)
    assert counts["lost"] == 0
    assert counts["acknowledged"] >= 400
