"""Neural processes: functions of a set, that learn to predict and to say how sure they are."""

import pytest
import torch

from handful import evaluate, meta_train
from handful.evaluation.intervals import interval
from handful.learners.neural_processes import AttentiveNeuralProcess, ConditionalNeuralProcess
from handful.tasks.gaussian_process import GaussianProcess
from handful.types import Examples, TaskSpec

SPEC = TaskSpec("regression", (3,), 2)
BOTH = pytest.mark.parametrize("cls", [ConditionalNeuralProcess, AttentiveNeuralProcess])


def made(cls, **options):
    return cls.build(SPEC, **options).double().eval()


def examples(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Examples(*(torch.randn(count, size, generator=generator, dtype=torch.float64) for size in (3, 2)))


def predicted(learner, support, inputs):
    return learner.predict(learner.adapt(support, SPEC), inputs)


@BOTH
def test_the_order_of_examples_does_not_matter(cls):
    learner, support, query = made(cls), examples(7), examples(5, seed=1).inputs
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(order, torch.arange(7))
    one, other = predicted(learner, support, query), predicted(learner, Examples(*(p[order] for p in support)), query)
    torch.testing.assert_close(one, other)
    changed = predicted(learner, support._replace(targets=support.targets[order]), query)
    assert not torch.allclose(one.mean, changed.mean), "which target belongs to which input does matter"


def test_the_code_is_the_mean_of_those_of_the_examples():
    learner, support = made(ConditionalNeuralProcess), examples(6)
    alone = [learner.adapt(Examples(*(p[i : i + 1] for p in support)), SPEC)["code"] for i in range(6)]
    torch.testing.assert_close(learner.adapt(support, SPEC)["code"], torch.stack(alone).mean(0))
    twice = Examples(*(part.repeat(2, 1) for part in support))
    query = examples(5, seed=1).inputs
    torch.testing.assert_close(predicted(learner, twice, query), predicted(learner, support, query))
    assert learner.adapt(twice, SPEC)["code"].shape == (128,), "a state does not grow with the support"


def test_attention_looks_at_the_examples_near_the_query():
    """With keys as long as this, all of it is at the example that is there: the others could as well be missing."""
    learner, support = made(AttentiveNeuralProcess, backbone="raw"), examples(6)
    with torch.no_grad():
        learner.among_examples.out_proj.weight.zero_()  # examples look at themselves only
        # In each of four heads the product of two inputs of length 1, which is largest for equal ones.
        learner.to_keys.weight.copy_(torch.cat([50 * torch.eye(16, 3)] * 4))
        for projection in (learner.to_examples.query_proj, learner.to_examples.key_proj):
            projection.weight.copy_(torch.eye(64))
    far = support._replace(inputs=support.inputs / support.inputs.norm(dim=-1, keepdim=True))
    for index in range(6):
        only = Examples(*(part[index : index + 1] for part in far))
        torch.testing.assert_close(predicted(learner, far, only.inputs), predicted(learner, only, only.inputs))


@BOTH
def test_no_deviation_is_below_the_smallest(cls):
    learner = made(cls, smallest_deviation=0.25)
    with torch.no_grad():
        learner.decoder[-1].bias[2:] = -100.0
    variance = predicted(learner, examples(4), examples(9, seed=1).inputs).variance
    torch.testing.assert_close(variance, torch.full_like(variance, 0.0625))


@BOTH
def test_a_short_training_comes_nearer_to_the_best_prediction(cls):
    tasks = GaussianProcess().with_sizes(shot=20, query_shot=20)
    learner = cls.build(tasks.spec)
    before = evaluate(learner, tasks.split("val"), tasks=100)
    meta_train(learner, tasks, steps=100, meta_batch_size=8, outer_lr=0.003, validation_tasks=2, plan="vmap")
    after = evaluate(learner, tasks.split("val"), tasks=100)
    assert interval(after.log_likelihoods - before.log_likelihoods).low > 0
    assert after.likelihood_gap.low > 0, "nothing is better than the oracle"
    assert after.score.mean < before.score.mean
