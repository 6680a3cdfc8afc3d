"""The contract of learners, for every registered one on every kind of task that it can do.

Each `check_*` states one clause. `test_learners.py` itself proves at its end that every clause can fail, with learners
that break it on purpose.
"""

import copy
import gc
import hashlib
import math
import sys
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from contracts.problems import IMAGES, PROBLEMS, ROWS, SHARED, VALUES, can, cases, name_of, pausing, slow_on
from handful import backbones
from handful.engine.meta_gradient import meta_gradient
from handful.engine.over_tasks import over_tasks
from handful.engine.plan import Plan
from handful.errors import UserError
from handful.functional.normalization import BatchNorm, transforms
from handful.functional.stateless import tensors
from handful.learners.learned_optimizer import LearnedOptimizer
from handful.learners.learner import Learner
from handful.learners.neural_processes import AttentiveNeuralProcess, ConditionalNeuralProcess
from handful.learners.options import defaults_of
from handful.learners.prototypical import PrototypicalNetwork
from handful.registry import LEARNERS
from handful.storage import read_tensors, write_tensors
from handful.types import Categorical, Examples, Gaussian, Task, stack, take, to_device

CASES = cases()
META_TRAINED = [(cls, problem) for cls, problem in CASES if cls.meta_gradient != "none"]
EXACT = [(cls, problem) for cls, problem in CASES if cls.meta_gradient == "exact"]
CLASSIFIERS = [(cls, problem) for cls, problem in CASES if problem.spec.classification]

each_case = pytest.mark.parametrize(("cls", "problem"), CASES, ids=name_of)
each_meta_trained = pytest.mark.parametrize(("cls", "problem"), META_TRAINED, ids=name_of)


# Purity


@pytest.mark.parametrize(("cls", "problem"), slow_on(CASES, IMAGES), ids=name_of)
def test_adapt_predict_and_meta_loss_are_pure(cls, problem):
    check_purity(problem.learner(cls), problem)


def check_purity(learner, problem):
    task, spec = problem.task(), problem.spec
    noise = noise_for(learner, task, spec)
    before, chance, given = snapshot(learner), torch.get_rng_state(), copy.deepcopy(task)
    runs = []
    for _ in range(2):
        state = learner.adapt(task.support, spec)
        runs.append([state, learner.predict(state, task.query.inputs), learner.predict(state, task.query.inputs)])
        runs[-1].append(learner.meta_loss(task, spec, noise))
    learner.train()
    learner.meta_loss(task, spec, noise)
    learner.eval()
    assert snapshot(learner) == before, "the learner was written to"
    assert equal(task, given), "the task was written to"
    assert torch.equal(torch.get_rng_state(), chance), "the global random generator was used"
    assert equal(runs[0], runs[1]), "the same task gave two results"
    assert equal(runs[0][1], runs[0][2]), "predicting twice gave two answers"


# One task at a time or many


@pytest.mark.parametrize(("cls", "problem"), slow_on(CASES, IMAGES), ids=name_of)
def test_predictions_are_the_same_at_once_in_chunks_and_one_by_one(cls, problem):
    check_predictions_agree(problem.learner(cls), problem)


def check_predictions_agree(learner, problem):
    tasks = problem.tasks(3)

    def one(task):
        state = learner.adapt(task.support, problem.spec)
        return state, learner.predict(state, task.query.inputs)

    with torch.no_grad():
        (states, loop), (_, chunks), (_, vmap) = (over_tasks(one, (tasks,), plan) for plan in PLANS)
        _, single = one(take(tasks, 2))
        stacked = learner.predict_stacked(states, tasks.query.inputs)
    if stacked is not None:
        close(stacked, loop)
    close(chunks, loop)
    close(vmap, loop)
    close(take(loop, 2), single)


PLANS = (Plan("loop"), Plan("chunks", 2), Plan("vmap"))
OTHER_PLANS = (
    Plan("loop", threads=2, memory="sqrt"),
    Plan("chunks", 2, threads=2, memory="recompute"),
    Plan("vmap", memory="sqrt"),
)


@pytest.mark.parametrize(("cls", "problem"), slow_on(META_TRAINED, IMAGES, SHARED), ids=name_of)
def test_meta_gradients_are_the_same_under_every_plan(cls, problem):
    check_meta_gradients_agree(problem.learner(cls), problem)
    check_meta_gradients_agree(problem.learner(cls).train(), problem, PLANS[1:])


