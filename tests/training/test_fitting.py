"""Trees that are fitted before meta-training: what training sees of them, and what becomes of them."""

import threading

import pytest
import torch

from handful import evaluate
from handful.errors import UserError
from handful.events import StoppedError
from handful.functional import boosting
from handful.learners.cavia import CAVIA
from handful.models.meta_model import MetaModel
from handful.tasks.sine import Sine
from handful.tasks.task_collection import TaskCollection
from handful.training.fitting import fit
from handful.training.loop import meta_train
from handful.training.run import Run


def shops(classes=None):
    """Values that jump where two columns have the same sign, with an offset of each task."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(480, 3, generator=generator)
    tasks = torch.arange(24).repeat_interleave(20)
    values = 3.0 * (inputs[:, 0] * inputs[:, 1] > 0) + torch.randn(24, generator=generator)[tasks]
    targets = values[:, None] if classes is None else (values > 1).long()
    splits = {"train": range(12), "val": range(12, 16), "test": range(16, 24)}
    return TaskCollection(inputs, targets, tasks, [str(k) for k in range(24)], splits=splits, classes=classes)


def learner_for(tasks, seed=0):
    options = {"columns": tasks.spec.outputs, "hidden": [8]}
    return CAVIA.build(tasks.spec, backbone="boosted", backbone_options=options, seed=seed)


@pytest.mark.parametrize("classes", [None, 2])
def test_training_sees_what_trees_of_other_tasks_predict(classes):
    tasks = shops(classes)
    learner = learner_for(tasks)
    train = tasks.split("train")
    seen = fit(learner, train)
    width = 3 + tasks.spec.outputs
    assert seen.spec.input_shape == (width,)
    assert tasks.spec.input_shape == (3,)
    columns = learner.fit(train.pool().by_task())
    for index in range(5):
        ours, theirs = seen.task(index), train.task(index)
        assert torch.equal(ours.support.inputs[:, :3], theirs.support.inputs)
        own = columns[train.unit(index)]
        rows = tasks.inputs[tasks.members[train.unit(index)]]
        places = (theirs.query.inputs[:, None] == rows).all(-1).int().argmax(1)
        assert torch.equal(ours.query.inputs[:, 3:], own[places])
    assert seen.columns[tasks.members[20]].isnan().all(), "tasks to test on have none"


def test_meta_training_fits_them_and_they_are_saved_with_the_model(tmp_path):
    tasks = shops()
    learner = learner_for(tasks)
    meta_train(learner, tasks, steps=3, meta_batch_size=2, validation_tasks=3, plan="loop")
    assert int(learner.backbone.trees.depth) > 1
    model = MetaModel(learner)
    again = MetaModel.from_pretrained(model.save_pretrained(tmp_path / "model"))
    assert again.digest == model.digest
    (inputs, targets), query = tasks.split("test").task(0)
    predictions = [one.predict(one.adapt(inputs, targets), query.inputs).mean for one in (model, again)]
    assert torch.equal(*predictions)
    before = evaluate(learner, tasks.split("test"), tasks=8).score.mean
    for name in ("value", "base"):
        getattr(learner.backbone.trees, name).zero_()
    assert evaluate(learner, tasks.split("test"), tasks=8).score.mean != before, "they are used"


def test_a_training_that_goes_on_has_the_same_bits(tmp_path):
    tasks = shops()

    def trained(folder, *, resume=False, stop=None):
        boosting._fits.clear()
        learner, run = learner_for(tasks), Run.open(tmp_path / folder, {}, resume=resume)
        settings = {"steps": 4, "meta_batch_size": 2, "validation_tasks": 3, "plan": "loop"}
        meta_train(learner, tasks, run=run, stop=stop, **settings)
        return learner.state_dict()

    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        trained("stopped", stop=stop)
    whole, continued = trained("whole"), trained("stopped", resume=True)
    assert all(torch.equal(whole[name], continued[name]) for name in whole)


def test_tasks_without_rows_of_their_own_are_refused():
    learner = CAVIA.build(Sine().spec, backbone="boosted")
    with pytest.raises(UserError, match="needs tables of tasks with common columns"):
        meta_train(learner, Sine(), steps=1, validation_tasks=2)
