"""The in-context transformer against a masked transformer over the whole sequence."""

import pytest
import torch
from torch.nn import functional as F

from contracts.problems import ROWS, VALUES
from handful.errors import UserError
from handful.evaluation.scoring import evaluate
from handful.learners.in_context import InContextTransformer
from handful.tasks.sine import Sine
from handful.training.loop import meta_train
from handful.types import Examples


@pytest.mark.parametrize("problem", [ROWS, VALUES], ids=str)
def test_the_order_of_the_support_means_nothing(problem):
    learner, task = problem.learner(InContextTransformer), problem.task()
    order = torch.randperm(len(task.support.inputs), generator=torch.Generator().manual_seed(1))
    shuffled = Examples(*(part[order] for part in task.support))
    first, second = (
        learner.predict(learner.adapt(support, problem.spec), task.query.inputs) for support in (task.support, shuffled)
    )
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b)


def test_answers_are_those_of_one_masked_pass_over_support_and_queries():
    """All tokens attend to the support's: written out with PyTorch's own attention."""
    learner = VALUES.learner(InContextTransformer, layers=3, heads=2)
    support, query = torch.randn(2, 5, learner.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state = learner.read(support)
    tokens, seen = torch.cat([support, query]), torch.arange(10) < 5

    def heads(rows):
        return rows.view(10, 2, -1).transpose(0, 1)

    for layer in learner.layers:
        rows, attention = layer.attention_norm(tokens), layer.attention
        projected = [heads(p(rows)) for p in (attention.query_proj, attention.key_proj, attention.value_proj)]
        found = F.scaled_dot_product_attention(*projected, attn_mask=seen.expand(10, 10)).transpose(0, 1)
        tokens = tokens + attention.out_proj(found.reshape(10, -1))
        tokens = tokens + layer.outer(F.gelu(layer.inner(layer.network_norm(tokens))))
    expected = learner.last(learner.norm(tokens[5:]))
    torch.testing.assert_close(learner.reply(state, query), expected)


@pytest.mark.slow
def test_a_short_training_learns_sine_waves():
    waves = Sine().with_sizes(shot=10, query_shot=20)
    learner = InContextTransformer.build(waves.spec, backbone="mlp")
    before = evaluate(learner, waves.split("test"), tasks=50).score.mean
    meta_train(learner, waves, steps=150, meta_batch_size=16, validation_tasks=20, plan="vmap")
    after = evaluate(learner, waves.split("test"), tasks=50).score.mean
    assert after < 0.6 * before


def test_options_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="layers"):
        ROWS.learner(InContextTransformer, layers=0)
    with pytest.raises(UserError, match="heads"):
        ROWS.learner(InContextTransformer, heads=5)
