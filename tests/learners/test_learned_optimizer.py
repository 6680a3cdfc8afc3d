"""The learned rule against rules written by hand, its meta-gradients against a plain loop, and what training gains."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from contracts.problems import ROWS, VALUES
from contracts.test_learners import check_meta_gradient
from handful.engine.meta_gradient import meta_gradient
from handful.engine.over_tasks import over_tasks
from handful.engine.plan import Plan
from handful.errors import UserError
from handful.functional.inner_loop import SGD
from handful.functional.lbfgs import LBFGS
from handful.functional.normalization import BatchNorm
from handful.learners.learned_optimizer import LearnedOptimizer
from handful.learners.update_rule import DIRECTIONS, EPSILON, FEATURES, LONGEST, LearnedRule
from handful.tasks.optimization_problems import Quadratics
from handful.types import stack, take


def network(kind: str = "mlp", width: int = 6, *, spread: float = 0.3) -> dict[str, torch.Tensor]:
    """Random weights of a rule's network."""
    generator = torch.Generator().manual_seed(0)
    gates = 4 * width if kind == "lstm" else width
    shapes = {"first.weight": (gates, FEATURES), "first.bias": (gates,), "second.weight": (gates, width)}
    shapes |= {"second.bias": (gates,)} if kind == "mlp" else {}
    shapes |= {"last.weight": (1 + DIRECTIONS, width), "last.bias": (1 + DIRECTIONS,)}
    return {n: spread * torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}


def run(rule, gradients, weights=None):
    """The weights after each step on given gradients, tensors `a` `(3, 2)` and `b` `(4,)`."""
    weights = weights or {"a": torch.linspace(-1, 1, 6).double().view(3, 2), "b": torch.ones(4).double()}
    state, seen = rule.start(weights), []
    for slopes in gradients:
        weights, state = rule.step(weights, slopes, state)
        seen.append(weights)
    return seen


def slopes(steps: int, scale: float = 1.0):
    generator = torch.Generator().manual_seed(1)
    return [
        {n: scale * torch.randn(s, generator=generator, dtype=torch.float64) for n, s in (("a", (3, 2)), ("b", (4,)))}
        for _ in range(steps)
    ]


# The rule, with weights set by hand


def test_with_answers_of_zero_it_is_pytorchs_adam():
    weights = {"a": torch.linspace(-1, 1, 6).double().view(3, 2), "b": torch.ones(4).double()}
    parameters = {name: nn.Parameter(weight.clone()) for name, weight in weights.items()}
    optimizer = torch.optim.Adam(parameters.values(), lr=0.03, eps=EPSILON)
    seen = run(LearnedRule(network(spread=0.0), 0.03), slopes(12))
    for gradients, mine in zip(slopes(12), seen, strict=True):
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        optimizer.step()
        for name, parameter in parameters.items():
            torch.testing.assert_close(mine[name], parameter.data, rtol=0, atol=1e-6)


def test_with_answers_set_by_hand_it_divides_gradients_by_their_root_mean_square():
    """Minus Adam's momentum, plus the gradient, twice as long: AdaGrad on averages, in numpy."""
    outputs = network(spread=0.0)
    outputs["last.bias"][:] = torch.tensor([3 * np.arctanh(np.log(2) / 3), 1, 0, -1, 0, 0])
    seen = run(LearnedRule(outputs, 0.1), slopes(5))
    weight, squares = np.ones(4), np.zeros(4)
    for turn, (gradients, mine) in enumerate(zip(slopes(5), seen, strict=True), 1):
        gradient = gradients["b"].numpy()
        squares = 0.999 * squares + 0.001 * gradient**2
        weight = weight - 2 * 0.1 * gradient / np.sqrt(squares / (1 - 0.999**turn))
        np.testing.assert_allclose(mine["b"].numpy(), weight, rtol=1e-6)


def test_the_memory_is_pytorchs_lstm_cell_with_an_open_gate():
    own = network("lstm")
    rule, cell = LearnedRule(own, 0.1, True), nn.LSTMCell(FEATURES, 6).double()
    with torch.no_grad():
        for mine, (weight, bias) in {"first": ("ih", True), "second": ("hh", False)}.items():
            getattr(cell, f"weight_{weight}").copy_(own[f"{mine}.weight"])
            given = own["first.bias"] if bias else torch.zeros(24)
            getattr(cell, f"bias_{weight}").copy_(given)
        cell.bias_hh[6:12] += 1
    features = torch.randn(9, FEATURES, dtype=torch.float64)
    state = {name: torch.randn(9, 6, dtype=torch.float64) for name in ("hidden", "cell")}
    _, memory = rule._outputs(features, state)
    expected = cell(features, (state["hidden"], state["cell"]))
    torch.testing.assert_close((memory["hidden"], memory["cell"]), tuple(expected))


