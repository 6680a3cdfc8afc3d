import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch.nn import functional as F

from handful.errors import UserError
from handful.functional.closed_form_heads import (
    centroids,
    cholesky,
    descended,
    inv,
    logistic,
    ridge,
    solve,
    spread,
    squared_distances,
    without_absent,
)
from handful.functional.inner_loop import SGD, descend
from handful.types import Categorical, Point


def few_shot(way: int, shot: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Support features and labels of Gaussian classes, and query features; float64."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(way, d, generator=generator, dtype=torch.float64)
    labels = torch.arange(way).repeat_interleave(shot)
    noise = torch.randn(way * shot, d, generator=generator, dtype=torch.float64)
    query = torch.randn(30, d, generator=generator, dtype=torch.float64)
    return means[labels] + noise, labels, query


def test_a_matrix_that_cannot_be_factorized_fails_alone() -> None:
    """In a batch of tasks, and with the bits of torch for the others."""
    found = torch.stack([torch.eye(3) + 0.1, torch.zeros(3, 3), torch.full((3, 3), torch.nan), -torch.eye(3)])
    values = torch.arange(6.0).reshape(3, 2)
    for ours, theirs, fails in (
        (lambda matrix: solve(matrix, values), lambda matrix: torch.linalg.solve(matrix, values), [1, 2]),
        (inv, torch.linalg.inv, [1, 2]),
        (cholesky, torch.linalg.cholesky, [1, 2, 3]),
    ):
        for place, each in enumerate(torch.func.vmap(ours)(found)):
            if place in fails:
                assert each.isnan().all()
            else:
                assert torch.equal(each, theirs(found[place]))


def test_centroids_are_class_means_and_stay_finite_for_absent_classes() -> None:
    features, labels, _ = few_shot(3, 4, 5)
    means, present = centroids(features, labels, 4)
    for label in range(3):
        torch.testing.assert_close(means[label], features[labels == label].mean(0))
    torch.testing.assert_close(means[3], features.mean(0))
    assert present.tolist() == [True, True, True, False]


def test_squared_distances_are_euclidean() -> None:
    features, _, query = few_shot(3, 4, 5)
    torch.testing.assert_close(squared_distances(query, features), torch.cdist(query, features).square())


def test_distances_are_the_same_for_one_point_and_for_stacked_tasks() -> None:
    features, _, query = few_shot(3, 4, 5)
    together = squared_distances(query, features)
    single = [squared_distances(point.unsqueeze(0), features) for point in query]
    torch.testing.assert_close(torch.cat(single), together)
    stacked = squared_distances(query.unsqueeze(1), features.expand(len(query), -1, -1))  # a task for each point
    torch.testing.assert_close(stacked.squeeze(1), together)
    pair = squared_distances(torch.stack([query, -query]), torch.stack([features, features + 1]))
    torch.testing.assert_close(pair[1], squared_distances(-query, features + 1))
    equal = features[:1].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda point: squared_distances(point, features), equal)


def test_distances_do_not_depend_on_where_zero_is() -> None:
    features, _, query = (part.float() for part in few_shot(3, 4, 5))
    far = squared_distances(query + 1e4, features + 1e4)
    torch.testing.assert_close(far, squared_distances(query, features), rtol=0.01, atol=0.01)


def test_equal_examples_have_a_spread_of_1() -> None:
    for count in (1, 3, 5, 7, 50):
        assert spread(few_shot(1, 1, 40)[0].float().repeat(count, 1)) == 1


def test_what_is_absent_is_below_all_others() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [-1e6, -1e5, -1e7]])
    found = without_absent(logits, torch.tensor([True, False, True]))
    assert found.argmax(-1).tolist() == [2, 0]
    assert found.argmin(-1).tolist() == [1, 1]
    assert torch.equal(found[:, [0, 2]], logits[:, [0, 2]])


@pytest.mark.parametrize("d", [3, 50])
def test_spread_makes_features_the_same_in_any_units(d: int) -> None:
    features, _, _ = few_shot(5, 2, d)
    moved = 1000 * features + 7
    scaled, other = features / spread(features), moved / spread(moved)
    torch.testing.assert_close(scaled - scaled.mean(0), other - other.mean(0))
    torch.testing.assert_close((scaled - scaled.mean(0)).square().sum(-1).mean(), torch.ones(()).double())
    assert spread(features[:1]) == 1  # one example has no spread, and nothing is divided by zero


