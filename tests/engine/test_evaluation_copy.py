"""A copy in evaluation mode: the learner keeps its own, and both know what was found out about either."""

import torch
from torch import nn

from handful.engine.evaluation_copy import evaluation_copy
from handful.engine.over_tasks import over_tasks
from handful.engine.plan import Plan
from noted import noted, nothing_noted


class Refused(nn.Module):
    """Its branch depends on numbers, which `vmap` refuses."""

    def forward(self, one):
        return one * (2 if float(one.sum()) > 0 else 3)


def test_the_learner_stays_in_training_and_shares_its_tensors():
    learner = nn.Linear(2, 2)
    copy = evaluation_copy(learner)
    assert learner.training
    assert not copy.training
    assert copy.weight is learner.weight


def test_what_vmap_refuses_of_one_copy_is_known_of_the_next():
    learner, batch = Refused(), torch.ones(3, 2)
    with torch.no_grad():
        with noted("one task after another"):
            over_tasks(evaluation_copy(learner), (batch,), Plan("vmap"), evaluation_copy(learner))
        with nothing_noted():
            over_tasks(learner, (batch,), Plan("vmap"), evaluation_copy(learner))
