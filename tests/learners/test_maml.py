"""MAML against loops written by hand, and what its options say."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from contracts.problems import IMAGES, ROWS, SHARED, VALUES
from contracts.test_learners import (
    check_any_way,
    check_meta_gradient,
    check_meta_gradients_agree,
    check_purity,
    close,
)
from handful import evaluate, meta_train
from handful.engine.meta_gradient import meta_gradient
from handful.engine.plan import Plan
from handful.errors import UserError
from handful.functional.inner_loop import SGD, descend
from handful.learners.cavia import CAVIA
from handful.learners.imaml import ImplicitMAML
from handful.learners.maml import ANIL, BOIL, MAML, MetaSGD
from handful.learners.meta_lstm import MetaLSTM
from handful.learners.options import options_of
from handful.learners.reptile import Reptile
from handful.types import Examples, stack
from tasks.test_augmentation import Coded


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("problem", [ROWS, VALUES], ids=str)
@pytest.mark.parametrize("head", ["shared", "slots"])
def test_the_meta_gradient_is_exact_for_any_number_of_steps(problem, steps, head):
    """T5, learned rates among the meta-parameters."""
    learner = problem.learner(MAML, inner_steps=steps, learn_inner_lr=True, head=head)
    check_meta_gradient(learner, problem, plan=Plan("vmap"))


@pytest.mark.parametrize("normalization", MAML.normalizations)
@pytest.mark.parametrize("plan", [Plan("vmap"), Plan("loop")], ids=str)
def test_the_meta_gradient_is_exact_through_convolutions_and_learned_rates(normalization, plan):
    learner = IMAGES.learner(MAML, inner_steps=2, learn_inner_lr=True, normalization=normalization)
    tasks = stack([IMAGES.task(seed=3), IMAGES.task(seed=4)])
    check_meta_gradient(learner, IMAGES, plan=plan, tasks=tasks, alone=plan.backend == "loop")


@pytest.mark.parametrize("cls", [MAML, ANIL, MetaSGD, ImplicitMAML, Reptile, MetaLSTM, CAVIA])
def test_classes_have_a_start_of_their_own_where_their_numbers_mean_the_same(cls):
    assert not SHARED.learner(cls).any_way
    assert ROWS.learner(cls).any_way


@pytest.mark.parametrize("cls", [MAML, ANIL, MetaSGD, ImplicitMAML, Reptile, MetaLSTM])
def test_the_start_of_classes_may_be_the_same_in_any_case(cls):
    assert SHARED.learner(cls, head="shared").any_way


def by_hand(learner, task, *, first_order=False):
    """The paper's algorithm 2 for a network of two layers, with plain autograd."""
    names = ["backbone.layers.0.weight", "backbone.layers.0.bias", "backbone.layers.1.weight", "backbone.layers.1.bias"]
    own, rate = dict(learner.named_parameters()), learner.rates["head/bias"]
    weights = [own[name] for name in [*names, "head.weight", "head.bias"]]

    def loss(weights, examples):
        features = examples.inputs
        for weight, bias in (weights[0:2], weights[2:4]):
            features = F.relu(F.linear(features, weight, bias))
        return (F.linear(features, *weights[4:]) - examples.targets).square().mean()

    for _ in range(learner.inner_steps):
        gradients = torch.autograd.grad(loss(weights, task.support), weights, create_graph=not first_order)
        weights = [w - rate * (g.detach() if first_order else g) for w, g in zip(weights, gradients, strict=True)]
    return loss(weights, task.query), dict(zip([*names, "head.weight", "head.bias"], weights, strict=True))


@pytest.mark.parametrize("first_order", [False, True])
def test_losses_fast_weights_and_gradients_are_those_of_the_paper(first_order):
    learner, task = VALUES.learner(MAML, first_order=first_order), VALUES.task()
    expected, weights = by_hand(learner, task, first_order=first_order)
    losses, gradients = meta_gradient(learner, stack([task]), VALUES.spec, plan=Plan("vmap"))
    torch.testing.assert_close(losses[0], expected)
    trained = [name for name, p in learner.named_parameters() if p.requires_grad]
    own = dict(learner.named_parameters())
    reference = torch.autograd.grad(expected, [own[name] for name in trained], retain_graph=True)
    for name, gradient in zip(trained, reference, strict=True):
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-9, atol=1e-11)
    close(learner.adapt(task.support, VALUES.spec)["weights"], {name: weights[name] for name in state_names(learner)})


def state_names(learner):
    return [name.replace("/", ".") for name in learner.rates]


