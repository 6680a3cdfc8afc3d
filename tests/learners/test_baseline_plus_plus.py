"""Baseline++ against PyTorch's own cosines and Adam, and its two ways of pre-training."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Generator, Tensor, nn

from handful.learners.baseline_plus_plus import BaselinePlusPlus
from handful.learners.pretraining import BATCH, SCALE, CosineClassifier
from handful.learners.transfer import Transfer
from handful.storage import digest_of
from handful.types import Examples, TaskSpec

D, CLASSES, WAY = 12, 20, 4
SPEC = TaskSpec("classification", (D,), WAY)


def look(hidden: Tensor, generator: Generator) -> Tensor:
    """Two directions that tell classes apart, behind ten of louder noise."""
    noise = 2 * torch.randn(len(hidden), D - 2, generator=generator)
    return torch.cat([hidden + 0.1 * torch.randn(hidden.shape, generator=generator), noise], dim=1)


def draw(generator: Generator, count: int) -> Examples:
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return Examples(look(torch.randn(CLASSES, 2, generator=Generator().manual_seed(0))[labels], generator), labels)


@dataclass(frozen=True)
class Source:
    outputs: int = CLASSES
    draw: Callable[[Generator, int], Examples] = draw


def task(seed: int) -> tuple[Examples, Examples]:
    generator = Generator().manual_seed(seed)
    centers = 2 * torch.randn(WAY, 2, generator=generator)
    labels = [torch.arange(WAY).repeat_interleave(shot) for shot in (2, 10)]
    first, second = (Examples(look(centers[own], generator), own) for own in labels)
    return first, second


def network(input_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Linear(D, 32), nn.ReLU(), nn.Linear(32, 8))


def score(learner: BaselinePlusPlus) -> float:
    total = 0.0
    with torch.no_grad():
        for seed in range(1000, 1020):
            support, query = task(seed)
            logits = learner.predict(learner.adapt(support, SPEC), query.inputs).logits
            total += (logits.argmax(-1) == query.targets).float().mean().item() / 20
    return total


def test_it_is_adam_on_the_cross_entropy_of_scaled_cosines() -> None:
    learner = BaselinePlusPlus.build(SPEC, backbone=network, temperature=7.0, inner_steps=20).double().eval()
    support, query = (Examples(e.inputs.double(), e.targets) for e in task(0))
    features, queries = learner.backbone(support.inputs), learner.backbone(query.inputs)
    units = features / features.norm(dim=1, keepdim=True)
    means = torch.stack([units[support.targets == c].mean(0) for c in range(WAY)])
    weight = nn.Parameter(means / means.norm(dim=1, keepdim=True))

    def cosines(rows: Tensor) -> Tensor:
        return 7.0 * torch.cosine_similarity(rows.unsqueeze(1), weight, dim=-1)

    optimizer = torch.optim.Adam([weight], lr=0.01, eps=1e-4)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(cosines(features), support.targets).backward()
        optimizer.step()
    state = learner.adapt(support, SPEC)
    assert set(state) == {"head.weight"}
    torch.testing.assert_close(state["head.weight"], weight.detach())
    torch.testing.assert_close(learner.predict(state, query.inputs).logits, cosines(queries).detach())


def test_it_shares_the_pre_training_of_the_ladder_by_default() -> None:
    transfer, own, cosine = (
        cls.build(SPEC, backbone=network, **options)
        for cls, options in (
            (Transfer, {}),
            (BaselinePlusPlus, {}),
            (BaselinePlusPlus, {"pretraining_head": "cosine"}),
        )
    )
    for learner in (transfer, own, cosine):
        learner.pretrain(Source(), examples=3 * BATCH, seed=0)
    assert digest_of(own.state_dict()) == digest_of(transfer.state_dict()) != digest_of(cosine.state_dict())
    assert digest_of(transfer.twin(BaselinePlusPlus).state_dict()) == digest_of(own.state_dict())


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_pre_training_lifts_it(head: str) -> None:
    learner = BaselinePlusPlus.build(SPEC, backbone=network, pretraining_head=head).eval()
    before = score(learner)
    learner.pretrain(Source(), examples=40 * BATCH, seed=0)
    assert score(learner) > before + 0.1


def test_the_cosine_head_of_pre_training_sees_directions_alone() -> None:
    head = CosineClassifier(8, 5, bias=False)
    features = torch.randn(6, 8, generator=Generator().manual_seed(0))
    expected = SCALE * torch.cosine_similarity(features.unsqueeze(1), head.weight, dim=-1)
    torch.testing.assert_close(head(features), expected)
    torch.testing.assert_close(head(3 * features), expected)
