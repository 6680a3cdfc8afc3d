"""Devices of models: users' tensors and predictions are on the CPU, whatever the default and the model's device."""

import pytest
import torch

from contracts.problems import ROWS, VALUES, single
from evaluation.toys import OnDevice
from handful.models.meta_model import MetaModel
from handful.models.task_bank import TaskBank
from handful.registry import LEARNERS


def given(problem, seed=0):
    (inputs, targets), (queries, _) = single(problem.task(seed=seed))
    return inputs, [f"class {number}" for number in targets] if problem is ROWS else targets, queries


@pytest.mark.parametrize(
    ("key", "problem"),
    [("protonet", ROWS), pytest.param("maml", ROWS, marks=pytest.mark.slow), ("anp", VALUES), ("neighbors", ROWS)],
)
def test_adapting_and_predicting_name_their_devices(key, problem):
    learner = problem.learner(LEARNERS[key]).float()
    (inputs, labels, queries), (others, other_labels, _) = given(problem), given(problem, seed=1)

    def found():
        model = MetaModel(learner)
        task = model.adapt(inputs, labels, estimate=True, groups=[str(n // 2) for n in range(len(inputs))])
        pair = model.adapt_many([(inputs, labels), (others[1:], other_labels[1:])])
        bank = TaskBank(model)
        bank.put("one", task)
        bank.put("other", pair[1])
        more = model.with_examples(task, queries[:1], labels[:1], groups=["new"])
        predictions = [model.predict(task, queries), *bank.predict([("one", queries), ("other", queries[:2])])]
        return task.estimate, [
            [leaf.tolist() for leaf in each] for each in [*predictions, model.predict(more, queries)]
        ]

    expected = found()
    with torch.device("meta"):
        assert found() == expected


def test_examples_and_states_go_to_the_device_of_the_model():
    model = MetaModel(OnDevice.build(ROWS.spec, backbone="raw"))
    inputs, labels, queries = given(ROWS)
    task = model.adapt(inputs, labels)
    there = model.to("meta")
    with pytest.raises(NotImplementedError, match="meta"):  # what comes of it has no numbers to bring back
        there.adapt(inputs, labels)
    with pytest.raises(NotImplementedError, match="meta"):
        there.predict(task, queries)
