"""How fast a training says that it was."""

import pytest

from handful.learners.maml import MAML
from handful.tasks.sine import Sine
from handful.training.loop import meta_train
from handful.training.performance import performance


def test_the_speed_is_that_of_the_history_and_the_share_below_the_limit():
    tasks = Sine()
    learner = MAML.build(tasks.spec, backbone="mlp")
    trained = meta_train(learner, tasks, steps=30, validation_tasks=5, meta_batch_size=2)
    speed = trained.performance
    first, last = trained.history[0], trained.history[-1]
    assert speed["seconds_per_step"] == pytest.approx((last["seconds"] - first["seconds"]) / 29)
    assert speed["tasks_per_second"] == pytest.approx(2 / speed["seconds_per_step"])
    assert 0 < speed["share_of_limit"] < 1
    assert speed["peak_bytes"] > 50 * 2**20
    assert performance(trained.history[:1], learner, tasks.batch(range(2)), tasks.spec, None) == {}


def test_what_was_hardly_trained_has_no_speed():
    tasks = Sine()
    learner = MAML.build(tasks.spec, backbone="mlp")
    assert meta_train(learner, tasks, steps=1, validation_tasks=2).performance == {}