def check_meta_gradients_agree(learner, problem, plans=(*PLANS[1:], *OTHER_PLANS)):
    tasks = problem.tasks(3)
    noise = noise_for(learner, tasks, problem.spec, count=3)
    loop = meta_gradient(learner, tasks, problem.spec, plan=Plan("loop"), noise=noise)
    for plan in plans:
        close(meta_gradient(learner, tasks, problem.spec, plan=plan, noise=noise), loop)


# Devices


@each_case
def test_on_meta_it_is_shapes_alone(cls, problem):
    device = torch.device("meta")
    options = {"backbone": problem.backbone, "backbone_options": problem.options}
    learner, built = cls.build(problem.spec, device=device, **options), cls.build(problem.spec, **options)
    assert {learner.device} | {tensor.device for tensor in tensors(learner).values()} == {device}
    shapes = [[(name, tensor.shape) for name, tensor in tensors(each).items()] for each in (learner, built)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("cls", "problem"), slow_on(CASES, IMAGES), ids=name_of)
def test_everything_is_made_on_the_device_of_its_inputs(cls, problem):
    check_device(problem.learner(cls), problem)


def check_device(learner, problem):
    """What is made without naming a device comes to the default one, here "meta", which has no numbers.

    Most operations refuse to mix it with a CPU; indexing does not, and its results are then any numbers.
    """
    tasks = problem.tasks(2)
    plans = (Plan("loop"), Plan("vmap", memory="recompute")) if learner.meta_gradient != "none" else ()

    def found():
        noise = noise_for(learner, tasks, problem.spec, count=2)
        task, own = take((tasks, noise), 0)
        prediction = learner.predict(learner.adapt(task.support, problem.spec), task.query.inputs)
        loss = learner.meta_loss(task, problem.spec, own)
        return [prediction, loss, prediction.loss(task.query.targets), noise or {}] + [
            meta_gradient(learner, tasks, problem.spec, plan=plan, noise=noise) for plan in plans
        ]

    expected = found()
    with torch.device("meta"):
        there = found()
    assert equal(there, expected)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA, and there is none")
@each_case
def test_a_gpu_gives_the_predictions_and_meta_gradients_of_a_cpu(cls, problem):
    tasks, learner = problem.tasks(2), problem.learner(cls)
    noise = noise_for(learner, tasks, problem.spec, count=2)
    there, moved, drawn = copy.deepcopy(learner).to("cuda"), *to_device((tasks, noise), "cuda")

    def found(learner, tasks, noise, plan):
        support, (inputs, _) = take(tasks, 0)
        prediction = learner.predict(learner.adapt(support, problem.spec), inputs)
        if cls.meta_gradient == "none":
            return prediction
        return prediction, meta_gradient(learner, tasks, problem.spec, plan=plan, noise=noise)

    for plan in PLANS[::2]:
        close(to_device(found(there, moved, drawn, plan), "cpu"), found(learner, tasks, noise, plan), tolerance=1e-6)


# The meta-gradient


@pytest.mark.parametrize(("cls", "problem"), slow_on(EXACT, IMAGES), ids=name_of)
def test_meta_gradient_is_the_derivative_of_the_meta_loss(cls, problem):
    check_meta_gradient(problem.learner(cls), problem, alone=problem in (ROWS, VALUES))
    check_meta_gradient(problem.learner(cls).train(), problem, alone=False)


def check_meta_gradient(learner, problem, *, plan=Plan("loop"), tasks=None, alone=True):  # noqa: B008 - a frozen value
    """T5, T7: along a random direction of all meta-parameters, and of each of them alone.

    Losses are measured one task at a time, without `vmap`, whatever the plan.
    """
    tasks = problem.tasks(2) if tasks is None else tasks
    noise = noise_for(learner, tasks, problem.spec, count=2)
    losses, gradients = meta_gradient(learner, tasks, problem.spec, plan=plan, noise=noise)
    parameters = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    assert set(gradients) == set(parameters), "a meta-parameter has no gradient"
    assert losses.isfinite().all()
    generator = torch.Generator().manual_seed(1)
    directions = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in parameters.items()}

    def mean_loss():
        with torch.no_grad():
            return over_tasks(lambda task, own: learner(task, problem.spec, own), (tasks, noise), Plan("loop")).mean()

    for names in (list(parameters), *([name] for name in parameters if alone)):
        direction = {name: directions[name] for name in names}
        slope = sum((gradients[name] * directions[name]).sum() for name in names)
        measured = central_difference(mean_loss, parameters, direction)
        assert slope.isfinite(), f"the gradient of {names} is not finite"
        scale = max(abs(measured), abs(slope))
        assert abs(slope - measured) <= 1e-5 * scale + 1e-8, f"{names}: {slope:.10f}, but measured {measured:.10f}"


