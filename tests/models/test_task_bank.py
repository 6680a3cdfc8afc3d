"""A bank holds the states of many tasks, for any number of threads."""

import threading
import time

import pytest
import torch

from handful.errors import DataError, HandfulError, UserError
from handful.models import batches
from handful.models.task_bank import LARGEST_SLAB, SMALLEST_SLAB, TaskBank
from models.test_meta_model import examples, model


@pytest.fixture(scope="module")
def meta():
    return model()


def adapted(meta, count):
    return [meta.adapt(*examples()) for _ in range(count)]


def size_of(task):
    return sum(leaf.nbytes for leaf in task.state.values())


def run(threads):
    for thread in threads:
        thread.start()
    return threads


def test_keys_come_and_go(meta):
    bank, (one, other) = TaskBank(meta), adapted(meta, 2)
    queries = torch.randn(3, 4)
    bank.put("a", one)
    bank.put("b", other)
    assert (len(bank), "a" in bank, "c" in bank, bank.nbytes) == (2, True, False, 2 * size_of(one))
    bank.put("a", other)
    found = bank.predict([("a", queries), ("b", queries)])
    assert torch.allclose(found[0].logits, found[1].logits)
    assert (bank.remove("a"), bank.remove("a"), len(bank), bank.nbytes) == (True, False, 1, size_of(one))
    gone, there = bank.predict([("a", queries), ("b", queries)])
    assert "holds no task 'a'" in str(gone)
    assert torch.allclose(there.logits, meta.predict(other, queries).logits)


def test_slots_are_used_again(meta):
    bank, tasks = TaskBank(meta), adapted(meta, 2)
    for number in range(2 * LARGEST_SLAB):
        bank.put(number % 3, tasks[number % 2])
    [slabs] = bank._slabs.values()
    assert [slab.size for slab in slabs] == [SMALLEST_SLAB]


def test_slabs_grow_and_no_state_moves(meta):
    bank, [task] = TaskBank(meta), adapted(meta, 1)
    bank.put(0, task)
    [slabs] = bank._slabs.values()
    place = slabs[0].leaves[0].data_ptr()
    for number in range(1, 3 * LARGEST_SLAB):
        bank.put(number, task)
    sizes = [slab.size for slab in slabs]
    assert (sizes[0], max(sizes)) == (SMALLEST_SLAB, LARGEST_SLAB)
    assert sum(sizes) <= 4 * LARGEST_SLAB
    assert slabs[0].leaves[0].data_ptr() == place


def test_a_limit_drops_what_was_asked_for_least_recently_and_loads_it_again(meta):
    tasks = dict(enumerate(adapted(meta, 5)))
    loaded = []

    def load(key):
        loaded.append(key)
        if key not in tasks:
            raise UserError(f"No task {key} in the store.")
        return tasks[key]

    bank = TaskBank(meta, max_bytes=3 * size_of(tasks[0]), load=load)
    queries = torch.randn(2, 4)
    for key in (0, 1, 2, 0, 3):
        bank.predict([(key, queries)])
    assert loaded == [0, 1, 2, 3]
    assert (bank.counts.hits, bank.counts.misses, bank.counts.evictions) == (1, 4, 1)
    assert bank.counts.evicted_seconds > 0
    assert [key for key in range(5) if key in bank] == [0, 2, 3]
    found = bank.predict([(1, queries), (9, queries)])
    assert torch.allclose(found[0].logits, meta.predict(tasks[1], queries).logits)
    assert str(found[1]) == "No task 9 in the store."
    assert bank.nbytes <= bank.max_bytes


def test_memory_of_shapes_that_nobody_asks_for_any_more_is_let_go(meta):
    two, three = (meta.adapt(torch.randn(9, 4), [str(row % way) for row in range(9)]) for way in (2, 3))
    bank = TaskBank(meta, max_bytes=40 * size_of(three), load=lambda key: three if key[0] else two)
    for phase in range(2):
        for number in range(100):
            bank.predict([((phase, number), torch.randn(1, 4))])
    held = [slab for slabs in bank._slabs.values() for slab in slabs]
    assert {slab.leaves[0].shape[1] for slab in held} == {3}
    assert sum(slab.size for slab in held) <= 2 * len(bank)
    bank.predict([((0, 1), torch.randn(1, 4))])


def test_a_limit_without_a_way_to_load_is_refused(meta):
    with pytest.raises(UserError, match="Set both"):
        TaskBank(meta, max_bytes=1000)


def test_threads_that_miss_the_same_key_load_it_once(meta):
    [task] = adapted(meta, 1)
    loaded, found = [], []

    def load(key):
        time.sleep(0.02)
        loaded.append(key)
        return task

    bank = TaskBank(meta, load=load)
    ask = [("a", torch.zeros(1, 4))]
    for thread in run([threading.Thread(target=lambda: found.extend(bank.predict(ask))) for _ in range(16)]):
        thread.join()
    assert loaded == ["a"]
    assert len(found) == 16
    assert not any(isinstance(one, HandfulError) for one in found)
    assert not bank._loading


def test_each_prediction_is_of_one_version_whatever_is_put_meanwhile(meta):
    """S13: with slots that are used again at once, a prediction would read another version, or half of one."""
    versions, queries = adapted(meta, 2), torch.randn(2, 4)
    expected = [meta.predict(version, queries).logits for version in versions]
    bank, stop, wrong = TaskBank(meta), threading.Event(), []
    for key in range(4):
        bank.put(key, versions[0])

    def put():
        turn = 0
        while not stop.is_set():
            bank.put(turn % 4, versions[turn // 4 % 2])
            turn += 1

    def predict():
        while not stop.is_set():
            found = bank.predict([(key, queries) for key in range(4)])
            wrong.extend(one for one in found if not any(torch.allclose(one.logits, v, atol=1e-5) for v in expected))

    threads = run([threading.Thread(target=put), *(threading.Thread(target=predict) for _ in range(3))])
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(bank) == 4


def test_a_slot_that_is_read_is_not_used_again(meta):
    """The breaker of the test above: what is put meanwhile goes elsewhere until the reader is gone."""
    bank, tasks = TaskBank(meta), adapted(meta, 2)
    bank.put("a", tasks[0])
    slot = bank._pinned("a")
    before = slot.state.leaves[0].clone()
    for _ in range(2 * SMALLEST_SLAB):
        bank.put("a", tasks[1])
    assert torch.equal(slot.state.leaves[0], before)
    assert slot.row not in slot.slab.free


def test_no_answer_is_given_by_a_slot_that_was_used_again(meta, monkeypatch):
    """Were it freed too early, which this does on purpose."""
    bank, (one, other) = TaskBank(meta), adapted(meta, 2)
    bank.put("a", one)
    bank.put("b", one)
    predict = batches.predict

    def meanwhile(*arguments):
        slot = bank._slots["a"]
        slot.slab.free.append(slot.row)
        bank.put("c", other)
        return predict(*arguments)

    monkeypatch.setattr(batches, "predict", meanwhile)
    lost, there = bank.predict([("a", torch.randn(1, 4)), ("b", torch.randn(1, 4))])
    assert "The state of 'a' was lost" in str(lost)
    assert not isinstance(there, HandfulError)


def test_a_wrong_request_fails_alone(meta):
    bank, [task] = TaskBank(meta), adapted(meta, 1)
    bank.put("a", task)
    right, wrong, none = bank.predict([("a", torch.zeros(1, 4)), ("a", torch.zeros(1, 5)), ("a", torch.zeros(0, 4))])
    assert right.logits.shape == (1, 3)
    assert isinstance(wrong, DataError)
    assert none.logits.shape == (0, 3)
