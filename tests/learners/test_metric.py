"""What all learners do that compare with the examples in a learned space."""

import pytest
import torch

from contracts.problems import ROWS
from handful.learners.learner import Learner
from handful.learners.matching import MatchingNetwork
from handful.learners.prototypical import PrototypicalNetwork
from handful.learners.relation import RelationNetwork
from handful.learners.siamese import SiameseNetwork
from handful.types import Examples, Task

METRIC = pytest.mark.parametrize("cls", [PrototypicalNetwork, MatchingNetwork, RelationNetwork, SiameseNetwork])


@METRIC
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_an_absent_class_is_never_the_answer_nor_changes_the_others(cls, scale):
    learner = cls.build(ROWS.spec, backbone="raw").double()
    task = Task(*(Examples(scale * examples.inputs, examples.targets) for examples in ROWS.task()))
    present = task.support.targets != 1
    # The stand-in for its missing mean is in the middle: a query there must not be taken in.
    queries = torch.cat([task.query.inputs, task.support.inputs[present].mean(0, keepdim=True)])
    logits = learner.predict(learner.adapt(Examples(*(part[present] for part in task.support)), ROWS.spec), queries)
    whole = learner.predict(learner.adapt(task.support, ROWS.spec), queries)
    assert (logits.logits.argmax(-1) != 1).all()
    assert logits.logits.isfinite().all()
    if cls is not MatchingNetwork:  # whose attention is shared out among all
        torch.testing.assert_close(logits.logits[:, [0, 2]], whole.logits[:, [0, 2]])


@pytest.mark.parametrize("cls", [PrototypicalNetwork, MatchingNetwork, RelationNetwork])
@pytest.mark.parametrize("normalization", ["frozen", "transductive"])
def test_what_is_meta_trained_is_what_adapts_and_predicts(cls, normalization):
    learner, task = ROWS.learner(cls, normalization=normalization), ROWS.task()
    torch.testing.assert_close(learner.meta_loss(task, ROWS.spec), Learner.meta_loss(learner, task, ROWS.spec))


@METRIC
def test_a_query_of_a_class_without_examples_has_no_part_in_the_loss(cls):
    """It can be answered by no weights, and would push all other logits down without end."""
    learner, task = ROWS.learner(cls), ROWS.task()
    held, asked = (part.targets != 1 for part in task)
    support, query = (
        Examples(*(leaf[which] for leaf in part)) for part, which in zip(task, (held, asked), strict=True)
    )
    assert not asked.all()
    loss = learner.meta_loss(Task(support, task.query), ROWS.spec)
    torch.testing.assert_close(loss, learner.meta_loss(Task(support, query), ROWS.spec))
    only_absent = Examples(*(leaf[~asked] for leaf in task.query))
    assert learner.meta_loss(Task(support, only_absent), ROWS.spec) == 0
