"""The example in plain PyTorch is what it claims to be."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Generator
from torch.func import grad, vmap

PATH = Path(__file__).parents[2] / "examples" / "maml.py"


@pytest.fixture(scope="module")
def maml():
    spec = importlib.util.spec_from_file_location("maml_example", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(maml, seed=0):
    """Weights and one task, in float64."""
    weights = [w.double() for w in maml.start(Generator().manual_seed(seed))]
    x, y = maml.sines(1, Generator().manual_seed(seed + 1))
    return weights, x[0].double(), y[0].double()


def measured_slope(function, weights, direction, size=1e-6):
    moved = [function([w + s * size * d for w, d in zip(weights, direction, strict=True)]) for s in (1, -1)]
    return float(moved[0] - moved[1]) / (2 * size)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_meta_gradient_is_the_derivative_of_the_meta_loss(maml, steps):
    weights, x, y = drawn(maml)
    gradients = grad(maml.meta_loss)(weights, x, y, steps)
    generator = Generator().manual_seed(5)
    direction = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
    slope = float(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)))
    assert slope == pytest.approx(
        measured_slope(lambda w: maml.meta_loss(w, x, y, steps), weights, direction), rel=1e-5
    )


def test_the_program_that_circulates_has_another_gradient(maml):
    """The proof that the test above can fail: a detached inner loop."""
    weights, x, y = drawn(maml)

    def detached(w):
        adapted = maml.adapt([p.detach() for p in w], x[: maml.SHOT], y[: maml.SHOT], 1)
        cut = [p + (a - p).detach() for p, a in zip(w, adapted, strict=True)]
        return maml.loss(cut, x[maml.SHOT :], y[maml.SHOT :])

    right, wrong = grad(maml.meta_loss)(weights, x, y), grad(detached)(weights)
    assert not torch.allclose(right[2], wrong[2], rtol=1e-2)


def test_adapting_leaves_the_weights_as_they_were_and_does_not_remember_a_task(maml):
    weights, x, y = drawn(maml)
    before = [w.clone() for w in weights]
    first = maml.adapt(weights, x, y, 2)
    maml.adapt(weights, x + 1, y - 1, 2)
    again = maml.adapt(weights, x, y, 2)
    assert all(torch.equal(w, b) for w, b in zip(weights, before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_short_run_learns_to_adapt(maml):
    trained = maml.meta_train(maml.start(Generator().manual_seed(0)), 150, Generator().manual_seed(1))
    tasks = maml.sines(200, Generator().manual_seed(2))
    score = vmap(maml.meta_loss, in_dims=(None, 0, 0, None))
    before, after = score(trained, *tasks, 0), score(trained, *tasks, 1)
    gain = before - after
    assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5
