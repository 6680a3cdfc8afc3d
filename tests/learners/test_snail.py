"""SNAIL: no column sees a later one, and the cached columns give what the whole sequence gives."""

import math

import pytest
import torch

from contracts.problems import ROWS, VALUES
from handful.learners.snail import SNAIL


def whole(learner, tokens):
    """The network over a whole sequence whose last token is a query, position by position and without any cache."""
    count = len(tokens)
    for block in learner.blocks:
        added = []
        if hasattr(block, "query_proj"):
            rows = block.norm(tokens)
            for place in range(count):
                seen = rows[: min(place + 1, count - 1)]  # the query does not see itself
                scores = block.key_proj(seen) @ block.query_proj(rows[place]) / math.sqrt(learner.width)
                added.append(scores.softmax(0) @ block.value_proj(seen))
        else:
            for place in range(count):
                back = place - block.dilation
                before = tokens[back] if back >= 0 else torch.zeros_like(tokens[0])
                values, gates = block.linear(torch.cat([tokens[place], before])).chunk(2)
                added.append(values.tanh() * gates.sigmoid())
        tokens = torch.cat([tokens, torch.stack(added)], -1)
    return learner.last(learner.norm(tokens[-1]))


@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_query_after_the_cached_support_is_the_last_column_of_the_whole_sequence(count):
    learner = VALUES.learner(SNAIL, width=8, filters=3, reach=8)
    generator = torch.Generator().manual_seed(count)
    support, queries = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (count, 3))
    replies = learner.reply(learner.read(support), queries)
    for query, reply in zip(queries, replies, strict=True):
        torch.testing.assert_close(reply, whole(learner, torch.cat([support, query.unsqueeze(0)])))


def test_no_column_sees_a_later_one():
    learner = VALUES.learner(SNAIL)
    tokens = torch.randn(7, learner.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens.requires_grad_()
    columns = tokens
    for block in learner.blocks:
        columns, _ = block.read(columns)
    for place in range(7):
        (slopes,) = torch.autograd.grad(columns[place].sum(), tokens, retain_graph=True)
        reached = slopes.abs().sum(-1) > 0
        assert reached.tolist() == [other <= place for other in range(7)]


def test_supports_longer_than_the_reach_still_count_from_their_first_example():
    learner = ROWS.learner(SNAIL, reach=2)
    tokens = torch.randn(30, learner.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    query = tokens[:1] * 0.5
    other = torch.cat([-tokens[:1], tokens[1:]])
    first, second = (learner.reply(learner.read(support), query) for support in (tokens, other))
    assert (first - second).abs().max() > 1e-3


def test_dilations_double_up_to_the_reach():
    learner = ROWS.learner(SNAIL, reach=10)
    dilations = [block.dilation for block in learner.blocks if hasattr(block, "dilation")]
    assert dilations == 2 * [1, 2, 4, 8]
