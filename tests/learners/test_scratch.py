"""Training from scratch: deterministic, augmented, better than guessing."""

import pytest
import torch

from handful.engine.over_tasks import over_tasks
from handful.engine.plan import Plan
from handful.learners.scratch import FromScratch
from handful.storage import digest_of
from handful.types import Examples, Task, TaskSpec, stack

IMAGES = TaskSpec("classification", (1, 16, 16), 3)
ROWS = TaskSpec("classification", (4,), 3)
VALUES = TaskSpec("regression", (2,), 1)
SMALL = {"backbone": "conv4", "backbone_options": {"widths": (8, 8, 8)}}


def images(seed: int) -> Task:
    """Three coarse patterns, in new places in each image."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(3, 1, 4, 4, generator=generator).round()
    patterns = torch.nn.functional.interpolate(patterns, scale_factor=3)

    def examples(shot: int) -> Examples:
        labels = torch.arange(3).repeat_interleave(shot)
        canvas = torch.zeros(len(labels), 1, 16, 16)
        for index, label in enumerate(labels):
            x, y = torch.randint(1, 4, (2,), generator=generator)
            canvas[index, :, y : y + 12, x : x + 12] = patterns[label]
        return Examples(canvas, labels)

    return Task(examples(1), examples(5))


def rows(seed: int) -> Task:
    generator = torch.Generator().manual_seed(seed)
    means = 2 * torch.randn(3, 4, generator=generator)

    def examples(shot: int) -> Examples:
        labels = torch.arange(3).repeat_interleave(shot)
        return Examples(means[labels] + torch.randn(len(labels), 4, generator=generator), labels)

    return Task(examples(3), examples(10))


def values(seed: int) -> Task:
    generator = torch.Generator().manual_seed(seed)
    slope = torch.randn(2, 1, generator=generator)

    def examples(count: int) -> Examples:
        inputs = torch.randn(count, 2, generator=generator)
        return Examples(inputs, inputs @ slope + 5)

    return Task(examples(10), examples(20))


CASES = {"images": (IMAGES, images, SMALL), "rows": (ROWS, rows, {}), "values": (VALUES, values, {})}


@pytest.mark.parametrize("case", CASES)
def test_it_beats_guessing(case: str) -> None:
    spec, draw, network = CASES[case]
    learner = FromScratch.build(spec, **network).eval()
    scores, guesses = [], []
    with torch.no_grad():
        for seed in range(4):
            task = draw(seed)
            prediction = learner.predict(learner.adapt(task.support, spec), task.query.inputs)
            if spec.classification:
                scores.append((prediction.logits.argmax(-1) == task.query.targets).float().mean())
                guesses.append(torch.tensor(1 / 3))
            else:
                scores.append(-prediction.loss(task.query.targets).mean())
                guesses.append(-(task.query.targets - task.support.targets.mean(0)).square().mean())
    score, guess = torch.stack(scores).mean(), torch.stack(guesses).mean()
    assert score > guess + 0.2 if spec.classification else score > 0.5 * guess


def test_it_is_deterministic_and_keeps_nothing() -> None:
    learner, again, other = (FromScratch.build(IMAGES, **SMALL, seed=seed, inner_steps=3) for seed in (0, 0, 1))
    task = images(0)
    before, chance = digest_of(learner.state_dict()), torch.get_rng_state()
    states = [one.adapt(task.support, IMAGES) for one in (learner, learner, again, other)]
    digests = [digest_of(state["weights"] | state["statistics"]) for state in states]
    assert digests[0] == digests[1] == digests[2] != digests[3]
    assert digest_of(learner.state_dict()) == before
    assert torch.equal(torch.get_rng_state(), chance)
    assert not any(parameter.requires_grad for parameter in learner.parameters())


@pytest.mark.parametrize("case", CASES)
def test_many_tasks_at_once_are_as_one_by_one(case: str) -> None:
    spec, draw, network = CASES[case]
    learner = FromScratch.build(spec, **network, inner_steps=4, copies=2).double().eval()
    tasks = torch.utils._pytree.tree_map(
        lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, stack([draw(seed) for seed in range(2)])
    )

    def one(task: Task):
        return learner.predict(learner.adapt(task.support, spec), task.query.inputs)

    with torch.no_grad():
        loop, vmap = (over_tasks(one, (tasks,), Plan(backend)) for backend in ("loop", "vmap"))
    torch.testing.assert_close(vmap[0], loop[0], atol=1e-6, rtol=1e-6)


def test_the_state_holds_the_network_and_its_statistics() -> None:
    learner = FromScratch.build(IMAGES, **SMALL, inner_steps=2)
    state = learner.adapt(images(0).support, IMAGES)
    assert {"head.weight", "head.bias", "backbone.convolutions.0.weight"} <= set(state["weights"])
    assert {"backbone.normalizations.0.mean", "backbone.normalizations.0.variance"} <= set(state["statistics"])
    assert not any(value.requires_grad for part in state.values() for value in part.values())


def test_copies_differ_from_step_to_step() -> None:
    learner = FromScratch.build(IMAGES, **SMALL, copies=4)
    support = images(0).support
    shown = [learner._show(support.inputs, step) for step in (0, 0, 1)]
    assert shown[0].shape == (12, 1, 16, 16)
    assert torch.equal(shown[0], shown[1])
    assert not torch.allclose(shown[0], shown[2])


def test_rows_are_shown_as_they_are() -> None:
    learner = FromScratch.build(ROWS)
    inputs = rows(0).support.inputs
    assert learner._show(inputs, 3) is inputs