def central_difference(function, parameters, direction, size=2e-6):
    norm = sum(part.square().sum() for part in direction.values()).sqrt()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            kept = {name: parameters[name].clone() for name in direction}
            for name, part in direction.items():
                parameters[name] += sign * size / norm * part
            values.append(function())
            for name, value in kept.items():
                parameters[name].copy_(value)
    return (values[0] - values[1]) * norm / (2 * size)


@each_meta_trained
def test_some_of_the_meta_gradient_is_not_zero(cls, problem):
    _, gradients = meta_gradient(problem.learner(cls), problem.tasks(2), problem.spec, plan=Plan("loop"))
    assert sum(gradient.abs().sum() for gradient in gradients.values()) > 0


# Learning from the support


@pytest.mark.parametrize(("cls", "problem"), slow_on(CASES, IMAGES, SHARED), ids=name_of)
def test_the_support_is_what_the_answers_come_from(cls, problem):
    check_use_of_support(problem.learner(cls, steps=15 if cls.costly else 8), problem)


def check_use_of_support(learner, problem):
    """T14: with true labels better than chance, and with labels that say nothing no better than chance."""
    if learner.meta_gradient != "none":
        # At the rate of the others, rounding decides whether a learned rule comes by where it diverges.
        rate, steps = (0.001, 12) if isinstance(learner, LearnedOptimizer) else (0.01, 20)
        if problem is SHARED or isinstance(learner, (AttentiveNeuralProcess, ConditionalNeuralProcess)):
            steps *= 2  # these learn all of how they adapt, and on shared labels some learn it late
        meta_train(learner, problem, steps=5 if problem is IMAGES else steps, rate=rate)
    tasks = problem.tasks(20 if learner.costly else 80, seed=10_000)
    told_nothing = with_foreign_labels(tasks, problem)
    true, foreign = (scores(learner, which, problem) for which in (tasks, told_nothing))
    if not learner.uses_support:
        assert torch.equal(true, foreign)
    elif problem.spec.classification:
        chance = 1 / problem.spec.outputs
        assert true.mean() > chance + 0.15, f"{true.mean():.3f} is about chance"
        error = foreign.std() / len(foreign) ** 0.5
        assert abs(foreign.mean() - chance) < 4 * error, f"{foreign.mean():.3f} without knowing the labels"
    else:
        gain = true - foreign
        assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5, f"{-true.mean():.3f} and {-foreign.mean():.3f} without"


def with_foreign_labels(tasks, problem):
    """The same support inputs with labels that say nothing: class numbers renamed, targets of the next task."""
    targets = tasks.support.targets
    generator = torch.Generator().manual_seed(5)
    if problem.spec.classification:
        order = torch.stack([torch.randperm(targets.shape[1], generator=generator) for _ in targets])
        names = torch.stack([torch.randperm(problem.spec.outputs, generator=generator) for _ in targets])
        targets = names.gather(1, targets.gather(1, order))
    else:
        targets = targets.roll(1, 0)
    return tasks._replace(support=tasks.support._replace(targets=targets))


def scores(learner, tasks, problem):
    """Accuracy or negative squared error of each task."""

    def one(task):
        return learner.predict(learner.adapt(task.support, problem.spec), task.query.inputs)

    with torch.no_grad():
        predictions = over_tasks(one, (tasks,), Plan("vmap"))
    if isinstance(predictions, Categorical):
        return (predictions.logits.argmax(-1) == tasks.query.targets).double().mean(-1)
    return -(predictions.mean - tasks.query.targets).square().flatten(1).mean(-1)


