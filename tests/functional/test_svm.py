"""The support vector machine against other solvers, and its derivative against differences."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.svm import LinearSVC

from functional.test_closed_form_heads import few_shot
from handful.functional.svm import multiclass_svm


@pytest.mark.parametrize(("way", "shot", "d"), [(5, 1, 64), (5, 5, 64), (3, 10, 4)])
@pytest.mark.parametrize("penalty", [0.001, 0.1, 1.0])
def test_the_svm_equals_scikit_learn(way: int, shot: int, d: int, penalty: float) -> None:
    features, labels, query = few_shot(way, shot, d)
    weights, bias = multiclass_svm(features, labels, way, penalty)
    reference = LinearSVC(multi_class="crammer_singer", C=penalty, tol=1e-7, max_iter=10**6, random_state=0)
    reference.fit(features.numpy(), labels.numpy())
    scores = (query @ weights + bias).numpy()
    np.testing.assert_allclose(scores, reference.decision_function(query.numpy()), rtol=0, atol=2e-3)


@pytest.mark.parametrize("penalty", [0.05, 0.5, 5.0])
def test_the_svm_is_the_optimum_of_the_primal_problem(penalty: float) -> None:
    """As SciPy finds it, with the margin errors as variables and a class without examples."""
    features, labels, _ = few_shot(3, 3, 2, seed=1)
    x, n, way = np.pad(features.numpy(), ((0, 0), (0, 1)), constant_values=1), len(features), 4
    other = np.arange(way) != labels.numpy()[:, None]

    def room(variables: np.ndarray) -> np.ndarray:
        scores = x @ variables[n:].reshape(3, way)
        own = np.take_along_axis(scores, labels.numpy()[:, None], 1)
        return (variables[:n, None] + own - scores - 1)[other]

    reference = minimize(
        lambda v: v[n:] @ v[n:] / 2 / penalty + v[:n].sum(),
        np.concatenate([np.ones(n), np.zeros(3 * way)]),
        jac=lambda v: np.concatenate([np.ones(n), v[n:] / penalty]),
        bounds=[(0, None)] * n + [(None, None)] * 3 * way,
        constraints={"type": "ineq", "fun": room},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert reference.success
    weights, bias = multiclass_svm(features, labels, way, penalty)
    np.testing.assert_allclose(torch.cat([weights, bias.unsqueeze(0)]), reference.x[n:].reshape(3, way), atol=2e-4)


@pytest.mark.parametrize("penalty", [0.03, 0.3, 3.0])
def test_two_opposite_examples_have_the_margin_of_a_formula(penalty: float) -> None:
    """v^2 + 2 penalty max(0, 1 - 2v), where the classes' weights are v and -v."""
    weights, bias = multiclass_svm(torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([0, 1]), 2, penalty)
    expected = min(2 * penalty, 0.5)
    torch.testing.assert_close(weights, torch.tensor([[expected, -expected]]).double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bias, torch.zeros(2).double())


@pytest.mark.parametrize(("way", "shot", "d"), [(4, 1, 4), (3, 2, 4), (3, 6, 2)])
@pytest.mark.parametrize("penalty", [0.02, 1.0])
def test_the_derivative_of_the_svm_is_that_of_its_optimum(way: int, shot: int, d: int, penalty: float) -> None:
    features, labels, query = few_shot(way, shot, d)

    def answers(inputs: torch.Tensor) -> torch.Tensor:
        weights, bias = multiclass_svm(inputs, labels, way, penalty)
        return query[:3] @ weights + bias

    assert torch.autograd.gradcheck(answers, features.requires_grad_(), eps=1e-7, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("features", "labels", "way"),
    [
        (torch.zeros(6, 3), [0, 0, 1, 1, 2, 2], 3),
        (torch.ones(6, 3), [0, 1, 2, 0, 1, 1], 3),
        (torch.eye(4), [0, 1, 2, 3], 4),
        (torch.eye(3).repeat(4, 1), [0, 1, 2] * 4, 5),
        (torch.eye(3), [1, 1, 1], 3),
        (torch.eye(3), [0, 0, 0], 1),
        (torch.ones(1, 2), [1], 2),
        (1e4 * torch.eye(3).repeat(2, 1), [0, 1, 2, 2, 1, 0], 3),
    ],
    ids=["zero", "contradictory", "one each", "duplicates", "one class", "one output", "one example", "large"],
)
def test_the_svm_and_its_derivative_are_finite_where_the_optimum_is_degenerate(features, labels, way, dtype):
    features = features.to(dtype, copy=True).requires_grad_()
    weights, bias = multiclass_svm(features, torch.tensor(labels), way, 1.0)
    (slopes,) = torch.autograd.grad(weights.sin().sum() + bias.square().sum(), features)
    assert weights.dtype == dtype
    assert all(tensor.isfinite().all() for tensor in (weights, bias, slopes))
    if features.shape == (12, 3):  # twice the examples at half the penalty are the same problem
        again = multiclass_svm(features[:6], torch.tensor(labels[:6]), way, 2.0)
        torch.testing.assert_close((weights, bias), again, rtol=1e-4, atol=1e-4)