def test_with_pairs_it_can_take_the_steps_of_limited_memory_bfgs():
    """Minus Adam's momentum, plus the quasi-Newton direction, which the rule makes shorter in units of its rate."""
    outputs = network(spread=0.0)
    outputs["last.bias"][:] = torch.tensor([0, 0, 0, -1, 0, 1])
    curved = torch.diag(torch.tensor([1.0, 2, 3, 4]).double())
    weights, rules = {"b": torch.ones(4).double()}, (LearnedRule(outputs, 0.1, pairs=4), LBFGS(LONGEST * 0.1, 4))
    states = [rule.start(weights) for rule in rules]
    for turn in range(6):
        slopes = {"b": curved @ weights["b"]}
        (mine, one), (theirs, other) = (
            rule.step(weights, slopes, state) for rule, state in zip(rules, states, strict=True)
        )
        if turn:  # before there is a pair, one rests and the other goes along the gradient
            torch.testing.assert_close(mine, theirs)
        weights, states = theirs, [one, other]


@pytest.mark.parametrize("kind", ["mlp", "lstm"])
class TestAnyRule:
    def test_steps_do_not_depend_on_the_scale_of_the_loss(self, kind):
        rule = LearnedRule(network(kind), 0.1, kind == "lstm", pairs=3)
        for small, large in zip(run(rule, slopes(4)), run(rule, slopes(4, scale=1000.0)), strict=True):
            torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-4)

    def test_it_rests_where_the_gradient_is_zero(self, kind):
        rule = LearnedRule(network(kind), 0.1, kind == "lstm", pairs=3)
        first, last = (run(rule, slopes(3, scale=0.0))[turn] for turn in (0, 2))
        torch.testing.assert_close(first, last, rtol=0, atol=0)

    def test_weights_of_a_tensor_are_treated_alike(self, kind):
        rule, order = LearnedRule(network(kind), 0.1, kind == "lstm", pairs=3), torch.tensor([2, 0, 3, 1])
        weights = {"a": torch.zeros(3, 2).double(), "b": torch.arange(4).double()}
        turned = {"a": weights["a"], "b": weights["b"][order]}
        straight = run(rule, slopes(4), weights)[-1]
        mixed = run(rule, [g | {"b": g["b"][order]} for g in slopes(4)], turned)[-1]
        torch.testing.assert_close(mixed["b"], straight["b"][order])

    def test_its_meta_gradient_is_exact_along_the_whole_way(self, kind):
        for objective, loss in (("support", "log"), ("query", "plain")):
            learner = VALUES.learner(
                LearnedOptimizer, rule=kind, hidden=3, inner_steps=4, objective=objective, loss=loss
            )
            check_meta_gradient(learner, VALUES, plan=Plan("vmap", memory="sqrt"))


# Meta-gradients that stop


def by_hand(learner, task, *, truncation, first_order):
    """The mean loss of the support after each step, with cuts of the graph, in a plain loop."""
    rule, (slow, weights) = learner.learned(), learner._start(task.support, VALUES.spec)
    state, losses = rule.start(weights), []

    def loss(weights):
        return learner._inner_loss(weights, {"slow": slow, "support": task.support})[0]

    for turn in range(1, learner.inner_steps + 1):
        weights = {n: w if w.requires_grad else w.clone().requires_grad_() for n, w in weights.items()}
        found = torch.autograd.grad(loss(weights), list(weights.values()), create_graph=not first_order)
        weights, state = rule.step(weights, dict(zip(weights, found, strict=True)), state)
        losses.append(loss(weights))
        if truncation and turn % truncation == 0:
            weights, state = pytree.tree_map(torch.Tensor.detach, (weights, state))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("truncation", "first_order"), [(0, False), (2, False), (1, False), (0, True), (3, True)])
def test_truncated_and_first_order_gradients_are_those_of_a_loop_that_cuts_its_graph(truncation, first_order):
    options = {"inner_steps": 5, "hidden": 3, "objective": "support", "loss": "plain"}
    learner = VALUES.learner(LearnedOptimizer, **options, truncation=truncation, first_order=first_order)
    whole = VALUES.learner(LearnedOptimizer, **options)
    task = VALUES.task()
    expected = by_hand(learner, task, truncation=truncation, first_order=first_order)
    expected.backward()
    for plan in (Plan("loop"), Plan("vmap", memory="recompute")):
        losses, gradients = meta_gradient(learner, stack([task]), VALUES.spec, plan=plan)
        torch.testing.assert_close(losses[0], expected.detach())
        for name, parameter in learner.named_parameters():
            if parameter.requires_grad:
                torch.testing.assert_close(gradients[name], parameter.grad)
    _, exact = meta_gradient(whole, stack([task]), VALUES.spec, plan=Plan("loop"))
    same = all(torch.allclose(exact[name], gradients[name]) for name in exact)
    assert same == (not truncation and not first_order)


# The learner


