"""Addressing, reading and writing against NumPy, slot by slot."""

import numpy as np
import pytest
import torch

from handful.learners.external_memory import addressed, empty, least_used, read, similarities, write


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_similarity_is_the_cosine_and_zero_for_an_empty_row():
    rows, keys = random(5, 3), random(2, 3, seed=1)
    rows[4] = 0
    expected = np.zeros((2, 5))
    for head in range(2):
        for slot in range(4):
            row, key = rows[slot].numpy(), keys[head].numpy()
            expected[head, slot] = row @ key / np.linalg.norm(row) / np.linalg.norm(key)
    torch.testing.assert_close(similarities(rows, keys), torch.from_numpy(expected))


def test_weights_are_a_softmax_of_sharpened_similarities():
    rows, keys = random(5, 3), random(2, 3, seed=1)
    raised = np.exp(7 * similarities(rows, keys).numpy())
    torch.testing.assert_close(addressed(rows, keys, 7.0), torch.from_numpy(raised / raised.sum(1, keepdims=True)))


def test_a_stored_row_is_found_by_a_part_of_it():
    memory = empty(8, 6, 1, random(1))
    stored = random(3, 6)
    for row in stored:
        memory = write(memory, row.unsqueeze(0), 0.0, 0.95)
    partly = stored[1].clone()
    partly[4:] = 0
    found, _ = read(memory, partly.unsqueeze(0), 50.0)
    torch.testing.assert_close(found[0], stored[1], atol=1e-3, rtol=0)


def test_an_empty_memory_is_filled_from_the_first_slot_and_then_from_the_one_used_least():
    memory = empty(3, 2, 1, random(1))
    for turn in range(3):
        memory = write(memory, torch.full((1, 2), turn + 1.0, dtype=torch.float64), 0.0, 0.9)
    assert memory.rows[:, 0].tolist() == [1, 2, 3]
    _, memory = read(memory, memory.rows[:1] * torch.tensor([1.0, -1.0]), 0.0)  # sharpness 0: all alike
    memory = write(memory, torch.full((1, 2), 9.0, dtype=torch.float64), 0.0, 0.9)
    assert memory.rows[:, 0].tolist() == [9, 2, 3], "the oldest is wiped and written to"


def test_steps_are_those_of_least_recently_used_access_in_numpy():
    heads, slots, size, decay, gate, sharpness = 2, 4, 3, 0.8, 0.3, 5.0
    memory = empty(slots, size, heads, random(1))
    rows, usage, reads = (part.numpy().copy() for part in memory)
    for turn in range(6):
        keys = random(heads, size, seed=turn)
        memory = write(memory, keys, gate, decay)
        found, memory = read(memory, keys, sharpness)

        k = keys.numpy()
        free = np.argsort(usage)[:heads]
        weights = gate * reads
        weights[np.arange(heads), free] += 1 - gate
        rows[free] = 0
        rows = rows + np.einsum("hs,hd->sd", weights, k)
        norms = np.linalg.norm(rows, axis=1)
        cosine = k @ rows.T / np.linalg.norm(k, axis=1)[:, None] / np.where(norms > 0, norms, 1)
        reads = np.exp(sharpness * cosine)
        reads /= reads.sum(1, keepdims=True)
        usage = decay * usage + weights.sum(0) + reads.sum(0)

        for got, expected in zip((*memory, found), (rows, usage, reads, reads @ rows), strict=True):
            torch.testing.assert_close(got, torch.from_numpy(expected))


def test_the_slots_used_least_are_one_for_each_head():
    usage = torch.tensor([0.5, 0.1, 0.9, 0.2])
    assert least_used(usage, 2).tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("batched", [False, True])
def test_the_gradient_through_write_and_read_is_finite_and_right(batched):
    stored, wanted = random(2, 1, 3), random(1, 3, seed=5)

    def total(scale):
        memory = empty(4, 3, 1, scale)
        for row in stored:
            memory = write(memory, scale * row + 1, 0.2, 0.9)
            found, memory = read(memory, wanted, 3.0)
        return found.square().sum()

    scales = torch.tensor([0.5, 2.0], dtype=torch.float64)
    slope = torch.func.grad(total)
    slopes = torch.func.vmap(slope)(scales) if batched else torch.stack([slope(scale) for scale in scales])
    measured = torch.stack([(total(s + 1e-6) - total(s - 1e-6)) / 2e-6 for s in scales])
    torch.testing.assert_close(slopes, measured, rtol=1e-6, atol=1e-8)
