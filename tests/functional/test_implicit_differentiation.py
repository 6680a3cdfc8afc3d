"""Products with the Hessian and conjugate gradients against dense linear algebra."""

import pytest
import torch

from handful.functional.implicit_differentiation import conjugate_gradients, curvature


def loss(weights, context):
    outputs = torch.tanh(context["inputs"] @ weights["first"]) @ weights["second"]
    return (outputs - context["targets"]).square().mean() + outputs.pow(4).mean(), {}


def point(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {"first": draw(3, 4), "second": draw(4)}, {"inputs": draw(7, 3), "targets": draw(7)}


def dense(weights, context):
    """The Hessian as a matrix, by torch."""

    def of_flat(flat):
        return loss({"first": flat[:12].view(3, 4), "second": flat[12:]}, context)[0]

    return torch.autograd.functional.hessian(of_flat, flat_of(weights))


def flat_of(weights):
    return torch.cat([weight.flatten() for weight in weights.values()])


@pytest.mark.parametrize("batched", [False, True], ids=["one", "vmap"])
@pytest.mark.parametrize("recording", [False, True])
def test_products_are_those_of_the_hessian(batched, recording):
    (weights, context), (vector, _) = point(), point(seed=3)

    def products(weights, context, vector):
        product = curvature(loss, weights, context)
        return product(vector), product({name: 2 * value for name, value in vector.items()})

    with torch.set_grad_enabled(recording):
        if batched:
            many = torch.utils._pytree.tree_map(lambda leaf: torch.stack([leaf, leaf]), (weights, context, vector))
            once, twice = torch.utils._pytree.tree_map(lambda leaf: leaf[1], torch.func.vmap(products)(*many))
        else:
            once, twice = products(weights, context, vector)
    expected = dense(weights, context) @ flat_of(vector)
    torch.testing.assert_close(flat_of(once), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(flat_of(twice), 2 * expected, rtol=1e-10, atol=1e-12)
    assert not flat_of(once).requires_grad


@pytest.mark.parametrize("batched", [False, True], ids=["one", "vmap"])
def test_a_linear_loss_is_not_curved(batched):
    weights, context = point()

    def product(weights):
        return curvature(lambda w, c: (w["first"].sum() - w["second"].sum(), {}), weights, context)(weights)

    if batched:
        result = torch.func.vmap(product)({name: weight.unsqueeze(0) for name, weight in weights.items()})
    else:
        result = product(weights)
    assert not flat_of(result).any()


def test_conjugate_gradients_solve_in_as_many_steps_as_there_are_numbers_and_stay_there():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(6, dtype=torch.float64)
    target = torch.randn(6, generator=generator, dtype=torch.float64)

    def product(vector):
        moved = matrix @ flat_of(vector)
        return {"a": moved[:2], "b": moved[2:]}

    expected = torch.linalg.solve(matrix, target)
    errors = []
    for steps in (2, 4, 6, 30):
        solution = flat_of(conjugate_gradients(product, {"a": target[:2], "b": target[2:]}, steps=steps))
        error = solution - expected
        errors.append(float(error @ matrix @ error))
    assert errors[0] > errors[1] > errors[2]
    assert max(errors[2:]) < 1e-18


def test_a_direction_that_bends_downward_is_not_followed():
    target = {"a": torch.ones(3, dtype=torch.float64)}
    solution = conjugate_gradients(lambda vector: {"a": -vector["a"]}, target, steps=3)
    assert not solution["a"].any()
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        basis = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
        curved = basis @ torch.diag(torch.tensor([-0.4, 0.5, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64)) @ basis.mT
        target = {"a": torch.randn(6, generator=generator, dtype=torch.float64)}
        bends: list[bool] = []

        def product(vector, curved=curved, bends=bends):
            bends.append(bool(vector["a"] @ curved @ vector["a"] <= 0))
            return {"a": curved @ vector["a"]}

        after = conjugate_gradients(product, target, steps=8)["a"]
        assert any(bends)
        until = conjugate_gradients(product, target, steps=bends.index(True))["a"]
        assert torch.equal(after, until), "it goes no further than to the first such direction"
    nothing = conjugate_gradients(lambda vector: vector, {"a": torch.zeros(3)}, steps=3)
    assert not nothing["a"].any()