@pytest.mark.parametrize("problem", [IMAGES, ROWS, VALUES], ids=str)
def test_first_order_is_cheaper_and_not_the_same(problem):
    """T6, T7."""
    tasks = problem.tasks(2)
    full, first = (
        meta_gradient(problem.learner(MAML, first_order=first_order), tasks, problem.spec, plan=Plan("loop"))
        for first_order in (False, True)
    )
    torch.testing.assert_close(full[0], first[0])
    assert all(gradient.isfinite().all() for gradient in first[1].values())
    assert any(not torch.allclose(full[1][name], first[1][name], rtol=1e-2) for name in full[1])


def test_anil_is_maml_whose_head_alone_adapts():
    anil, maml, task = ROWS.learner(ANIL), ROWS.learner(MAML, fast="head.*"), ROWS.task()
    assert torch.equal(anil(task, ROWS.spec), maml(task, ROWS.spec))
    assert set(anil.adapt(task.support, ROWS.spec)["weights"]) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("problem", [ROWS, VALUES], ids=str)
@pytest.mark.parametrize("steps", [1, 3])
def test_every_weight_of_a_head_on_ready_features_has_its_rate(problem, steps):
    problem = replace(problem, backbone="raw", options={})
    learner, task = problem.learner(MetaSGD, inner_steps=steps, head="slots"), problem.task()
    rates = {name: learner.rates[name.replace(".", "/")] for name in ("head.weight", "head.bias")}
    start, slow = learner._start(problem.spec)
    expected, _ = descend(
        learner._inner_loss, start, {"slow": slow, "support": task.support}, rule=SGD(rates), steps=steps
    )
    close(learner.adapt(task.support, problem.spec)["weights"], expected)


def test_tied_weights_stay_tied_in_adapting():
    def tied(input_shape):
        first, second = nn.Linear(input_shape[0], 5), nn.Linear(input_shape[0], 5)
        second.weight = first.weight
        return Sum(first, second)

    learner, task = replace(ROWS, backbone=tied, options={}).learner(MAML, inner_steps=1, inner_lr=0.1), ROWS.task()
    weights = learner.adapt(task.support, ROWS.spec)["weights"]
    assert [name for name in weights if name.endswith("weight")] == ["backbone.first.weight", "head.weight"]
    check_meta_gradient(learner, ROWS)
    state = learner.adapt(task.support, ROWS.spec)
    own = copy.deepcopy(learner.backbone)
    own.first.weight.data = weights["backbone.first.weight"]
    own.first.bias.data, own.second.bias.data = (weights[f"backbone.{name}.bias"] for name in ("first", "second"))
    logits = F.linear(own(task.query.inputs), weights["head.weight"], weights["head.bias"])
    torch.testing.assert_close(learner.predict(state, task.query.inputs).logits, logits)


class Sum(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, inputs):
        return torch.tanh(self.first(inputs)) + torch.tanh(self.second(2 * inputs))


def test_frozen_parameters_are_neither_adapted_nor_meta_trained():
    def frozen(input_shape):
        network = ROWS.backbone(input_shape)
        network[0].requires_grad_(False)
        return network

    learner = MAML.build(ROWS.spec, backbone=frozen).double()
    state = learner.adapt(ROWS.task().support, ROWS.spec)
    assert not any(name.startswith("backbone.0") for name in state["weights"])
    assert not any(name.startswith("backbone.0") for name, p in learner.named_parameters() if p.requires_grad)


def test_with_a_shared_start_no_class_number_is_special():
    """T15: renamed classes give renamed answers; with a start for each slot they do not."""
    renamed = torch.tensor([2, 0, 1])
    task = ROWS.task()
    support = Examples(task.support.inputs, renamed[task.support.targets])
    for head, same in (("shared", True), ("slots", False)):
        learner = ROWS.learner(MAML, head=head)
        logits = learner.predict(learner.adapt(task.support, ROWS.spec), task.query.inputs).logits
        others = learner.predict(learner.adapt(support, ROWS.spec), task.query.inputs).logits
        assert torch.allclose(others[:, renamed], logits, rtol=1e-10, atol=1e-12) == same