def meta_train(learner, problem, steps, rate=0.01, meta_batch_size=4):
    optimizer = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], lr=rate)
    learner.train()
    for step in range(steps):
        tasks = problem.tasks(meta_batch_size, seed=step)
        noise = noise_for(learner, tasks, problem.spec, count=meta_batch_size, seed=step)
        _, gradients = meta_gradient(learner, tasks, problem.spec, plan=Plan("vmap"), noise=noise)
        for name, parameter in learner.named_parameters():
            parameter.grad = gradients.get(name)
        optimizer.step()
        optimizer.zero_grad()
    learner.eval()


# Transduction


@each_case
def test_a_query_is_answered_alone_as_among_others_unless_the_learner_says_so(cls, problem):
    for normalization in cls.normalizations:
        check_pointwise(problem.learner(cls, normalization=normalization), problem)


def check_pointwise(learner, problem):
    """T1."""
    task = problem.task()
    with torch.no_grad():
        state = learner.adapt(task.support, problem.spec)
        among = learner.predict(state, task.query.inputs)
        alone = stack([take(learner.predict(state, one.unsqueeze(0)), 0) for one in task.query.inputs])
    if learner.pointwise:
        close(alone, among, 1e-11)
    elif any(isinstance(layer, BatchNorm) for layer in learner.modules()):
        assert not torch.allclose(alone[0], among[0]), "it says that it is transductive, and is not"


@pytest.mark.parametrize(("cls", "problem"), [case for case in CASES if case[0].start != "raw"], ids=name_of)
def test_features_stand_for_inputs_where_the_learner_says_so(cls, problem):
    learner = problem.learner(cls)
    if learner.features_only:
        check_features(learner, problem)


def check_features(learner, problem):
    task, on_features = problem.task(), copy.deepcopy(learner)
    on_features.backbone = backbones.Raw((4,))
    with torch.no_grad():
        seen = Task(*(Examples(learner.feature_network(inputs), targets) for inputs, targets in task))
        state, same = learner.adapt(task.support, problem.spec), on_features.adapt(seen.support, problem.spec)
        close(same, state)
        close(on_features.predict(same, seen.query.inputs), learner.predict(state, task.query.inputs))


# The state


@each_case
def test_a_state_is_plain_tensors_that_survive_a_file(cls, problem, tmp_path):
    check_state(problem.learner(cls), problem, tmp_path)


def check_state(learner, problem, folder):
    task = problem.task()
    given = [*learner.parameters(), *learner.buffers(), *task.support]
    with torch.no_grad():
        state = learner.adapt(task.support, problem.spec)
        flat = flatten(state)
        for name, leaf in flat.items():
            assert leaf.is_contiguous(), f"{name} is not contiguous"
            assert not leaf.requires_grad, f"{name} holds a graph"
            size = leaf.untyped_storage().nbytes()
            assert size == leaf.numel() * leaf.element_size(), f"{name} is a part of a larger storage"
        places = [leaf.untyped_storage().data_ptr() for leaf in (*flat.values(), *given) if leaf.numel()]
        own = places[: len([leaf for leaf in flat.values() if leaf.numel()])]
        assert all(places.count(place) == 1 for place in own), "storage is shared"
        write_tensors(folder / "state.safetensors", flat, {})
        loaded, _, _ = read_tensors(folder / "state.safetensors")
        again = unflatten(state, loaded)
        assert equal(learner.predict(again, task.query.inputs), learner.predict(state, task.query.inputs))
        less = flatten(learner.adapt(Examples(*(leaf[:-1] for leaf in task.support)), problem.spec))
        grows = {name: leaf.shape for name, leaf in less.items()} != {name: leaf.shape for name, leaf in flat.items()}
        assert grows == learner.state_holds_examples, "numbers of each example are declared"


def flatten(state: Any, name: str = "") -> dict[str, Tensor]:
    """Names joined by `/` to tensors; asserts that there is nothing else."""
    if isinstance(state, Tensor):
        return {name: state}
    assert type(state) in (dict, list), f"{name or 'the state'} is a {type(state).__name__}"
    flat: dict[str, Tensor] = {}
    for key, value in state.items() if isinstance(state, dict) else enumerate(state):
        assert isinstance(state, list) or (isinstance(key, str) and "/" not in key), f"bad key {key!r}"
        flat |= flatten(value, f"{name}/{key}" if name else str(key))
    return flat