def test_losses_are_those_after_one_two_three_steps():
    task, steps = VALUES.task(), 3
    for objective in ("support", "query"):
        learner = VALUES.learner(LearnedOptimizer, objective=objective, inner_steps=steps, loss="plain")
        losses = learner.losses(task, VALUES.spec)
        for count in range(1, steps + 1):
            shorter = VALUES.learner(LearnedOptimizer, inner_steps=count)
            state = shorter.adapt(task.support, VALUES.spec)
            examples = getattr(task, objective)
            expected = (shorter.predict(state, examples.inputs).mean - examples.targets).square().mean()
            torch.testing.assert_close(losses[count - 1], expected)
        torch.testing.assert_close(learner.meta_loss(task, VALUES.spec), losses.mean())
        logarithmic = VALUES.learner(LearnedOptimizer, objective=objective, inner_steps=steps, loss="log")
        torch.testing.assert_close(logarithmic.meta_loss(task, VALUES.spec), losses.log().mean(), rtol=0, atol=1e-6)


def test_a_start_is_drawn_anew_like_the_networks_own():
    backbone = nn.Sequential(nn.Linear(5, 200), nn.BatchNorm1d(200), nn.ReLU(), nn.Linear(200, 50))
    backbone[3].bias.requires_grad_(False)
    learner = LearnedOptimizer.build(ROWS.spec, backbone=backbone)
    first, second = (learner.draw_noise(None, ROWS.spec, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    own = {f"backbone.{name}": weight for name, weight in learner.backbone.named_parameters()}
    assert set(first) == set(own) - {"backbone.3.bias"}
    for name, weight in first.items():
        if weight.numel() >= 1000:
            assert not torch.equal(weight, second[name])
            torch.testing.assert_close(weight.std(), own[name].std(), rtol=0.1, atol=0)
    norm = next(name for name, layer in learner.backbone.named_modules() if isinstance(layer, BatchNorm))
    assert torch.equal(first[f"backbone.{norm}.weight"], own[f"backbone.{norm}.weight"]), "what is constant stays"
    task = ROWS.tasks(1)
    task = take(torch.utils._pytree.tree_map(lambda t: t.float() if t.is_floating_point() else t, task), 0)
    values = [learner.meta_loss(task, ROWS.spec, start).detach() for start in (None, first, second)]
    assert len({float(value) for value in values}) == 3
    raw = LearnedOptimizer.build(Quadratics().spec, backbone="raw", intercept=False)
    assert raw.draw_noise(None, Quadratics().spec, torch.Generator()) is None


def test_the_rule_goes_with_another_network_to_other_tasks():
    learner = VALUES.learner(LearnedOptimizer, hidden=5)
    other = learner.for_network(ROWS.spec, backbone="mlp", backbone_options={"hidden": (7, 7)}, inner_steps=9)
    assert other.inner_steps == other.recipe["options"]["inner_steps"] == 9
    assert other.recipe["options"]["hidden"] == 5
    for name, weight in learner.rule.state_dict().items():
        torch.testing.assert_close(other.rule.state_dict()[name].double(), weight, rtol=1e-6, atol=1e-6)
        assert other.rule.state_dict()[name].data_ptr() != weight.data_ptr()
    task = ROWS.task()
    logits = other.double().predict(other.adapt(task.support, ROWS.spec), task.query.inputs).logits
    assert logits.shape == (len(task.query.targets), 3)
    for option in ({"hidden": 6}, {"rule": "lstm"}):
        with pytest.raises(UserError, match="another rule"):
            learner.for_network(ROWS.spec, **option)


@pytest.mark.slow
def test_trained_on_quadratics_it_beats_gradient_descent_with_the_best_rate():
    """At equal steps, on tasks that it has not seen; the rate of gradient descent is chosen on these very tasks."""
    tasks, spec = Quadratics(seed=3), Quadratics().spec
    learner = LearnedOptimizer.build(
        spec, backbone="raw", intercept=False, objective="support", inner_lr=0.2, inner_steps=15, hidden=8
    )
    test = tasks.split("test").batch(range(100))

    def score(rule) -> float:
        with torch.no_grad():
            curves = over_tasks(lambda task: learner.losses(task, spec, rule=rule), (test,), Plan("vmap"))
        return float(curves[:, -1].log().nan_to_num(nan=99.0).mean())

    fresh = score(None)
    descent = min(score(SGD(rate)) for rate in np.geomspace(0.01, 1.0, 15))
    optimizer = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], lr=0.01)
    for step in range(25):
        batch = tasks.batch(range(16 * step, 16 * step + 16))
        _, gradients = meta_gradient(learner, batch, spec, plan=Plan("vmap"))
        for name, parameter in learner.named_parameters():
            parameter.grad = gradients.get(name)
        optimizer.step()
    trained = score(None)
    assert trained < fresh - 0.3
    assert trained < descent - 0.3