def test_a_start_for_each_class_takes_no_other_number_of_classes():
    assert not ROWS.learner(MAML, head="slots").any_way
    assert ROWS.learner(MAML).any_way
    check_any_way(ROWS.learner(MAML, head="slots"), ROWS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fast": "nothing*"}, r"No trainable parameter matches fast='nothing\*'.*head\.weight"),
        ({"fast": "backbone.*"}, r"does not select head\.weight.*slots"),
        ({"head": "share"}, "one of auto, shared, slots"),
        ({"inner_steps": 1.5}, "a whole number"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ROWS.learner(MAML, **options)


def test_the_backbone_alone_may_adapt_below_a_head_with_slots():
    learner, task = ROWS.learner(MAML, fast="backbone.*", head="slots"), ROWS.task()
    assert learner.predict(learner.adapt(task.support, ROWS.spec), task.query.inputs).logits.shape == (24 + 1, 3)


def test_the_statistics_of_the_state_are_those_of_the_support():
    learner, task = ROWS.learner(MAML, inner_steps=1), ROWS.task()
    state = learner.adapt(task.support, ROWS.spec)
    hidden = learner.backbone[0](task.support.inputs)  # before the only step
    torch.testing.assert_close(state["statistics"]["backbone.1.mean"], hidden.mean(0))
    torch.testing.assert_close(state["statistics"]["backbone.1.variance"], hidden.var(0, correction=0))
    transductive = ROWS.learner(MAML, inner_steps=1, normalization="transductive")
    assert transductive.adapt(task.support, ROWS.spec)["statistics"] == {}


def test_rates_are_learned_only_when_asked_and_start_at_the_rate_given():
    fixed, learned = (ROWS.learner(MAML, learn_inner_lr=learn, inner_lr=0.25) for learn in (False, True))
    assert all(rate == 0.25 and not rate.requires_grad for rate in fixed.rates.values())
    assert all(rate.requires_grad for rate in learned.rates.values())
    _, gradients = meta_gradient(learned, ROWS.tasks(2), ROWS.spec, plan=Plan("vmap"))
    assert any(name.startswith("rates.") and gradient != 0 for name, gradient in gradients.items())


# MAML++


@pytest.mark.parametrize("plan", ["vmap", "loop", "loop+recompute", "vmap+sqrt"])
@pytest.mark.parametrize("progress", [0.0, 0.2, 1.0])
def test_the_meta_gradient_of_the_multi_step_loss_is_exact(plan, progress):
    learner = VALUES.learner(MAML, inner_steps=3, learn_inner_lr=True, inner_lr_per_step=True, multi_step_until=0.5)
    learner.progress.fill_(progress)
    check_meta_gradient(learner, VALUES, plan=Plan.parse(plan), alone=plan == "loop")


@pytest.mark.parametrize(
    ("progress", "shares"),
    [(0.0, [1 / 3, 1 / 3, 1 / 3]), (0.25, [1 / 6, 1 / 6, 4 / 6]), (0.5, [0, 0, 1]), (0.9, [0, 0, 1])],
)
@pytest.mark.parametrize("problem", [ROWS, VALUES], ids=str)
def test_the_multi_step_loss_goes_from_the_mean_over_steps_to_the_last_step(problem, progress, shares):
    """Each step's loss is that of a learner that stops there."""
    task = problem.task()
    after = [problem.learner(MAML, inner_steps=steps)(task, problem.spec) for steps in (1, 2, 3)]
    learner = problem.learner(MAML, inner_steps=3, multi_step_until=0.5)
    learner.progress.fill_(progress)
    expected = sum(share * loss for share, loss in zip(shares, after, strict=True))
    torch.testing.assert_close(learner(task, problem.spec), expected)
    assert abs(after[0] - after[2]) > 1e-4


@pytest.mark.parametrize("fast", ["*", "head.*"])
def test_each_step_may_have_a_rate_of_its_own(fast):
    options = {"inner_steps": 2, "learn_inner_lr": True, "fast": fast}
    learner, single = ROWS.learner(MAML, inner_lr_per_step=True, **options), ROWS.learner(MAML, **options)
    learner.load_state_dict(single.state_dict() | {n: t for n, t in learner.state_dict().items() if "rates" in n})
    task = ROWS.task()
    with torch.no_grad():
        for name, rate in learner.rates.items():
            rate.copy_(single.rates[name])
        states = [each.adapt(task.support, ROWS.spec)["weights"] for each in (learner, single)]
        close(*({name: state[name] for name in sorted(state)} for state in states))
        for rate in learner.rates.values():
            rate[1] = 0.0  # so that the second step stays where the first one ended
        one = ROWS.learner(MAML, **(options | {"inner_steps": 1}))
        one.load_state_dict(single.state_dict())
        states = [each.adapt(task.support, ROWS.spec)["weights"] for each in (learner, one)]
        close(*({name: state[name] for name in sorted(state)} for state in states))
    _, gradients = meta_gradient(learner, ROWS.tasks(2), ROWS.spec, plan=Plan("vmap"))
    slopes = gradients["rates.head/weight"]
    assert slopes.shape == (2,)
    assert slopes[0] != slopes[1]


@pytest.mark.parametrize("problem", [VALUES, IMAGES], ids=str)
@pytest.mark.parametrize(
    "options", [{"fast": "*"}, {"fast": "head.*"}, {"multi_step_until": 0.9}], ids=["all", "head", "multi-step"]
)
@pytest.mark.parametrize("plan", ["vmap", "loop+sqrt"])
def test_second_derivatives_may_come_later_in_training(plan, options, problem):
    """With batch norm too, of which the statistics, and all that they do to the query, are no second derivatives."""

    def of(progress, **order):
        learner = problem.learner(MAML, learn_inner_lr=True, **options, **order)
        learner.progress.fill_(progress)
        return meta_gradient(learner, problem.tasks(2), problem.spec, plan=Plan.parse(plan))

    close(of(0.29, first_order_until=0.3), of(0.29, first_order=True))
    first, full = of(0.31, first_order=True), of(0.31)
    close(of(0.31, first_order_until=0.3), full)
    assert any(not torch.allclose(first[1][name], full[1][name], rtol=1e-2) for name in full[1])


def test_every_weight_may_have_a_rate_of_its_own():
    """Meta-SGD's step, written out: a product of rates and gradient, element by element."""
    learner, task = VALUES.learner(MetaSGD), VALUES.task()
    names = [name.replace("/", ".") for name in learner.rates]
    own = dict(learner.named_parameters())
    assert all(learner.rates[name.replace(".", "/")].shape == own[name].shape for name in names)
    features = learner.backbone(task.support.inputs)
    loss = (F.linear(features, learner.head["weight"], learner.head["bias"]) - task.support.targets).square().mean()
    slopes = torch.autograd.grad(loss, [own[name] for name in names])
    state = learner.adapt(task.support, VALUES.spec)["weights"]
    assert set(state) == set(names)
    for name, slope in zip(names, slopes, strict=True):
        rate = learner.rates[name.replace(".", "/")]
        assert rate.std() > 0
        torch.testing.assert_close(state[name], own[name] - rate * slope)


def test_boil_adapts_the_body_and_leaves_the_head():
    learner, task = ROWS.learner(BOIL), ROWS.task()
    weights = learner.adapt(task.support, ROWS.spec)["weights"]
    assert weights
    assert all(name.startswith("backbone.") for name in weights)
    assert not learner.any_way
    assert torch.equal(
        learner(task, ROWS.spec), ROWS.learner(MAML, fast="backbone.*", head="slots", inner_lr=0.1)(task, ROWS.spec)
    )


@pytest.mark.parametrize("cls", [ANIL, BOIL, MetaSGD])
def test_kin_of_maml_take_all_of_its_options_but_those_that_they_fix(cls):
    assert {*options_of(cls), *cls.fixed_options} == {*options_of(MAML)}
    for option, value in cls.fixed_options.items():
        with pytest.raises(UserError, match=f"'{cls.key}' fixes the option '{option}' at {value!r}.*'maml'"):
            ROWS.learner(cls, **{option: value})


@pytest.mark.parametrize("cls", [ANIL, BOIL, MetaSGD])
@pytest.mark.parametrize(
    "options",
    [
        {"inner_steps": 3, "multi_step_until": 0.5},
        {"inner_steps": 2, "first_order_until": 0.5},
        {"inner_steps": 2, "learn_inner_lr": True, "inner_lr_per_step": True},
    ],
    ids=lambda options: next(reversed(options)),
)
def test_options_of_maml_plus_plus_work_for_its_kin(cls, options):
    options = {name: value for name, value in options.items() if name not in cls.fixed_options}
    learner, maml = ROWS.learner(cls, **options), ROWS.learner(MAML, **cls.own_defaults | options | cls.fixed_options)
    learner.progress.fill_(0.75)  # the second derivatives are there again
    maml.progress.fill_(0.75)
    if cls is not MetaSGD:  # the same algorithm by another name
        assert torch.equal(learner(ROWS.task(), ROWS.spec), maml(ROWS.task(), ROWS.spec))
    check_meta_gradient(learner, ROWS, plan=Plan("loop"))


def test_every_weight_may_have_a_rate_for_each_step():
    learner = ROWS.learner(MetaSGD, inner_steps=2, inner_lr_per_step=True)
    own = dict(learner.named_parameters())
    assert all(rate.shape == (2, *own[name.replace("/", ".")].shape) for name, rate in learner.rates.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner_lr_per_step": True}, "set learn_inner_lr too"),
        ({"multi_step_until": 1.5}, "from 0 to 1, not 1.5"),
    ],
)
def test_options_of_maml_plus_plus_that_cannot_work_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ROWS.learner(MAML, **options)


# Meta-regularization


def regularized(problem, **options):
    return problem.learner(ANIL, meta_regularization=0.01, **options)


@pytest.mark.parametrize("problem", [ROWS, VALUES], ids=str)
@pytest.mark.parametrize("plan", [Plan("loop"), Plan("vmap")], ids=str)
def test_the_gradient_of_meta_regularization_is_exact(problem, plan):
    check_meta_gradient(regularized(problem), problem, plan=plan)


def test_meta_regularization_keeps_the_contract():
    for options in ({}, {"normalization": "transductive"}):
        check_purity(regularized(IMAGES, **options), IMAGES)
    check_meta_gradients_agree(regularized(VALUES), VALUES)
    check_meta_gradient(VALUES.learner(MAML, fast="head.*", multi_step_until=0.5, meta_regularization=0.01), VALUES)


def test_the_divergence_is_that_of_normal_distributions():
    learner = regularized(VALUES)
    named = dict(learner.named_parameters())
    expected = 0.0
    for name, logarithm in learner.log_deviations.items():
        own = Normal(named[name.replace("/", ".")], logarithm.exp())
        expected += kl_divergence(own, Normal(torch.zeros_like(own.loc), torch.ones_like(own.scale))).sum()
    assert {name.partition("/")[0] for name in learner.log_deviations} == {"backbone"}
    torch.testing.assert_close(learner.divergence(), expected)


def test_without_noise_the_loss_is_that_of_the_means_and_the_divergence():
    """What recalibration sees, and what adapts and predicts."""
    plain, learner, task = VALUES.learner(ANIL), regularized(VALUES), VALUES.task()
    plain.load_state_dict(learner.state_dict(), strict=False)
    close(learner.adapt(task.support, VALUES.spec), plain.adapt(task.support, VALUES.spec))
    penalty = learner.meta_loss(task, VALUES.spec) - plain.meta_loss(task, VALUES.spec)
    torch.testing.assert_close(penalty, 0.01 * learner.divergence())


def test_weights_are_drawn_around_their_means_with_the_learned_deviations():
    """Support and query see the same draw: the loss is that of a network that has the drawn weights."""
    learner, task = regularized(VALUES), VALUES.task()
    noise = learner.draw_noise(task, VALUES.spec, torch.Generator().manual_seed(0))
    drawn = VALUES.learner(ANIL)
    drawn.load_state_dict(learner.state_dict(), strict=False)
    named = dict(drawn.named_parameters())
    with torch.no_grad():
        for name, normal in noise.items():
            named[name].add_(normal * learner.log_deviations[name.replace(".", "/")].exp())
    expected = drawn.meta_loss(task, VALUES.spec) + 0.01 * learner.divergence()
    torch.testing.assert_close(learner.meta_loss(task, VALUES.spec, noise), expected)


@pytest.mark.slow
def test_meta_regularization_lessens_memorization():
    """The inputs tell the training tasks: where less is known by heart new tasks gain, and old ones lose little."""
    errors = {}
    for strength in (0.0, 1e-4):
        tasks = Coded()
        options = {"backbone_options": {"hidden": (32,)}, "inner_lr": 0.01, "inner_steps": 2}
        learner = ANIL.build(tasks.spec, backbone="mlp", meta_regularization=strength, **options)
        settings = {"steps": 300, "meta_batch_size": 8, "outer_lr": 1e-2, "plan": "vmap"}
        meta_train(learner, tasks, validate_every=300, validation_tasks=10, **settings)
        errors[strength] = {on: evaluate(learner, tasks.split(on), tasks=100).score.mean for on in ("train", "test")}
    assert errors[1e-4]["test"] < 0.75 * errors[0.0]["test"]
    assert errors[1e-4]["train"] < 1.2 * errors[0.0]["train"]


@pytest.mark.parametrize(("cls", "strength"), [(MAML, 0.1), (ANIL, -1.0)])
def test_meta_regularization_needs_weights_that_do_not_adapt(cls, strength):
    with pytest.raises(UserError, match="meta_regularization"):
        VALUES.learner(cls, meta_regularization=strength)
    assert VALUES.learner(cls).draw_noise(VALUES.task(), VALUES.spec, torch.Generator()) is None