def unflatten(like: Any, flat: dict[str, Tensor], name: str = "") -> Any:
    if isinstance(like, Tensor):
        return flat[name]
    items = like.items() if isinstance(like, dict) else enumerate(like)
    built = {key: unflatten(value, flat, f"{name}/{key}" if name else str(key)) for key, value in items}
    return built if isinstance(like, dict) else list(built.values())


@each_case
def test_adapting_without_gradients_keeps_no_tensor_but_the_state(cls, problem):
    check_memory(problem.learner(cls), problem)


def check_memory(learner, problem):
    """T29: what meta-test holds in memory does not grow with tasks."""
    supports = [take(problem.tasks(4), index).support for index in range(4)]
    with torch.no_grad():
        learner.adapt(supports[0], problem.spec)
        gc.freeze()  # what there is by now is not counted again and again
        try:
            first = count_kept(learner.adapt(supports[1], problem.spec))
            learner.adapt(supports[2], problem.spec)
            second = count_kept(learner.adapt(supports[3], problem.spec))
        finally:
            gc.unfreeze()
    assert second <= first


def count_kept(state):
    """The tensors since the freeze, without those of a state."""
    gc.collect()
    alive = sum(type(thing) in (Tensor, nn.Parameter) for thing in gc.get_objects())
    return alive - len(pytree.tree_leaves(state))


# Classes


@pytest.mark.parametrize("cls", [cls for cls, problem in CASES if problem is SHARED], ids=name_of)
def test_an_absent_class_gets_a_finite_logit(cls):
    check_absent_class(SHARED.learner(cls), SHARED)


def check_absent_class(learner, problem):
    task = problem.task()
    for absent in range(problem.spec.outputs):
        present = task.support.targets != absent
        support = Examples(task.support.inputs[present], task.support.targets[present])
        prediction = learner.predict(learner.adapt(support, problem.spec), task.query.inputs)
        assert prediction.logits.isfinite().all()
        loss = learner.meta_loss(Task(support, task.query), problem.spec, noise_for(learner, task, problem.spec))
        assert loss.isfinite()


@pytest.mark.parametrize(("cls", "problem"), CLASSIFIERS, ids=name_of)
def test_any_way_or_a_clear_refusal(cls, problem):
    check_any_way(problem.learner(cls), problem)


def check_any_way(learner, problem):
    for way in (2, 5):
        task, spec = problem.task(way=way), replace(problem.spec, outputs=way)
        if learner.any_way:
            logits = learner.predict(learner.adapt(task.support, spec), task.query.inputs).logits
            assert logits.shape == (len(task.query.inputs), way)
            assert logits.isfinite().all()
        else:
            with pytest.raises(UserError, match=str(way)):
                learner.adapt(task.support, spec)


@pytest.mark.parametrize("cls", [cls for cls, problem in CASES if problem is VALUES], ids=name_of)
@pytest.mark.parametrize("outputs", [1, 3])
def test_another_number_of_values_is_learned_or_refused_and_never_broadcast(cls, outputs):
    learner, task, spec = VALUES.learner(cls), VALUES.task(), replace(VALUES.spec, outputs=outputs)
    support = Examples(task.support.inputs, task.support.targets[:, :1].repeat(1, outputs))
    try:
        prediction = learner.predict(learner.adapt(support, spec), task.query.inputs)
    except UserError:
        return
    assert prediction.mean.shape == (len(task.query.inputs), outputs)


@pytest.mark.parametrize("cls", [cls for cls, problem in CASES if problem is VALUES], ids=name_of)
def test_a_learner_of_values_says_whether_it_predicts_a_deviation(cls):
    learner, task = VALUES.learner(cls), VALUES.task()
    prediction = learner.predict(learner.adapt(task.support, VALUES.spec), task.query.inputs)
    assert isinstance(prediction, Gaussian) == cls.predicts_deviation


# Threads


@pytest.mark.parametrize(("cls", "problem"), [c for c in CASES if c[1] in (ROWS, VALUES)], ids=name_of)
def test_two_threads_on_one_learner_get_their_own_results(cls, problem):
    check_threads(replace(problem, backbone=pausing, options={}).learner(cls), problem)


@pytest.mark.parametrize("cls", [cls for cls, problem in META_TRAINED if problem is IMAGES], ids=name_of)
@pytest.mark.slow
def test_two_threads_on_one_convolutional_learner_get_their_own_results(cls):
    check_threads(IMAGES.learner(cls), IMAGES)


