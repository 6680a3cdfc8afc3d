"""Boosted trees as tensors: the numbers of scikit-learn, and no others."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from handful.functional.trees import constant, fitted, scores


def rows(n=300, d=4, *, seed=0, missing=0.2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, d, generator=generator, dtype=dtype)
    inputs[torch.rand(n, d, generator=generator) < missing] = torch.nan
    return inputs, torch.rand(n, generator=generator, dtype=dtype)


def surface(inputs, noise):
    """Steep, so that trees grow deep on one side, and missing values tell something."""
    x = inputs.nan_to_num(2.0)
    return torch.exp(2 * x[:, 0]) + x[:, 1] * x[:, 2] + noise


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("n", [15, 600])
def test_values_are_those_of_scikit_learn(n, missing):
    inputs, noise = rows(n, missing=missing)
    targets = torch.stack([surface(inputs, noise), noise], 1)
    trees = fitted(inputs, targets, outputs=2, classification=False)
    new, _ = rows(500, seed=1, missing=missing)
    found = scores(trees, new)
    for output in range(2):
        theirs = HistGradientBoostingRegressor(random_state=0).fit(inputs.numpy(), targets[:, output].numpy())
        expected = torch.from_numpy(theirs.predict(new.numpy()))
        torch.testing.assert_close(found[:, output], expected, rtol=1e-12, atol=1e-12)
    assert n < 600 or int(trees.depth) > 4, "deep enough to tell anything"


def test_thresholds_are_compared_in_double_precision():
    """With a threshold between two neighbors of single precision, and rows that are equal to it."""
    low = np.float32(1.0)
    inputs = torch.tensor([[low], [np.nextafter(low, np.float32(2))]]).repeat(50, 1)
    targets = torch.tensor([[0.0], [1.0]]).repeat(50, 1)
    trees = fitted(inputs, targets, outputs=1, classification=False)
    found = scores(trees, inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, targets, atol=1e-3, rtol=0)
    middle = (inputs[0].double() + inputs[1].double()) / 2
    assert float(scores(trees, middle[None])) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("classes", [2, 4])
def test_logits_are_those_of_scikit_learn(classes):
    inputs, noise = rows(300)
    targets = torch.bucketize(surface(inputs, noise), torch.tensor([0.8, 1.5, 3.0][: classes - 1], dtype=torch.float64))
    found = scores(fitted(inputs, targets, outputs=classes, classification=True), inputs)
    theirs = HistGradientBoostingClassifier(random_state=0).fit(inputs.numpy(), targets.numpy())
    expected = torch.from_numpy(theirs.decision_function(inputs.numpy()))
    if classes == 2:
        expected = torch.stack([torch.zeros_like(expected), expected], 1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("present", [[1], [0, 2], [0, 1, 3]])
def test_classes_that_no_row_has_are_the_least_likely(present):
    inputs, _ = rows(120, missing=0)
    place = torch.bucketize(inputs[:, 0].contiguous(), torch.tensor([-0.5, 0.5], dtype=torch.float64)).clamp_max(
        len(present) - 1
    )
    targets = torch.tensor(present)[place]
    found = scores(fitted(inputs, targets, outputs=4, classification=True), inputs)
    assert found.isfinite().all()
    assert (found.argmax(1) == targets).double().mean() > 0.95
    absent = [number for number in range(4) if number not in present]
    assert (found.softmax(1)[:, absent] < 0.05).all()


def test_batched_over_tasks_and_many_rows_they_are_the_same():
    inputs, noise = rows(4200, dtype=torch.float32)
    trees = fitted(inputs[:200], surface(inputs, noise)[:200, None], outputs=1, classification=False)
    whole = scores(trees, inputs)
    tasks = torch.func.vmap(lambda some: scores(trees, some))(inputs.reshape(10, 420, 4))
    torch.testing.assert_close(tasks.reshape(-1, 1), whole)
    torch.testing.assert_close(torch.cat([scores(trees, row[None]) for row in inputs[4190:]]), whole[4190:])


def test_before_they_are_fitted_they_are_constant():
    found = scores(constant(torch.tensor([1.0, -2.0])), torch.full((3, 4), torch.nan))
    assert torch.equal(found, torch.tensor([[1.0, -2.0]]).repeat(3, 1))
    assert scores(constant(torch.zeros(2)), torch.zeros(0, 4)).shape == (0, 2)
