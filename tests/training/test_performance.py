"""How fast a training says that it was."""

import pytest

from handful.learners.maml import MAML
from handful.tasks.sine import Sine
from handful.training import performance as module
from handful.training.loop import meta_train
from handful.training.performance import performance


@pytest.fixture(scope="module")
def trained():
    tasks = Sine()
    learner = MAML.build(tasks.spec, backbone="mlp")
    history = meta_train(learner, tasks, steps=30, validation_tasks=5, meta_batch_size=2).history
    return history, learner, tasks


def test_the_speed_is_that_of_the_history_and_the_share_below_the_limit(trained):
    speed = performance(*trained, 2)
    first, *_, last = trained[0]
    assert speed["seconds_per_step"] == pytest.approx((last["seconds"] - first["seconds"]) / 29)
    assert speed["tasks_per_second"] == pytest.approx(2 / speed["seconds_per_step"])
    assert 0 < speed["share_of_limit"] < 1
    assert speed["peak_bytes"] > 50 * 2**20
    assert "predicted_bytes" not in speed
    assert performance(*trained, 2, predicted_bytes=7)["predicted_bytes"] == 7


def test_a_single_step_has_no_speed(trained):
    history, *rest = trained
    assert performance(history[:1], *rest, 2) == {}


def test_operations_that_do_not_fit_into_memory_are_not_counted(trained, monkeypatch):
    monkeypatch.setattr(module, "training_limit", lambda device: 1000)
    assert "share_of_limit" not in performance(*trained, 2)
