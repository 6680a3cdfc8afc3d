"""Per-task contrastive tuning against a plain loop, and which pairs it shows."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from handful.learners.contrastive import ContrastiveFineTuning
from handful.types import Examples, TaskSpec

WIDTH = 6
SPEC = TaskSpec("classification", (WIDTH,), 3)


def network(shape):
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 4))


def support(shot: int, way: int = 3) -> Examples:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(way).repeat_interleave(shot)
    means = torch.randn(way, WIDTH, generator=generator)
    return Examples(means[labels] + torch.randn(len(labels), WIDTH, generator=generator), labels)


def test_it_is_adam_on_the_squared_error_of_cosines_and_a_head_on_the_new_features():
    task, learner = support(4), ContrastiveFineTuning.build(SPEC, backbone=network, inner_lr=0.01, pairs=40, batch=16)
    first, second = learner._drawn(task.targets)
    plain = network(None)
    plain.load_state_dict(learner.backbone.state_dict())
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    for batch in zip(first.split(16), second.split(16), strict=True):
        cosines = F.cosine_similarity(*(plain(task.inputs[rows]) for rows in batch))
        same = (task.targets[batch[0]] == task.targets[batch[1]]).float()
        optimizer.zero_grad()
        F.mse_loss(cosines, same).backward()
        optimizer.step()
    state = learner.adapt(task, SPEC)
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(state["weights"][name], weight.detach(), rtol=1e-4, atol=1e-5)
    logits = learner.predict(state, task.inputs).logits
    torch.testing.assert_close(
        logits, plain(task.inputs).detach() @ state["head"] + state["bias"], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("shot", [1, 2, 5, 60])
def test_half_of_the_pairs_are_of_one_class_and_none_of_an_example_with_itself(shot):
    learner, targets = ContrastiveFineTuning.build(SPEC, backbone=network), support(shot).targets
    first, second = learner._drawn(targets)
    assert len(first) == len(second) <= learner.pairs
    assert len(first) > min(40 * len(targets), learner.pairs) - 2 * len(targets)
    same = targets[first] == targets[second]
    assert 0.45 < same.float().mean() < 0.55
    assert ((first == second) == same).all() if shot == 1 else (first != second).all()
    if shot > 1:
        different = len({*zip(first.tolist(), second.tolist(), strict=True)})
        assert different > min(len(first), len(targets) * (len(targets) - 1)) / 2, "partners differ"
        assert not same[: len(same) // 4].all(), "in a drawn order"


def test_examples_of_a_class_draw_near():
    task, learner = support(5), ContrastiveFineTuning.build(SPEC, backbone=network, inner_lr=0.01)

    def apart(features):
        cosines = F.normalize(features, dim=-1) @ F.normalize(features, dim=-1).T
        same = task.targets.unsqueeze(1) == task.targets
        return float(cosines[same].mean() - cosines[~same].mean())

    state = learner.adapt(task, SPEC)
    after = torch.func.functional_call(learner.backbone, state["weights"], task.inputs)
    assert apart(after) > apart(learner.backbone(task.inputs)) + 0.3
