"""The inner loop against loops written by hand, and against finite differences."""

import weakref

import pytest
import torch

from handful.engine.cost import graph_bytes
from handful.functional.inner_loop import SGD, Adam, Annealed, descend, remembering, trajectory

INPUTS = torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGETS = torch.randn(7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def start(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"first": (3, 4), "second": (4,)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for name, shape in shapes.items()
    }


def curved(weights, context):
    outputs = torch.tanh(context["inputs"] @ weights["first"]) @ weights["second"]
    return (outputs - context["targets"]).square().mean() + 0.1 * outputs.pow(4).mean(), {"outputs": outputs}


def linear(weights, context):
    """Its gradient does not depend on the weights."""
    return sum((weight * context["pull"][name]).sum() for name, weight in weights.items()), {}


def context():
    return {"inputs": INPUTS, "targets": TARGETS}


def outer(weights):
    return sum(weight.sin().sum() for weight in weights.values())


def by_hand(weights, rate, steps, *, create_graph=True):
    for _ in range(steps):
        loss, _ = curved(weights, context())
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=create_graph)
        weights = {name: w - rate * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
    return weights


def gradient(result, of):
    return torch.autograd.grad(outer(result), list(of.values()), materialize_grads=True)


@pytest.mark.parametrize("steps", range(6))
def test_descent_and_its_derivative_are_those_of_a_loop_written_by_hand(steps):
    weights = start()
    own, _ = descend(curved, weights, context(), rule=SGD(0.1), steps=steps)
    hand = by_hand(weights, 0.1, steps)
    for name in weights:
        torch.testing.assert_close(own[name], hand[name], rtol=1e-12, atol=1e-12)
    for a, b in zip(gradient(own, weights), gradient(hand, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", [SGD, Adam], ids=["sgd", "adam"])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_the_derivative_is_the_measured_one(rule, steps):
    weights, direction = start(), start(seed=5)
    moved, _ = descend(curved, weights, context(), rule=rule(0.1), steps=steps)
    slope = sum((g * d).sum() for g, d in zip(gradient(moved, weights), direction.values(), strict=True))
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            shifted = {name: weight + sign * 1e-6 * direction[name] for name, weight in weights.items()}
            values.append(outer(descend(curved, shifted, context(), rule=rule(0.1), steps=steps)[0]))
    torch.testing.assert_close(slope, (values[0] - values[1]) / 2e-6, rtol=1e-6, atol=1e-8)


def test_rates_may_be_learned_one_for_each_weight():
    weights = start()
    rates = {name: torch.tensor(0.1, dtype=torch.float64, requires_grad=True) for name in weights}
    moved, _ = descend(curved, weights, context(), rule=SGD(rates), steps=3)
    for slope, name in zip(gradient(moved, rates), rates, strict=True):
        with torch.no_grad():
            values = [
                outer(descend(curved, weights, context(), rule=SGD(rates | {name: rates[name] + s}), steps=3)[0])
                for s in (1e-6, -1e-6)
            ]
        torch.testing.assert_close(slope, (values[0] - values[1]) / 2e-6, rtol=1e-6, atol=1e-8)


def test_first_order_differs_where_the_loss_is_curved():
    """T6. The weights are the same, the derivative is not."""
    weights = start()
    full, _ = descend(curved, weights, context(), rule=SGD(0.1), steps=3)
    first, _ = descend(curved, weights, context(), rule=SGD(0.1), steps=3, first_order=True)
    torch.testing.assert_close(first, full)
    assert not torch.allclose(gradient(first, weights)[0], gradient(full, weights)[0], rtol=1e-2)


def test_first_order_is_the_full_derivative_where_the_loss_is_linear():
    """T6."""
    weights = start()
    pull = {"pull": {name: weight.detach() + 1 for name, weight in start(seed=3).items()}}
    results = [
        descend(linear, weights, pull, rule=SGD(0.1), steps=3, first_order=first_order)[0]
        for first_order in (False, True)
    ]
    for a, b in zip(*(gradient(result, weights) for result in results), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_first_order_is_the_gradient_at_the_detached_fast_weights():
    weights = start()
    moved, _ = descend(curved, weights, context(), rule=SGD(0.1), steps=4, first_order=True)
    fast = {name: w.detach().requires_grad_() for name, w in by_hand(weights, 0.1, 4, create_graph=False).items()}
    for a, b in zip(gradient(moved, weights), gradient(fast, fast), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_auxiliary_is_that_of_the_last_step():
    weights = start()
    before, _ = descend(curved, weights, context(), rule=SGD(0.1), steps=2)
    _, auxiliary = descend(curved, weights, context(), rule=SGD(0.1), steps=3)
    torch.testing.assert_close(auxiliary["outputs"], curved(before, context())[1]["outputs"])


def test_steps_may_differ_in_their_context():
    weights = start()
    seen = []

    def of_step(step):
        seen.append(step)
        return {"inputs": INPUTS * (1 + step), "targets": TARGETS}

    descend(curved, weights, of_step, rule=SGD(0.1), steps=3)
    assert seen == [0, 1, 2]


def test_steps_may_differ_in_their_rule():
    weights = start()
    rates = torch.tensor([0.2, 0.05, 0.1], dtype=torch.float64, requires_grad=True)
    moved, _ = descend(curved, weights, context(), rule=lambda step: SGD(rates[step]), steps=3)
    hand = weights
    for rate in rates:
        hand = by_hand(hand, rate, 1)
    for name in weights:
        torch.testing.assert_close(moved[name], hand[name], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*(gradient(result, {"rates": rates})[0] for result in (moved, hand)))


@pytest.mark.parametrize("memory", ["whole", "recompute", "sqrt"])
@pytest.mark.parametrize("first_order", [False, True])
def test_a_trajectory_is_where_shorter_descents_end(memory, first_order):
    weights, options = start(), {"rule": Adam(0.1), "first_order": first_order}
    with remembering(memory):
        reached = [own | seen for own, seen in trajectory(curved, weights, context(), steps=4, **options)]
        ends = [
            own | seen for own, seen in (descend(curved, weights, context(), steps=n, **options) for n in range(1, 5))
        ]
        for a, b in zip(reached, ends, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        together = torch.autograd.grad(sum(outer(own) for own in reached), list(weights.values()))
    apart = [gradient(end, weights) for end in ends]
    for slope, *parts in zip(together, *apart, strict=True):
        torch.testing.assert_close(slope, sum(parts), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("memory", ["whole", "recompute", "sqrt"])
@pytest.mark.parametrize("second_order", [0.0, 1.0])
def test_an_annealed_rule_has_the_derivative_of_first_or_of_second_order(memory, second_order):
    weights = start()
    with remembering(memory):
        rule = Annealed(SGD(0.1), torch.tensor(second_order))
        own, seen = descend(curved, weights, context(), rule=rule, steps=4)
        slopes = gradient(own | seen, weights)
    expected, seen = descend(curved, weights, context(), rule=SGD(0.1), steps=4, first_order=not second_order)
    torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)
    for a, b in zip(slopes, gradient(expected | seen, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_adam_takes_the_steps_of_torch():
    weights = start()
    own, _ = descend(curved, weights, context(), rule=Adam(0.05), steps=6)
    theirs = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    optimizer = torch.optim.Adam(list(theirs.values()), lr=0.05)
    for _ in range(6):
        optimizer.zero_grad()
        curved(theirs, context())[0].backward()
        optimizer.step()
    for name in weights:
        torch.testing.assert_close(own[name], theirs[name], rtol=1e-10, atol=1e-12)


def test_adam_has_a_finite_derivative_where_a_gradient_is_zero():
    """A dead unit: the root of its second moment has no derivative at zero."""
    weights = start()
    dead = context() | {"inputs": INPUTS * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)}
    moved, _ = descend(curved, weights, dead, rule=Adam(0.05), steps=3)
    assert all(part.isfinite().all() for part in gradient(moved, weights))


def test_adam_runs_over_many_tasks():
    weights = {name: torch.stack([w.detach(), 2 * w.detach()]) for name, w in start().items()}

    def one(own):
        return descend(curved, own, context(), rule=Adam(0.05), steps=2)[0]

    both = torch.func.vmap(one)(weights)
    for index in (0, 1):
        single = one({name: weight[index] for name, weight in weights.items()})
        for name, weight in single.items():
            torch.testing.assert_close(both[name][index], weight)


class Watched:
    """A rule that counts which of the weights it has made are still alive."""

    def __init__(self, rule):
        self.rule, self.made, self.most = rule, [], 0

    def start(self, weights):
        return self.rule.start(weights)

    def step(self, weights, gradients, state):
        moved, state = self.rule.step(weights, gradients, state)
        self.made += [weakref.ref(weight) for weight in moved.values()]
        self.most = max(self.most, sum(made() is not None for made in self.made))
        return moved, state


@pytest.mark.parametrize("rule", [SGD(0.01), Adam(0.01)], ids=["sgd", "adam"])
@pytest.mark.parametrize("first_order", [False, True])
def test_without_gradients_memory_does_not_grow_with_steps(rule, first_order):
    """T29: no graph, and no weights but the last and the next."""
    watched = Watched(rule)
    with torch.no_grad():
        moved, _ = descend(curved, start(), context(), rule=watched, steps=20, first_order=first_order)
    assert all(weight.grad_fn is None and not weight.requires_grad for weight in moved.values())
    assert watched.most <= 2 * len(moved)


def test_saved_tensors_grow_with_steps_only_where_a_gradient_will_need_them():
    def saved(steps, first_order):
        weights = start()
        moved, _ = descend(curved, weights, context(), rule=SGD(0.01), steps=steps, first_order=first_order)
        seen, stack = set(), [weight.grad_fn for weight in moved.values()]
        while stack:
            node = stack.pop()
            if node is not None and node not in seen:
                seen.add(node)
                stack.extend(parent for parent, _ in node.next_functions)
        return len(seen)

    assert saved(20, first_order=False) > 10 * 20
    assert saved(20, first_order=True) <= 2 * 2 * 20 + 4


MEMORIES = ["whole", "recompute", "sqrt"]


def through(loss, weights, context):
    """Depends on the fast weights, on slow ones in its context, and tells something of each step."""
    value, auxiliary = curved(weights, {"inputs": context["inputs"] * context["slow"], "targets": TARGETS})
    return value, {"mean": auxiliary["outputs"].mean()}


def meta_loss(points, memory, steps, rule, batched=False):
    """A loss after the loop that depends on the weights, slow weights, rates and the last auxiliary."""

    def one(inputs):
        weights = {"first": points["first"], "second": points["second"]}
        rates = {"first": points["rate"], "second": points["rate"] ** 2}
        moved, auxiliary = descend(
            lambda w, c: through(None, w, c),
            weights,
            {"inputs": inputs, "slow": points["slow"]},
            rule=SGD(rates) if rule == "sgd" else Adam(0.1),
            steps=steps,
        )
        return outer(moved) + auxiliary["mean"].square()

    with remembering(memory):
        both = torch.stack([INPUTS, INPUTS.flip(0)])
        return torch.func.vmap(one)(both).sum() if batched else one(both[0]) + one(both[1])


def points():
    generator = torch.Generator().manual_seed(7)
    slow = torch.rand(3, generator=generator, dtype=torch.float64).add(0.5).requires_grad_()
    return start() | {"slow": slow, "rate": torch.tensor(0.2, dtype=torch.float64, requires_grad=True)}


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("batched", [False, True], ids=["one", "vmap"])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_memory_mode_gives_the_measured_derivative(memory, batched, rule, steps):
    """With respect to starting weights, slow weights and learned rates, through weights and auxiliary."""
    at = points()
    slopes = torch.autograd.grad(meta_loss(at, memory, steps, rule, batched), list(at.values()), materialize_grads=True)
    generator = torch.Generator().manual_seed(3)
    for (name, point), slope in zip(at.items(), slopes, strict=True):
        direction = torch.randn(point.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            values = [meta_loss(at | {name: point + s * direction}, memory, steps, rule) for s in (1e-6, -1e-6)]
        torch.testing.assert_close((slope * direction).sum(), (values[0] - values[1]) / 2e-6, rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_memory_modes_agree_to_the_last_digits(rule):
    at = points()
    whole, *others = (
        torch.autograd.grad(meta_loss(at, m, 6, rule), list(at.values()), materialize_grads=True) for m in MEMORIES
    )
    for other in others:
        for a, b in zip(whole, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


def test_memory_grows_with_the_whole_graph_and_hardly_without_it():
    """Each recomputed step keeps its weights alone; sqrt(K) checkpoints keep the square root of that."""

    def kept(memory, steps):
        wide = {"first": torch.randn(3, 200), "second": torch.randn(200)}
        wide = {name: weight.requires_grad_() for name, weight in wide.items()}
        inputs = torch.randn(100, 3)

        def loss(weights, context):
            return (torch.tanh(context @ weights["first"]) @ weights["second"]).square().mean(), {}

        def run():
            with remembering(memory):
                moved, _ = descend(loss, wide, inputs, rule=SGD(0.01), steps=steps)
                torch.autograd.grad(outer(moved), list(wide.values()))

        return graph_bytes(run)

    of_weights = 4 * (3 * 200 + 200)
    assert kept("whole", 64) > 30 * kept("whole", 2)
    assert kept("recompute", 64) - kept("recompute", 4) <= 1.2 * 60 * of_weights
    assert kept("sqrt", 64) - kept("sqrt", 4) <= 1.2 * (16 - 4) * of_weights
    assert kept("sqrt", 64) < kept("recompute", 64) < kept("whole", 64) / 5