def check_threads(learner, problem):
    """Adapting, predicting and meta-gradients at once on one object, each thread with a task of its own."""
    tasks = problem.tasks(2)
    trained = learner.meta_gradient != "none"
    turns = [turn for plan in PLANS for turn in (None, plan)] if trained else [None]  # a prediction, or under a plan

    def work(index, plan):
        task = take(tasks, index)
        if plan is None:
            with torch.no_grad():
                return learner.predict(learner.adapt(task.support, problem.spec), task.query.inputs)
        noise = noise_for(learner, task, problem.spec)
        drawn = None if noise is None else stack([noise, noise])
        return meta_gradient(learner, stack([task, task]), problem.spec, plan=plan, noise=drawn)

    expected = {(index, plan): work(index, plan) for index in range(2) for plan in set(turns)}
    wrong: list[Any] = []
    together = threading.Barrier(2, timeout=60)  # else one may have ended before the other begins

    def run(which):
        try:
            together.wait()
            for call in range(6):
                plan = turns[(call + which) % len(turns)]
                if not equal(work(which, plan), expected[which, plan]):
                    wrong.append((which, plan))
        except Exception as error:  # a thread's own exception would be lost
            wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        threads = [threading.Thread(target=run, args=(which,)) for which in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong, f"{len(wrong)} wrong results, such as {wrong[0]!r}"


# Building


@pytest.mark.parametrize("cls", [cls for _, cls in LEARNERS.items()], ids=name_of)
def test_a_built_learner_answers_each_query_by_itself_at_once(cls):
    problem = next(problem for problem in PROBLEMS if can(cls, problem.spec))
    learner = cls.build(problem.spec, backbone=problem.backbone, backbone_options=problem.options)
    assert not any(module.training for module in learner.modules())


@pytest.mark.parametrize("cls", [cls for _, cls in LEARNERS.items()], ids=name_of)
def test_a_learner_is_made_by_build_alone(cls):
    """One made by calling the class would have no recipe: nothing could train, evaluate or save it."""
    problem = next(problem for problem in PROBLEMS if can(cls, problem.spec))
    network = backbones.make(problem.backbone, problem.spec.input_shape, options=problem.options)
    with pytest.raises(UserError, match=rf"{cls.__name__}\.build"):
        cls(problem.spec, network)
    learner = cls.build(problem.spec, backbone=problem.backbone, backbone_options=problem.options)
    copied = copy.deepcopy(learner)
    assert copied.recipe == learner.recipe
    assert torch.equal(copied.progress, learner.progress)


@pytest.mark.parametrize("cls", [cls for _, cls in LEARNERS.items()], ids=name_of)
def test_wrong_requests_are_answered_by_what_would_be_right(cls):
    problem = next(problem for problem in PROBLEMS if can(cls, problem.spec))
    for option, default in defaults_of(cls, problem.spec.kind).items():
        with pytest.raises(UserError, match=f"Did you mean '{option}'"):
            problem.learner(cls, **{option + "x": default})
        if isinstance(default, (int, float, bool)):
            with pytest.raises(UserError, match=option):
                problem.learner(cls, **{option: "a text"})
        impossible = {int: (-1,), float: (-1.0, math.nan)}
        for value in impossible.get(type(default), ()):
            with pytest.raises(UserError, match=f"{option}.*not {value}"):
                problem.learner(cls, **{option: value})
    with pytest.raises(UserError, match="surely_no_option"):
        problem.learner(cls, surely_no_option=1)
    for other in PROBLEMS:
        if other.spec.kind not in cls.kinds:
            with pytest.raises(UserError, match=f"Learners for {other.spec.kind}: .*maml"):
                other.learner(cls)


@each_case
def test_a_learner_is_built_again_from_its_recipe(cls, problem):
    learner = problem.learner(cls)
    recipe = learner.recipe
    again = LEARNERS[recipe["learner"]].build(
        recipe["spec"],
        backbone=recipe["backbone"],
        backbone_options=recipe["backbone_options"],
        normalization=recipe["normalization"],
        seed=recipe["seed"],
        **recipe["options"],
    )
    again.double().eval().load_state_dict(learner.state_dict())
    task = problem.task()
    first, second = (
        each.predict(each.adapt(task.support, problem.spec), task.query.inputs) for each in (learner, again)
    )
    assert equal(first, second)


@each_case
def test_every_learner_says_what_it_is(cls, problem):
    assert cls.summary().endswith(".")
    assert cls.normalizations
    assert LEARNERS[cls.key] is cls


# Learners that break one clause each: the clauses can fail


class Sound(PrototypicalNetwork):
    """Not registered, since it bears no key of its own."""


class WritesABuffer(Sound):
    def adapt(self, support, spec):
        next(m for m in self.modules() if isinstance(m, BatchNorm)).mean.add_(1)
        return super().adapt(support, spec)


class KeepsTheTask(Sound):
    def adapt(self, support, spec):
        self.kept = super().adapt(support, spec)
        return self.kept


class KeepsEveryState(Sound):
    def adapt(self, support, spec):
        self.kept = [*getattr(self, "kept", ()), super().adapt(support, spec)]
        return dict(self.kept[-1])


class RollsDice(Sound):
    def predict(self, state, inputs):
        return Categorical(super().predict(state, inputs).logits + torch.rand(()))


class MixesTheTasks(Sound):
    def predict_stacked(self, states, inputs):
        return super().predict_stacked(states, inputs.flip(0))


class DetachesOneLayer(Sound):
    def _classify(self, state, features):
        return super()._classify(state | {"prototypes": state["prototypes"].detach()}, features)


class DetachesTheScale(Sound):
    def _classify(self, state, features):
        return Categorical(
            super()._classify(state, features).logits / self.log_scale.exp() * self.log_scale.exp().detach()
        )


class DiffersUnderVmap(Sound):
    def _classify(self, state, features):
        logits = super()._classify(state, features).logits
        return Categorical(logits * 1.0001 if "Vmap" in transforms() else logits)


class LooksAtTheOthers(Sound):
    def predict(self, state, inputs):
        return super().predict(state, inputs - inputs.mean(0))


class CountsOnTheDefaultDevice(Sound):
    def _classify(self, state, features):
        return Categorical(super()._classify(state, features).logits + torch.zeros(3))


class Memorizes(Sound):
    """Answers from the query alone, as if class numbers meant the same in every task."""

    def _classify(self, state, features):
        return Categorical(features[:, :3] + 0 * super()._classify(state, features).logits)


class PeeksPastTheLabels(Sound):
    """Reads the order of the support, which the labels follow."""

    def _state(self, features, targets, spec):
        return super()._state(features, torch.arange(3).repeat_interleave(3).repeat(2)[: len(targets)], spec)


class ReturnsAView(Sound):
    def adapt(self, support, spec):
        state = super().adapt(support, spec)
        return state | {"prototypes": state["prototypes"].mT.contiguous().mT}


class KeepsTheSupport(Sound):
    def adapt(self, support, spec):
        return super().adapt(support, spec) | {"support": support.inputs}


class ForgetsAbsentClasses(Sound):
    def _state(self, features, targets, spec):
        member = F.one_hot(targets, spec.outputs).to(features)
        means = member.mT @ features / member.sum(0).unsqueeze(-1)
        return {"prototypes": means, "present": torch.ones(spec.outputs, dtype=torch.bool)}


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (WritesABuffer, check_purity),
        (KeepsTheTask, check_purity),
        (RollsDice, check_purity),
        (DiffersUnderVmap, check_predictions_agree),
        (MixesTheTasks, check_predictions_agree),
        (DiffersUnderVmap, check_meta_gradients_agree),
        (DetachesOneLayer, check_meta_gradient),
        (DetachesTheScale, check_meta_gradient),
        (Memorizes, check_use_of_support),
        (PeeksPastTheLabels, check_use_of_support),
        (LooksAtTheOthers, check_pointwise),
        (LooksAtTheOthers, check_features),
        (ForgetsAbsentClasses, check_absent_class),
        (KeepsEveryState, check_memory),
    ],
    ids=lambda value: value.__name__,
)
def test_a_learner_that_breaks_the_clause_is_caught(cls, check):
    check(ROWS.learner(Sound), ROWS)
    with pytest.raises(AssertionError):
        check(ROWS.learner(cls), ROWS)