@pytest.mark.parametrize("d", [3, 50])
@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_ridge_equals_scikit_learn(d: int, strength: float) -> None:
    features, labels, query = few_shot(5, 2, d)
    targets = F.one_hot(labels).double()
    weights, bias = ridge(features, targets, strength)
    reference = Ridge(alpha=strength).fit(features.numpy(), targets.numpy())
    np.testing.assert_allclose((query @ weights + bias).numpy(), reference.predict(query.numpy()), atol=1e-8)


@pytest.mark.parametrize(("way", "shot", "d"), [(5, 1, 64), (20, 1, 64), (5, 5, 64), (3, 10, 4)])
@pytest.mark.parametrize("strength", [0.01, 0.1, 1.0, 10.0, 100.0])
def test_logistic_converges_to_scikit_learn(way: int, shot: int, d: int, strength: float) -> None:
    features, labels, query = few_shot(way, shot, d)
    features, query = features / spread(features), query / spread(features)
    weights, bias = logistic(features, labels, way, strength)
    reference = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=5000).fit(features.numpy(), labels.numpy())
    ours = torch.softmax(query @ weights + bias, dim=-1).numpy()
    np.testing.assert_allclose(ours, reference.predict_proba(query.numpy()), atol=5e-3)


def test_logistic_in_single_precision_agrees_with_double() -> None:
    features, labels, query = few_shot(20, 1, 784)
    single, double = (
        torch.softmax(query.to(dtype) @ w + b, dim=-1)
        for dtype in (torch.float32, torch.float64)
        for w, b in [logistic((features / spread(features)).to(dtype), labels, 20, 0.01)]
    )
    torch.testing.assert_close(single.double(), double, atol=1e-3, rtol=0)


def test_logistic_leaves_an_absent_class_a_finite_logit_that_never_wins() -> None:
    features, labels, _ = few_shot(3, 4, 5)
    weights, bias = logistic(features, labels, 4, 0.1)
    logits = features @ weights + bias
    assert logits.isfinite().all()
    assert (logits.argmax(-1) != 3).all()


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize(("n", "d"), [(6, 20), (30, 4)], ids=["dual", "primal"])
@pytest.mark.parametrize("classes", [True, False])
def test_steps_on_a_linear_head_are_those_of_gradient_descent(n, d, classes, first_order):
    """And so are the derivatives, with respect to features, start and rates."""
    generator = torch.Generator().manual_seed(0)
    features, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((n, d), (3, d), (3,))
    )
    rates = [torch.tensor(rate, dtype=torch.float64, requires_grad=True) for rate in (0.3, 0.1)]
    targets = torch.arange(n) % 3 if classes else torch.randn(n, 3, generator=generator, dtype=torch.float64)

    def loss(head, context):
        prediction = (Categorical if classes else Point)(F.linear(context, head["weight"], head["bias"]))
        return prediction.loss(targets).mean(), {}

    start, rule = {"weight": weight, "bias": bias}, SGD({"weight": rates[0], "bias": rates[1]})
    expected, _ = descend(loss, start, features, rule=rule, steps=4, first_order=first_order)
    own = descended(features, targets, weight, bias, rates=tuple(rates), steps=4, first_order=first_order)
    for a, b in zip(own, expected.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    inputs = [features, weight, bias, *rates]
    slopes = [
        torch.autograd.grad(result[0].sin().sum() + result[1].square().sum(), inputs, materialize_grads=True)
        for result in (own, list(expected.values()))
    ]
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_descended_refuses_targets_that_would_broadcast():
    features, weight, bias = torch.ones(4, 3), torch.zeros(2, 3), torch.zeros(2)
    for targets in (torch.ones(4, 1), torch.ones(1, 2)):
        with pytest.raises(UserError, match=r"targets.*\(4, 2\)"):
            descended(features, targets, weight, bias, rates=(0.1, 0.1), steps=2)
