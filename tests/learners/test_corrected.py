"""Pooled models with a correction of each task's own."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from handful import evaluate
from handful.errors import UserError
from handful.evaluation.ladder import Ladder
from handful.functional.boosting import BoostedTrees
from handful.learners.corrected import CorrectedNetwork, CorrectedTrees
from handful.learners.transfer import Pooled
from handful.models.meta_model import MetaModel
from handful.tasks.sine import Sine
from handful.tasks.task_collection import TaskCollection
from handful.training.loop import meta_train
from handful.types import Examples

TASKS, ROWS = 36, 16


def shops(*, classes=None, offsets=1.0, slopes=0.0):
    """Tasks whose values are a step of the first column, an offset of their own, and a slope of the second."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(TASKS * ROWS, 3, generator=generator)
    tasks = torch.arange(TASKS).repeat_interleave(ROWS)
    own = offsets * torch.randn(TASKS, generator=generator)
    steep = slopes * torch.randn(TASKS, generator=generator)
    values = 2 * (inputs[:, 0] > 0) + own[tasks] + steep[tasks] * inputs[:, 1]
    values += 0.1 * torch.randn(len(values), generator=generator)
    targets = values[:, None] if classes is None else (values > 1).long()
    splits = {"train": range(12), "val": range(12, 16), "test": range(16, 36)}
    return TaskCollection(inputs, targets, tasks, [str(k) for k in range(TASKS)], splits=splits, classes=classes)


def fitted(tasks):
    learner = CorrectedTrees.build(tasks.spec)
    learner.fit(tasks.split("train").pool().by_task())
    return learner


@pytest.mark.parametrize("kind", [{"offsets": 1.0}, {"offsets": 1.0, "slopes": 2.0}, {"classes": 2, "offsets": 4.0}])
def test_the_correction_is_worth_it_on_tasks_that_differ(kind):
    tasks = shops(**kind).with_sizes(shot=8)
    learner = fitted(tasks)
    found = evaluate(learner, tasks.split("test"), tasks=20)
    learner.noise.fill_(1e9)
    assert found.gain_over(evaluate(learner, tasks.split("test"), tasks=20)).low > 0


def test_where_tasks_do_not_differ_nearly_nothing_is_corrected():
    learner = fitted(shops(offsets=0.0))
    assert learner.noise >= 10


def test_trees_are_those_of_all_training_rows():
    tasks = shops()
    learner = fitted(tasks)
    rows = torch.cat([tasks.members[task] for task in range(12)])
    theirs = HistGradientBoostingRegressor(random_state=0).fit(tasks.inputs[rows], tasks.targets[rows, 0])
    expected = torch.from_numpy(theirs.predict(tasks.inputs.numpy()).astype(np.float32))
    torch.testing.assert_close(learner.trees(tasks.inputs)[:, 0], expected)


def test_no_task_is_predicted_by_trees_that_saw_it():
    """Targets that no row tells: a tree that has seen them knows the task's by a column that is its number."""
    tasks = [(torch.full((30, 1), float(number)), torch.full((30, 1), float((-1) ** number))) for number in range(11)]
    examples = [Examples(*task) for task in tasks]
    found = BoostedTrees(1).fit(examples)
    assert [one.shape for one in found] == [(30, 1)] * 11
    for number, own in enumerate(found):
        others = [task for other, task in enumerate(examples) if other % 5 != number % 5]
        theirs = HistGradientBoostingRegressor(random_state=0).fit(
            torch.cat([task.inputs for task in others]).numpy(), torch.cat([task.targets for task in others])[:, 0]
        )
        torch.testing.assert_close(own[:, 0].double(), torch.from_numpy(theirs.predict(examples[number].inputs)))
    with pytest.raises(UserError, match="only one"):
        BoostedTrees(1).fit(examples[:1])


def test_it_is_trained_saved_and_loaded_as_any_learner(tmp_path):
    tasks = shops()
    learner = CorrectedTrees.build(tasks.spec)
    meta_train(learner, tasks, validation_tasks=3)
    assert int(learner.trees.depth) > 1
    assert torch.equal(learner.trees(tasks.inputs), fitted(tasks).trees(tasks.inputs)), "the same bits"
    model = MetaModel(learner)
    again = MetaModel.from_pretrained(model.save_pretrained(tmp_path / "model"))
    assert again.digest == model.digest
    task = tasks.split("test").task(0)
    predictions = [
        one.predict(one.adapt(task.support.inputs, task.support.targets), task.query.inputs).mean
        for one in (model, again)
    ]
    assert torch.equal(*predictions)


def test_the_ladder_fits_them_on_the_training_tasks_once(monkeypatch):
    tasks, calls = shops(), []
    fit = CorrectedTrees.fit
    monkeypatch.setattr(CorrectedTrees, "fit", lambda self, rows: calls.append(len(rows)) or fit(self, rows))
    ladder = Ladder(CorrectedNetwork.build(tasks.spec, backbone="raw"), tasks, examples=100, minutes=0)
    ladder.rungs = [rung for rung in ladder.rungs if rung.name in ("dummy", "corrected-trees")]
    rows = ladder.run(tasks.split("test"), tasks.split("val"), tasks=8).rows
    expected = evaluate(fitted(tasks), tasks.split("test"), tasks=8)
    assert torch.equal(
        next(row for row in rows if row.evaluation.learner == "corrected-trees").evaluation.scores, expected.scores
    )
    ladder.run(tasks.split("test"), tasks.split("val"), tasks=2)
    assert calls == [12, 12]  # the ladder's, and that of this test


def test_tasks_without_rows_of_their_own_are_refused():
    with pytest.raises(UserError, match="needs tables of tasks with common columns"):
        meta_train(CorrectedTrees.build(Sine().spec), Sine(), validation_tasks=2)


def test_a_network_without_much_to_correct_is_the_pooled_one():
    tasks = shops()
    network = CorrectedNetwork.build(tasks.spec, noise=1e9)
    task = tasks.task(0)
    same = network.twin(Pooled)
    assert torch.allclose(
        network.predict(network.adapt(task.support, tasks.spec), task.query.inputs).mean,
        same.predict(same.adapt(task.support, tasks.spec), task.query.inputs).mean,
        atol=1e-6,
    )
    with pytest.raises(UserError, match="keeps the head"):
        network.adapt(task.support, tasks.spec.__class__("regression", (3,), 2))
