"""Limited-memory BFGS against the dense recursion, and on functions whose minimum is known."""

from itertools import pairwise

import pytest
import torch

from handful.functional.inner_loop import SGD
from handful.functional.lbfgs import LBFGS, Secants, shortened

HESSIAN = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)


def looks(count, dimensions=3, seed=0):
    """Weights and gradients along a random walk over the quadratic function of `HESSIAN`."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, dimensions, generator=generator, dtype=torch.float64)
    return [(row, HESSIAN @ row) for row in rows]


def seen(places, pairs):
    secants = Secants.of(places[0][0], pairs)._replace(slope=places[0][1])
    for row, slope in places[1:]:
        secants = secants.grown(row, slope)
    return secants


def dense(places, pairs):
    """The inverse Hessian by the recursion of BFGS over the last pairs."""
    moves = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(places)][-pairs:]
    move, change = moves[-1]
    inverse = (move @ change) / (change @ change) * torch.eye(len(move), dtype=torch.float64)
    for move, change in moves:
        product = move @ change
        left = torch.eye(len(move), dtype=torch.float64) - torch.outer(move, change) / product
        inverse = left @ inverse @ left.mT + torch.outer(move, move) / product
    return inverse


@pytest.mark.parametrize("pairs", [1, 2, 5])
def test_it_is_the_dense_recursion(pairs):
    places, slope = looks(5), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(seen(places, pairs).direction(slope), dense(places, pairs) @ slope)


def test_what_it_saw_last_it_knows():
    """The secant equation: the last change of the gradient is undone by the last move."""
    places = looks(4)
    (before, slope_before), (after, slope_after) = places[-2:]
    torch.testing.assert_close(seen(places, 3).direction(slope_after - slope_before), after - before)


def test_without_a_pair_it_has_no_direction():
    assert not Secants.of(torch.ones(3), 4).direction(torch.ones(3)).any()


def test_a_move_along_which_the_loss_is_not_convex_or_nothing_moved_is_left_out():
    places = looks(3)
    known = seen(places, 4)
    row, slope = places[-1]
    concave = known.grown(row + 1, slope - 1)
    torch.testing.assert_close(concave.moves, known.moves)
    torch.testing.assert_close(known.grown(row, slope).changes, known.changes)
    torch.testing.assert_close(concave.row, row + 1)


def test_it_does_not_depend_on_the_unit_of_the_loss():
    places, slope = looks(4), torch.ones(3, dtype=torch.float64)
    for unit in (1e-12, 1e12):
        other = [(row, unit * slope) for row, slope in places]
        torch.testing.assert_close(seen(other, 3).direction(unit * slope), seen(places, 3).direction(slope))


def test_it_can_be_differentiated_and_mapped():
    rows = torch.stack([row for row, _ in looks(4)])

    def direction(rows):
        return seen([(row, HESSIAN @ row + row**3) for row in rows], 2).direction(torch.ones_like(rows[0]))

    assert torch.autograd.gradcheck(direction, rows.clone().requires_grad_())
    batch = torch.stack([rows, rows.flip(0)])
    torch.testing.assert_close(torch.func.vmap(direction)(batch), torch.stack([direction(rows) for rows in batch]))


def test_shortened_keeps_short_ones_and_bounds_long_ones():
    short, long = torch.full((4,), 1e-3), torch.full((4,), 1e3)
    torch.testing.assert_close(shortened(short, 1.0), short, rtol=1e-5, atol=0)
    torch.testing.assert_close(shortened(long, 1.0), torch.ones(4), rtol=1e-5, atol=0)
    torch.testing.assert_close(shortened(1e30 * long, 1.0), torch.ones(4), rtol=1e-5, atol=0)
    assert not shortened(torch.zeros(4), 1.0).any()


def test_in_a_ravine_it_is_far_ahead_of_gradient_descent():
    """The quadratic function's condition number is 1,000; gradient descent has its best fixed rate."""
    steep = torch.logspace(0, 3, 8, dtype=torch.float64)
    reached = {}
    steep = 1e-9 * steep  # in whatever unit
    for name, rule in (("bfgs", LBFGS(1.0, 8)), ("descent", SGD(2e9 / 1001))):
        weights = {"w": torch.ones(8, dtype=torch.float64)}
        state = rule.start(weights)
        for _ in range(40):
            weights, state = rule.step(weights, {"w": steep * weights["w"]}, state)
        reached[name] = float((steep * weights["w"].square()).sum())
    assert reached["bfgs"] < 1e-4 * reached["descent"]


@pytest.mark.parametrize("size", [1e-8, 1e-12, 1e-16, 1e-20])
def test_gradients_that_all_but_vanish_leave_finite_derivatives(size):
    """A classifier that is sure of all its examples: the loss is at its floor, and flat."""
    row = torch.ones(4, requires_grad=True)
    secants = Secants.of(row, 2).grown(row, size * row).grown(2 * row, 2 * size * row)
    direction = secants.direction(2 * size * row)
    (derivative,) = torch.autograd.grad(direction.sum(), row)
    assert direction.isfinite().all()
    assert derivative.isfinite().all()