def test_a_learner_that_makes_tensors_on_the_default_device_is_caught():
    check_device(ROWS.learner(Sound), ROWS)
    with pytest.raises(RuntimeError, match="meta"):
        check_device(ROWS.learner(CountsOnTheDefaultDevice), ROWS)


class Meeting(nn.Module):
    """Where the two threads of `check_threads` wait for each other in their first predictions: no chance is left."""

    def __init__(self):
        super().__init__()
        self.barrier = threading.Barrier(2, timeout=60)
        self.came = {threading.get_ident()}

    def forward(self, inputs):
        learning = torch.is_grad_enabled()  # on a copy of the learner, which no other thread has
        if not learning and threading.get_ident() not in self.came:
            self.came.add(threading.get_ident())
            self.barrier.wait()
        return inputs


def test_a_learner_that_keeps_its_task_is_caught_by_two_threads():
    both_adapted = Meeting()

    class AnswersFromItself(KeepsTheTask):
        def predict(self, state, inputs):
            inputs = both_adapted(inputs)
            return super().predict(self.kept, inputs)

    with pytest.raises(AssertionError, match="wrong results"):
        check_threads(ROWS.learner(AnswersFromItself), ROWS)


def test_a_learner_that_swaps_weights_into_a_shared_module_is_caught_by_two_threads():
    """What `functional_call` does to a module while it runs."""
    both_swapped, both_ran = Meeting(), Meeting()

    class SwapsWeights(Sound):
        def predict(self, state, inputs):
            module = nn.Sequential(both_swapped, self.backbone, both_ran)
            factor = state["prototypes"].mean()
            weights = {f"1.{name}": weight * factor for name, weight in tensors(self.backbone).items()}
            return self._classify(state, functional_call(module, weights, (inputs,)))

    with pytest.raises(AssertionError, match="wrong results"):
        check_threads(ROWS.learner(SwapsWeights), ROWS)


