"""The memory-augmented network against PyTorch's LSTM cell and a memory in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from contracts.problems import ROWS, VALUES
from contracts.test_learners import meta_train, scores
from handful.errors import UserError
from handful.learners.mann import MemoryAugmentedNetwork


def tokens_of(learner, count, seed=0):
    return torch.randn(count, learner.width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def native(learner):
    """PyTorch's cell with the learner's weights; its gates are in the same order, its forget gate has the bias."""
    cell = nn.LSTMCell(learner.width, learner.width, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_ih.copy_(learner.gates.weight[:, : learner.width])
        cell.weight_hh.copy_(learner.gates.weight[:, learner.width :])
        cell.bias_ih.copy_(learner.gates.bias)
        cell.bias_hh.zero_()
        cell.bias_hh[learner.width : 2 * learner.width] = 1
    return cell


@pytest.mark.parametrize("heads", [1, 2])
def test_reading_the_support_is_an_lstm_that_writes_each_example_to_the_slot_used_least(heads):
    learner = VALUES.learner(MemoryAugmentedNetwork, width=8, slots=6, heads=heads)
    tokens, cell = tokens_of(learner, 5), native(learner)
    sharpness, gate = learner.addressing["log_sharpness"].exp().item(), learner.addressing["gate"].sigmoid().item()
    hidden = state = torch.zeros(1, 8, dtype=torch.float64)
    rows, usage, reads = np.zeros((6, 8)), 1e-3 * np.arange(6) / 6, np.zeros((heads, 6))
    with torch.no_grad():
        for token in tokens:
            hidden, state = cell(token.unsqueeze(0), (hidden, state))
            keys = (learner.of_tokens(token) + learner.of_hidden(hidden[0])).view(heads, 8).numpy()
            free = np.argsort(usage)[:heads]
            weights = gate * reads
            weights[np.arange(heads), free] += 1 - gate
            rows[free] = 0
            rows = rows + weights.T @ keys
            norms = np.linalg.norm(rows, axis=1)
            cosine = keys @ rows.T / np.linalg.norm(keys, axis=1)[:, None] / np.where(norms > 0, norms, 1)
            reads = np.exp(sharpness * cosine)
            reads /= reads.sum(1, keepdims=True)
            usage = 0.95 * usage + weights.sum(0) + reads.sum(0)
        kept = learner.read(tokens)
    torch.testing.assert_close(kept["rows"], torch.from_numpy(rows))
    torch.testing.assert_close(kept["hidden"], hidden[0])
    torch.testing.assert_close(kept["cell"], state[0])


def test_more_examples_than_slots_overwrite_the_oldest():
    learner = ROWS.learner(MemoryAugmentedNetwork, slots=4)
    with torch.no_grad():
        learner.of_hidden.weight.zero_()
        learner.of_hidden.bias.zero_()
        learner.addressing["gate"].fill_(-50)  # never to the slot read last
        tokens = tokens_of(learner, 10)
        rows = learner.read(tokens)["rows"]
        written = learner.of_tokens(tokens)
    distances = torch.cdist(rows, written)
    assert distances.min(1).values.max() < 1e-9, "each row is one example"
    assert 9 in distances.argmin(1), "the newest is there"
    assert 0 not in distances.argmin(1), "the first is not"


def test_it_learns_new_tasks_better_than_it_starts():
    learner, tasks = VALUES.learner(MemoryAugmentedNetwork), VALUES.tasks(40, seed=10_000)
    before = scores(learner, tasks, VALUES).mean()
    meta_train(learner, VALUES, steps=40)
    assert scores(learner, tasks, VALUES).mean() > 0.6 * before  # scores are negative errors


def test_options_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="slots"):
        ROWS.learner(MemoryAugmentedNetwork, slots=2, heads=3)
