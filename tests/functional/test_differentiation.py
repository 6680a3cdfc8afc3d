"""Gradients inside a graph, with and without `torch.func`, and functions that are run again instead of kept."""

import torch

from handful.functional.differentiation import detached, gradient, needs_gradient, recomputed


def loss(weights, context):
    return (weights["w"] * context["x"]).square().sum() + context["shift"] * weights["w"].sum(), {"w": weights["w"] * 2}


def setup():
    weights = {"w": torch.randn(3, dtype=torch.float64, requires_grad=True)}
    context = {"x": torch.randn(3, dtype=torch.float64), "shift": torch.tensor(2.0, dtype=torch.float64)}
    return weights, context


def test_plain_and_transformed_gradients_are_the_same():
    weights, context = setup()
    plain, auxiliary = gradient(loss, weights, context)
    batched, _ = torch.func.vmap(lambda x: gradient(loss, weights, context | {"x": x}))(context["x"].unsqueeze(0))
    torch.testing.assert_close(plain["w"], 2 * weights["w"] * context["x"] ** 2 + 2)
    torch.testing.assert_close(plain["w"], batched["w"][0])
    torch.testing.assert_close(auxiliary["w"], 2 * weights["w"])


def test_what_else_depends_on_the_weights_is_a_constant_of_the_inner_gradient():
    weights, context = setup()
    context["shift"] = weights["w"].sum()
    slopes, _ = gradient(loss, weights, context)
    torch.testing.assert_close(slopes["w"], 2 * weights["w"] * context["x"] ** 2 + weights["w"].sum())
    second = torch.autograd.grad(slopes["w"].sum(), weights["w"])[0]
    torch.testing.assert_close(second, 2 * context["x"] ** 2 + 3)


def test_there_is_a_graph_only_where_somebody_differentiates():
    weights, context = setup()
    assert gradient(loss, weights, context)[0]["w"].requires_grad
    with torch.no_grad():
        slopes, auxiliary = gradient(loss, weights, context)
    assert not slopes["w"].requires_grad
    assert not auxiliary["w"].requires_grad
    slopes, auxiliary = gradient(loss, detached(weights), context)
    assert not needs_gradient((slopes, auxiliary))


def test_a_weight_that_the_loss_ignores_has_slope_zero():
    weights, context = setup()
    slopes, _ = gradient(loss, weights | {"other": torch.ones(2, dtype=torch.float64)}, context)
    assert torch.equal(slopes["other"], torch.zeros(2, dtype=torch.float64))


def test_recomputing_takes_the_steps_again_and_keeps_structure_constants_and_integers():
    calls = []

    def step(carry, constants, turn):
        calls.append(turn)
        moved = {"x": carry["x"] * constants["factor"] + constants["add"][constants["places"]] * constants["same"][0]}
        return moved, {"seen": moved["x"] * turn}

    x = torch.randn(2, dtype=torch.float64, requires_grad=True)
    add = torch.randn(3, dtype=torch.float64, requires_grad=True)
    constants = {"add": add, "same": add, "places": torch.tensor([2, 0]), "factor": 3.0}
    carry, auxiliary = recomputed(step, {"x": x}, constants, 3)
    assert calls == [0, 1, 2]
    expected = x
    for _ in range(3):
        expected = expected * 3 + add[[2, 0]] * add[0]
    torch.testing.assert_close(carry["x"], expected)
    torch.testing.assert_close(auxiliary["seen"], 2 * expected)
    slopes = torch.autograd.grad(carry["x"].sum() + auxiliary["seen"].square().sum(), [x, add])
    assert calls == [0, 1, 2, 0, 1, 2, 1, 0]
    by_hand = torch.autograd.grad(expected.sum() + 4 * expected.square().sum(), [x, add])
    for slope, other in zip(slopes, by_hand, strict=True):
        torch.testing.assert_close(slope, other)


def test_detached_cuts_all_tensors_of_a_tree():
    tree = {"a": [setup()[0]["w"]], "b": 3}
    assert needs_gradient(tree)
    cut = detached(tree)
    assert not needs_gradient(cut)
    assert cut["b"] == 3