class KeepsACopyOfTheSupport(Sound):
    def adapt(self, support, spec):
        return super().adapt(support, spec) | {"support": support.inputs.clone()}


def test_a_state_that_holds_examples_without_saying_so_is_caught(tmp_path):
    with pytest.raises(AssertionError, match="numbers of each example are declared"):
        check_state(ROWS.learner(KeepsACopyOfTheSupport), ROWS, tmp_path)


@pytest.mark.parametrize("cls", [ReturnsAView, KeepsTheSupport], ids=lambda cls: cls.__name__)
def test_a_state_that_is_not_its_own_is_caught(cls, tmp_path):
    check_state(ROWS.learner(Sound), ROWS, tmp_path)
    with pytest.raises(AssertionError, match=r"contiguous|shared"):
        check_state(ROWS.learner(cls), ROWS, tmp_path)


# Comparing


def noise_for(learner: Learner, tasks: Task, spec: Any, *, count: int = 0, seed: int = 0) -> Any:
    """The noise of one task, or stacked for `count` tasks."""
    generator = torch.Generator().manual_seed(seed)
    if not count:
        return learner.draw_noise(tasks, spec, generator)
    drawn = [learner.draw_noise(take(tasks, index), spec, generator) for index in range(count)]
    return None if drawn[0] is None else stack(drawn)


def equal(first: Any, second: Any) -> bool:
    """Whether two pytrees are equal bit for bit."""
    if pytree.tree_structure(first) != pytree.tree_structure(second):
        return False
    return all(torch.equal(a, b) for a, b in zip(*map(pytree.tree_leaves, (first, second)), strict=True))


def close(first: Any, second: Any, tolerance: float = 1e-9) -> None:
    """Assert that two pytrees of float64 tensors are equal to rounding."""
    assert pytree.tree_structure(first) == pytree.tree_structure(second)
    for a, b in zip(*map(pytree.tree_leaves, (first, second)), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def snapshot(module: nn.Module) -> dict[str, Any]:
    """Everything that a module and its children hold: tensors by their hash, attributes by their value."""
    return {
        f"{name}.{key}": fingerprint(value)
        for name, child in module.named_modules()
        for key, value in vars(child).items()
    }


def fingerprint(value: Any) -> Any:
    if isinstance(value, Tensor):
        grad = value.grad if value.is_leaf else None
        return hashlib.sha256(value.detach().numpy().tobytes()).hexdigest(), value.requires_grad, fingerprint(grad)
    if isinstance(value, dict):
        return {key: fingerprint(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [fingerprint(item) for item in value]
    return id(value) if isinstance(value, nn.Module) else repr(value)
