"""The pre-trained rungs: what pre-training gives, what the rungs share, what fine-tuning changes."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Generator, Tensor, nn

from handful.engine.over_tasks import over_tasks
from handful.engine.plan import Plan
from handful.errors import UserError
from handful.learners.baseline_plus_plus import BaselinePlusPlus
from handful.learners.maml import MAML
from handful.learners.options import defaults_of
from handful.learners.pretraining import BATCH, schedule
from handful.learners.probes import NearestCentroid
from handful.learners.prototypical import PrototypicalNetwork
from handful.learners.transfer import FineTuneAll, FineTuneHead, Pooled, PretrainedNetwork, Transfer
from handful.storage import digest_of
from handful.types import Categorical, Examples, TaskSpec, stack

D, HIDDEN, CLASSES, WAY = 24, 3, 30, 4
SPEC = TaskSpec("classification", (D,), WAY)
SHARED = TaskSpec("classification", (D,), 3, "shared")
VALUES = TaskSpec("regression", (D,), 1)
EXAMPLES = 100 * BATCH
EMBEDDING = torch.linalg.qr(torch.randn(D, D, generator=Generator().manual_seed(1)))[0]


@dataclass(frozen=True)
class Source:
    outputs: int
    draw: Callable[[Generator, int], Examples]


def look(hidden: Tensor, generator: Generator) -> Tensor:
    """What is seen of hidden vectors `(n, HIDDEN)`: they fill few directions, loud noise all the others."""
    noise = 2 * torch.randn(len(hidden), D - HIDDEN, generator=generator)
    return torch.cat([hidden + 0.1 * torch.randn(hidden.shape, generator=generator), noise], dim=1) @ EMBEDDING


def centers(count: int, seed: int) -> Tensor:
    return torch.randn(count, HIDDEN, generator=Generator().manual_seed(seed))


def many_classes(generator: Generator, count: int) -> Examples:
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return Examples(look(centers(CLASSES, 2)[labels], generator), labels)


def shared_classes(generator: Generator, count: int) -> Examples:
    hidden = torch.randn(count, HIDDEN, generator=generator)
    return Examples(look(hidden, generator), hidden.argmax(-1))


def shared_values(generator: Generator, count: int) -> Examples:
    hidden = torch.randn(count, HIDDEN, generator=generator)
    return Examples(look(hidden, generator), hidden.sum(-1, keepdim=True) + 1)


POOLS = {SPEC: Source(CLASSES, many_classes), SHARED: Source(3, shared_classes), VALUES: Source(1, shared_values)}


def task(seed: int, spec: TaskSpec = SPEC) -> tuple[Examples, Examples]:
    """A task of new classes, or of the shared outputs."""
    generator = Generator().manual_seed(seed)
    if spec != SPEC:
        return POOLS[spec].draw(generator, 12), POOLS[spec].draw(generator, 40)
    hidden = centers(WAY, 1000 + seed)

    def examples(shot: int) -> Examples:
        labels = torch.arange(WAY).repeat_interleave(shot)
        return Examples(look(hidden[labels], generator), labels)

    return examples(1), examples(10)


def network(input_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Linear(D, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16))


def pretrained(
    cls: type[PretrainedNetwork], spec: TaskSpec, *, seed: int = 0, examples: int = EXAMPLES
) -> PretrainedNetwork:
    learner = cls.build(spec, backbone=network).eval()
    learner.pretrain(POOLS[spec], examples=examples, seed=seed)
    return learner


@pytest.fixture(scope="module")
def transfer() -> PretrainedNetwork:
    return pretrained(Transfer, SPEC)


@pytest.fixture(scope="module")
def pooled() -> dict[TaskSpec, PretrainedNetwork]:
    return {spec: pretrained(Pooled, spec) for spec in (SHARED, VALUES)}


def score(learner, spec: TaskSpec, tasks: int = 30) -> float:
    """Mean accuracy, or mean squared error."""
    total = 0.0
    with torch.no_grad():
        for seed in range(tasks):
            support, query = task(seed, spec)
            prediction = learner.predict(learner.adapt(support, spec), query.inputs)
            if isinstance(prediction, Categorical):
                total += (prediction.logits.argmax(-1) == query.targets).float().mean().item()
            else:
                total += prediction.loss(query.targets).mean().item()
    return total / tasks


def test_pre_training_lifts_transfer_above_the_raw_centroid_and_an_untrained_network(
    transfer: PretrainedNetwork,
) -> None:
    learned = score(transfer, SPEC)
    assert learned > score(NearestCentroid.build(SPEC), SPEC) + 0.15
    assert learned > score(Transfer.build(SPEC, backbone=network).eval(), SPEC) + 0.15


def test_pre_training_is_the_same_for_the_same_seed_and_leaves_no_trace_elsewhere() -> None:
    chance = torch.get_rng_state()
    first, again, other = (pretrained(Transfer, SPEC, seed=seed, examples=5 * BATCH) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), chance)
    assert digest_of(first.state_dict()) == digest_of(again.state_dict()) != digest_of(other.state_dict())
    assert not any(p.requires_grad or p.grad is not None for p in first.parameters())
    assert not first.training


def test_pre_training_in_bfloat16_is_as_good_and_keeps_its_weights_in_float32(transfer: PretrainedNetwork) -> None:
    first, again = (Transfer.build(SPEC, backbone=network).eval() for _ in range(2))
    for one in (first, again):
        one.pretrain(POOLS[SPEC], examples=EXAMPLES, seed=0, precision="bf16")
    assert digest_of(first.state_dict()) == digest_of(again.state_dict()) != digest_of(transfer.state_dict())
    assert {tensor.dtype for tensor in first.state_dict().values()} == {torch.float32}
    assert score(first, SPEC) == pytest.approx(score(transfer, SPEC), abs=0.03)


def test_pre_training_sets_the_statistics_of_the_batch_norms(transfer: PretrainedNetwork) -> None:
    layer = transfer.backbone[1]
    with torch.no_grad():
        seen = transfer.backbone[0](many_classes(Generator().manual_seed(7), 4000).inputs)
    torch.testing.assert_close(layer.mean, seen.mean(0), atol=0.15 * seen.std().item(), rtol=0)
    torch.testing.assert_close(layer.variance, seen.var(0), atol=0, rtol=0.2)


def test_frozen_parameters_of_a_network_stay_frozen() -> None:
    own = network((D,))
    own[0].weight.requires_grad_(False)
    learner = FineTuneAll.build(SPEC, backbone=own).eval()
    learner.pretrain(POOLS[SPEC], examples=2 * BATCH, seed=0)
    assert torch.equal(learner.backbone[0].weight, own[0].weight)
    assert not torch.equal(learner.backbone[3].weight, own[3].weight)
    twin = learner.twin(FineTuneAll)
    assert "backbone.0.weight" not in twin.adapt(task(0)[0], SPEC)
    assert "backbone.3.weight" in twin.adapt(task(0)[0], SPEC)


def test_progress_is_told() -> None:
    told = []
    learner = Transfer.build(SPEC, backbone=network)
    learner.pretrain(POOLS[SPEC], examples=3 * BATCH, seed=0, progress=lambda done, total: told.append((done, total)))
    assert told == [(BATCH, 3 * BATCH), (2 * BATCH, 3 * BATCH), (3 * BATCH, 3 * BATCH)]


def test_the_schedule_rises_to_one_and_falls_to_zero() -> None:
    rates = [schedule(step, 100) for step in range(100)]
    assert 0 < rates[0] < rates[5] < max(rates) <= 1
    assert rates.index(max(rates)) == 10
    assert rates[-1] < 0.01
    assert schedule(0, 1) > 0


def test_twins_share_network_and_head_but_not_memory(pooled: dict[TaskSpec, PretrainedNetwork]) -> None:
    for spec, learner in pooled.items():
        twin = learner.twin(FineTuneHead, inner_lr=0.5)
        assert digest_of(twin.state_dict()) == digest_of(learner.state_dict())
        assert twin.recipe["options"]["inner_lr"] == 0.5
        assert twin.recipe["backbone"] is learner.recipe["backbone"]
        assert twin.training == learner.training
        rebuilt = FineTuneHead.build(spec, backbone=twin.recipe["backbone"], **twin.recipe["options"])
        rebuilt.load_state_dict(twin.state_dict())
        with torch.no_grad():
            twin.backbone[0].weight.zero_()
        assert learner.backbone[0].weight.abs().sum() > 0


@pytest.mark.parametrize("spec", [SHARED, VALUES], ids=lambda spec: spec.kind)
def test_pooled_answers_well_without_looking_at_the_support(
    pooled: dict[TaskSpec, PretrainedNetwork], spec: TaskSpec
) -> None:
    learner = pooled[spec]
    reached = score(learner, spec)
    assert reached > 0.8 if spec.classification else reached < 0.6, reached  # the variance is 3
    assert learner.adapt(task(0, spec)[0], spec) == {}


def test_pooled_refuses_permuted_labels_and_a_pool_of_other_outputs() -> None:
    with pytest.raises(UserError, match="shared, but those of these tasks are permuted"):
        Pooled.build(SPEC, backbone=network)
    with pytest.raises(UserError, match="3 outputs, but the pool to pre-train on has 30"):
        Pooled.build(SHARED, backbone=network).pretrain(POOLS[SPEC], examples=BATCH, seed=0)


@pytest.mark.parametrize("cls", [FineTuneHead, FineTuneAll])
@pytest.mark.parametrize("spec", [SPEC, SHARED, VALUES], ids=["permuted", "shared", "values"])
def test_fine_tuning_lowers_the_support_loss_and_leaves_the_shared_network(cls, spec, transfer, pooled) -> None:
    source = transfer if spec == SPEC else pooled[spec]
    learner = source.twin(cls)
    before = digest_of(learner.state_dict())
    support, query = task(3, spec)
    with torch.no_grad():
        states = {steps: source.twin(cls, inner_steps=steps).adapt(support, spec) for steps in (1, 50)}
        losses = [learner.predict(state, support.inputs).loss(support.targets).mean() for state in states.values()]
    assert losses[1] < 0.8 * losses[0]
    assert digest_of(learner.state_dict()) == before
    learner.predict(states[50], query.inputs)
    assert digest_of(learner.state_dict()) == before
    assert not any(weight.requires_grad for weight in states[50].values())


@pytest.mark.parametrize("cls", [FineTuneHead, FineTuneAll])
def test_fine_tuning_keeps_what_transfer_knows(cls, transfer: PretrainedNetwork) -> None:
    assert score(transfer.twin(cls), SPEC, tasks=10) > score(transfer, SPEC, tasks=10) - 0.05


def test_fine_tuning_all_changes_the_backbone_in_the_state_alone(transfer: PretrainedNetwork) -> None:
    state = transfer.twin(FineTuneAll).adapt(task(0)[0], SPEC)
    assert set(state) == {"head.weight", "head.bias"} | {
        f"backbone.{name}" for name, _ in transfer.backbone.named_parameters()
    }
    assert not torch.equal(state["backbone.0.weight"], transfer.backbone[0].weight)


@pytest.mark.parametrize(
    ("spec", "cls"),
    [
        pytest.param(spec, cls, id=f"{name}-{cls.__name__}")
        for name, spec in (("permuted", SPEC), ("shared", SHARED), ("values", VALUES))
        for cls in (Transfer, Pooled, FineTuneHead, FineTuneAll, BaselinePlusPlus)
        if spec.kind in cls.kinds and spec.labels in (cls.labels if spec.classification else {spec.labels})
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_tasks_at_once_are_as_one_by_one(cls, spec, dtype, transfer, pooled) -> None:
    source = transfer if spec == SPEC else pooled[spec]
    known = defaults_of(cls, spec.kind)
    learner = source.twin(cls, **({"inner_steps": 10} if "inner_steps" in known else {})).to(dtype)
    draws = [task(seed, spec) for seed in range(3)]
    stacked = torch.utils._pytree.tree_map(
        lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, stack(draws)
    )

    def one(support: Examples, query: Examples):
        return learner.predict(learner.adapt(support, spec), query.inputs)

    with torch.no_grad():
        loop, vmap = (over_tasks(one, stacked, Plan(backend)) for backend in ("loop", "vmap"))
    assert loop[0].dtype == dtype
    # Where the support is fitted, gradients are rounding errors of the softmax, and Adam enlarges them.
    tolerance = 5e-2 if dtype == torch.float32 else 1e-8
    torch.testing.assert_close(vmap[0], loop[0], atol=tolerance, rtol=tolerance)


def test_pre_training_lifts_a_learner_before_any_meta_step() -> None:
    """Prototypes of pre-trained features tell new classes apart that prototypes of the untrained ones do not."""
    learner = PrototypicalNetwork.build(SPEC, backbone=network).eval()
    before = score(learner, SPEC)
    learner.pretrain(POOLS[SPEC], examples=EXAMPLES, seed=0)
    assert score(learner, SPEC) > before + 0.1
    assert all(parameter.requires_grad and parameter.grad is None for parameter in learner.parameters())


def test_pre_training_normalizes_by_the_batch_where_layers_wait_for_a_support() -> None:
    """With its initial statistics, such a layer would leave features of a large scale as they are."""

    def draw(generator: Generator, count: int) -> Examples:
        examples = many_classes(generator, count)
        return Examples(1e4 * examples.inputs, examples.targets)

    seen = []
    learner = MAML.build(SPEC, backbone=network)
    learner.backbone[1].register_forward_hook(lambda layer, inputs, outputs: seen.append(outputs.std().item()))
    learner.pretrain(Source(CLASSES, draw), examples=3 * BATCH, seed=0)
    assert max(seen[1:]) < 2  # the first pass only counts the features
    assert learner.backbone[1].fits is False


def test_pretraining_refuses_targets_that_would_broadcast():
    with pytest.raises(UserError, match=rf"targets.*\({BATCH}, 2\)"):
        Pooled.build(TaskSpec("regression", (D,), 2), backbone="mlp").pretrain(Source(2, shared_values), examples=BATCH)
