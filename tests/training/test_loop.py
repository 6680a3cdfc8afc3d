"""The meta-training loop, on sine waves and on toys that go wrong on purpose."""

import math
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from contracts.problems import Unbatchable
from handful.cli.flags import flag
from handful.engine.meta_gradient import MetaGradient
from handful.engine.plan import Plan
from handful.errors import HandfulError, UserError
from handful.evaluation.intervals import Interval
from handful.evaluation.scoring import evaluate
from handful.events import META_TRAINING, PRETRAINING, NoteEvent, StepEvent, StoppedError, ValidationEvent, ignore
from handful.functional.normalization import BatchNorm
from handful.learners.learner import Learner
from handful.learners.maml import MAML
from handful.learners.prototypical import PrototypicalNetwork
from handful.registry import LEARNERS, METRICS
from handful.storage import read_tensors
from handful.tasks.distribution import BLOCK, Pool, TaskDistribution
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.sine import Sine
from handful.tasks.task_collection import TaskCollection
from handful.training import loop
from handful.training.loop import meta_train
from handful.training.run import Run
from handful.training.settings import Settings
from handful.types import Categorical, Examples, Point, Task, TaskSpec
from noted import noted


class Line(Learner):
    """One number for all tasks, whose loss may be noisy. Not registered."""

    kinds = frozenset({"regression"})

    def __init__(self, spec, backbone, *, noisy: bool = False, bad_step: int = 10**9) -> None:
        super().__init__()
        self.backbone, self.noisy, self.bad_step = nn.Identity(), noisy, bad_step
        self.slope = nn.Parameter(torch.zeros(1))
        self.seen = []

    def adapt(self, support, spec):
        return {"slope": self.slope.clone()}

    def predict(self, state, inputs):
        return Point(inputs * state["slope"])

    def meta_loss(self, task, spec, noise=None):
        if noise is None:
            return super().meta_loss(task, spec)
        return (self.slope - noise["target"]).square().sum()

    def draw_noise(self, task, spec, generator):
        if not self.noisy:
            return None
        target = torch.randn(1, generator=generator)
        self.seen.append(float(target))
        return {"target": target}


type.__setattr__(Line, "key", "line")  # after the class is made, so that the registry does not know it


class Same(TaskDistribution):
    """Every task is y = x."""

    def spec_for(self, sizes):
        return TaskSpec("regression", (1,), 1, "shared")

    def sample(self, generator, sizes):
        x = torch.randn(6, 1, generator=generator)
        return Task(Examples(x, x), Examples(x, x))


class Shared(Same):
    """The same with a pool: its answers mean the same everywhere."""

    def pool(self):
        def draw(generator, count):
            x = torch.randn(count, 1, generator=generator)
            return Examples(x, x)

        return Pool(1, draw)


def line(**options):
    return Line.build(Same().spec, backbone="raw", **options)


def small_maml(tasks):
    return MAML.build(tasks.spec, backbone="mlp", backbone_options={"hidden": [8]}, inner_steps=1)


def pool(width: int = 6) -> LabeledPool:
    """Vectors around a mean for each of 30 classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(30).repeat_interleave(8)
    inputs = 3 * torch.randn(30, width, generator=generator)[labels]
    inputs = inputs + torch.randn(len(labels), width, generator=generator)
    splits = {"train": range(18), "val": range(18, 24), "test": range(24, 30)}
    tasks = LabeledPool(inputs, labels, [f"c{i}" for i in range(30)], splits=splits)
    return tasks.with_sizes(way=3, shot=2, query_shot=3)


def validation_of(error, *, lost=0, draws=100):
    """An evaluation with this mean squared error, of which some draws diverged."""
    scores = torch.full((draws,), error).scatter(0, torch.arange(lost), torch.inf)
    score = Interval(error, -math.inf, math.inf, draws - lost, diverged=lost)
    return SimpleNamespace(score=score, scores=scores, unscored=lost, metric=METRICS["rmse"])


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.1), (7, 0.1), (100, 0.1), (1000, 0.05), (50, 0.9)])
def test_the_rate_rises_peaks_once_and_decays_to_almost_nothing(steps, warmup):
    """T28."""
    settings = Settings(steps=steps, outer_lr=0.01, warmup=warmup)
    rates = [settings.rate(step, steps) for step in range(steps)]
    peak = rates.index(max(rates))
    assert all(rate > 0 for rate in rates)
    assert max(rates) == pytest.approx(0.01)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    if steps >= 50:
        assert peak == pytest.approx(warmup * steps, abs=1)
        assert rates[0] <= 0.01 / (warmup * steps) * 1.01
        assert settings.rate(steps, steps) == pytest.approx(0, abs=1e-12)
        assert rates[-1] < 0.011 * (1 + math.cos(math.pi * (1 - 1 / (steps - warmup * steps)))) / 2 + 1e-9


def test_the_optimizer_is_run_at_the_scheduled_rates(monkeypatch):
    """T28: a schedule that is computed and not used would pass the test above."""
    used = []
    step = torch.optim.AdamW.step

    def watch(self, *arguments, **options):
        used.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    meta_train(line(), Same(), steps=12, outer_lr=0.02, validation_tasks=2)
    assert used == [Settings(steps=12, outer_lr=0.02).rate(index, 12) for index in range(12)]


def test_the_weights_of_the_best_validation_are_kept():
    """Whatever the last ones are: here the scores are dictated, best at the third of five validations."""
    learner = line()
    weights = []

    def scored(learner, validation, tasks, metric=None):
        weights.append(learner.slope.detach().clone())
        return validation_of([3.0, 2.0, 1.0, 4.0, 1.0][len(weights) - 1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate", scored)
        trained = meta_train(learner, Same(), steps=10, validate_every=2, outer_lr=0.05)
    assert trained.best_step == 6
    assert trained.best_score == 1.0
    assert len({weight.item() for weight in weights}) == 5
    assert torch.equal(learner.slope, weights[2])
    assert not learner.training
    assert [row["step"] for row in trained.history if "val" in row] == [2, 4, 6, 8, 10]


@pytest.mark.parametrize("metric", ["log-likelihood", "rmse"])
def test_the_best_validation_is_by_the_metric_s_own_direction(metric):
    learner = line()
    scores = iter([3.0, 2.0, 1.0, 4.0, 1.5])

    def scored(learner, validation, tasks, metric):
        found = validation_of(next(scores))
        found.metric = METRICS[metric]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate", scored)
        trained = meta_train(learner, Same(), steps=10, validate_every=2, metric=metric)
    assert trained.best_step == {"log-likelihood": 8, "rmse": 6}[metric]


def test_a_metric_that_is_undefined_on_all_validation_tasks_is_refused():
    with pytest.raises(UserError, match="'log-likelihood' is undefined on all validation tasks"):
        meta_train(line(), Same(), steps=2, validation_tasks=3, metric="log-likelihood")
    with pytest.raises(UserError, match="'auc' cannot score regression"):
        meta_train(line(), Same(), steps=2, metric="auc")


def test_a_higher_accuracy_is_the_better_one():
    scores = []
    tasks = pool()
    learner = PrototypicalNetwork.build(tasks.spec, backbone="mlp", backbone_options={"hidden": [8]})

    def hear(event):
        if isinstance(event, ValidationEvent):
            scores.append(event.score)

    trained = meta_train(learner, tasks, steps=10, outer_lr=0.01, validation_tasks=20, on_event=hear)
    assert trained.best_score == max(scores)


def worsening(**settings):
    """A training whose rate is so high that validation only falls, and what it told."""
    learner = PrototypicalNetwork.build(pool().spec, backbone="linear")
    heard = []
    found = meta_train(learner, pool(), steps=60, validate_every=10, outer_lr=3.0, on_event=heard.append, **settings)
    return learner, found, heard


def test_weights_that_know_something_are_kept_where_training_makes_them_worse():
    start = PrototypicalNetwork.build(pool().spec, backbone="linear").state_dict()
    learner, found, _ = worsening(validate_start=True)
    assert found.best_step == 0
    assert found.history[0].keys() == {"step", "seconds", "val"}
    assert [row["step"] for row in found.history if "val" in row] == [0, 10, 20, 30, 40, 50, 60]
    assert all(torch.equal(tensor, start[name]) for name, tensor in learner.state_dict().items())
    assert worsening()[1].best_score < found.best_score


def test_training_ends_where_validation_no_longer_rises(tmp_path):
    _, found, heard = worsening(validate_start=True, patience=2, run=Run.open(tmp_path / "run", {}))
    assert found.history[-1]["step"] == 20
    assert [event.message for event in heard if isinstance(event, NoteEvent)] == [
        "Stopped after step 20: no validation has been better since step 0."
    ]
    *_, again = worsening(validate_start=True, patience=2, run=Run.open(tmp_path / "run", {}, resume=True))
    assert not [event for event in again if isinstance(event, StepEvent)], "what has ended is not gone on with"


def test_training_lowers_the_error():
    learner = line()
    trained = meta_train(learner, Same(), steps=60, outer_lr=0.1, validation_tasks=10)
    assert learner.slope.item() == pytest.approx(1, abs=0.1)
    assert trained.best_score < 0.01
    assert trained.history[-1]["loss"] < 0.1 * trained.history[0]["loss"]


@pytest.mark.parametrize("fault", ["loss", "gradient", "validation", "matrix", "matrix of validation"])
def test_a_training_that_diverges_stops_with_the_last_checkpoint_intact(fault, tmp_path, monkeypatch):
    run = Run.open(tmp_path / "run", {})
    calls = []

    def broken(self, *arguments):
        losses, gradients = MetaGradient.__call__(self, *arguments)
        calls.append(1)
        if len(calls) <= 4 or "validation" in fault:
            return losses, gradients
        if fault == "matrix":
            torch.linalg.cholesky(-torch.eye(2))
        if fault == "loss":
            return losses * torch.inf, gradients
        return losses, {name: gradient * torch.nan for name, gradient in gradients.items()}

    monkeypatch.setattr(loop, "MetaGradient", type("Broken", (MetaGradient,), {"__call__": broken}))
    if "validation" in fault:

        def scored(learner, validation, tasks, metric=None):
            if fault == "matrix of validation" and len(calls) > 4:
                torch.linalg.cholesky(-torch.eye(2))
            return validation_of(1.0, lost=6 if len(calls) > 4 else 0)

        monkeypatch.setattr(loop, "evaluate", scored)
    with pytest.raises(HandfulError, match=r"diverged with outer_lr 0\.25\. Lower outer_lr="):
        meta_train(line(), Same(), steps=8, validate_every=1, checkpoint_every=1, outer_lr=0.25, run=run)
    newest = run._checkpoints()[0]
    tensors, facts, _ = read_tensors(newest)
    assert facts["step"] == 4
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_a_few_validation_draws_that_diverge_do_not_stop_a_training(tmp_path, monkeypatch):
    """Weights with which fewer diverge are better, whatever the error of the rest."""
    scores = iter([(3.0, 1), (0.5, 5), (2.0, 1), (1.0, 2), (2.5, 1)])

    def scored(learner, validation, tasks, metric=None):
        error, lost = next(scores)
        return validation_of(error, lost=lost)

    monkeypatch.setattr(loop, "evaluate", scored)
    heard, run = [], Run.open(tmp_path / "run", {})
    trained = meta_train(line(), Same(), steps=10, validate_every=2, run=run, on_event=heard.append)
    assert (trained.best_step, trained.best_score, trained.best_diverged) == (6, 2.0, 1)
    assert [row["val_diverged"] for row in trained.history if "val" in row] == [1, 5, 1, 2, 1]
    assert [event.diverged for event in heard if isinstance(event, ValidationEvent)] == [1, 5, 1, 2, 1]
    _, facts, _ = read_tensors(run._checkpoints()[0])
    assert (facts["best_diverged"], facts["best_rank"]) == (1, [-1, -2.0])


def test_a_classifier_that_diverges_stops_too():
    """An accuracy is a finite number also where no prediction is."""

    class Failing(PrototypicalNetwork):
        def predict(self, state, inputs):
            return Categorical(super().predict(state, inputs).logits * (1 if self.training else torch.nan))

    tasks = pool()
    learner = Failing.build(tasks.spec, backbone="mlp", backbone_options={"hidden": [8]})
    with pytest.raises(HandfulError, match=r"on 20 of 20 validation draws at step 2: the training diverged"):
        meta_train(learner, tasks, steps=2, validation_tasks=20)


def test_a_learner_that_solves_for_its_head_diverges_as_others_do():
    """Its matrix is not positive definite any more before any number is infinite."""
    tasks = Sine()
    learner = LEARNERS["bayesian-last-layer"].build(tasks.spec, backbone="mlp", backbone_options={"hidden": [8]})
    with pytest.raises(HandfulError, match=r"diverged with outer_lr 1e\+25\."):
        meta_train(learner, tasks, steps=20, outer_lr=1e25, validation_tasks=2, plan="vmap")


def test_noise_is_each_task_s_own_and_the_same_under_every_plan():
    """T11."""
    results = {}
    for plan in (Plan("vmap"), Plan("loop"), Plan("chunks", 3)):
        learner = line(noisy=True)
        trained = meta_train(
            learner, Same(), steps=5, meta_batch_size=4, outer_lr=0.1, validation_tasks=2, plan=plan, seed=3
        )
        seen = learner.seen[1:]  # the first task is looked at before training
        assert len(set(seen)) == len(seen) >= 20, "no two tasks share their noise"
        results[plan] = torch.tensor([row["loss"] for row in trained.history])
    first, *others = results.values()
    for other in others:
        assert torch.allclose(first, other, rtol=1e-5)


def test_noise_follows_the_seed():
    """T11: the same seed draws the same noise again, another seed other noise."""
    drawn = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        learner = line(noisy=True)
        meta_train(learner, Same(), steps=3, validation_tasks=2, seed=seed)
        drawn[name] = learner.seen
    assert drawn["a"] == drawn["b"]
    assert not set(drawn["a"]) & set(drawn["c"])


def test_the_same_seed_gives_the_same_bits_whatever_the_global_generator_is_at():
    tasks = Sine()
    weights = []
    for elsewhere in (1, 2):
        torch.manual_seed(elsewhere)
        learner = small_maml(tasks)
        meta_train(learner, tasks, steps=4, validation_tasks=3)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in learner.parameters()]))
    assert torch.equal(*weights)


def test_training_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    learner = line(noisy=True)
    meta_train(learner, Same(), steps=3, validation_tasks=3)
    meta_train(small_maml(Sine()), Sine(), steps=3, validation_tasks=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [3, 5, 48, 128])
def test_a_meta_batch_that_does_not_divide_the_block_is_refused(size):
    assert BLOCK % size
    with pytest.raises(UserError, match="meta_batch_size is 1, 2, 4, 8, 16, 32 or 64"):
        Settings(meta_batch_size=size)


@pytest.mark.parametrize("size", [1, 2, 4, 64])
def test_a_meta_batch_that_divides_the_block_is_taken(size):
    assert Settings(meta_batch_size=size).meta_batch_size == size


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"outer_lr": 0.0}, "outer_lr"),
        ({"outer_lr": float("nan")}, "outer_lr"),
        ({"validation_tasks": 0}, "validation_tasks"),
        ({"step": 10}, "Did you mean 'steps'"),
        ({"steps": 10.0}, "steps is a whole number, not 10.0"),
        ({"steps": True}, "steps is a whole number, not True"),
        ({"outer_lr": "0.1"}, "outer_lr is a finite number, not '0.1'"),
        ({"weight_decay": "abc"}, "weight_decay is a finite number, not 'abc'"),
        ({"weight_decay": math.inf}, "weight_decay is a finite number, not inf"),
        ({"weight_decay": -1}, "weight_decay is at least 0, got -1"),
        ({"seed": None}, "seed is a whole number, not None"),
        ({"clip": 0}, "clip is a number above 0, got 0"),
        ({"clip": math.nan}, "clip is a finite number, not nan"),
        ({"warmup": 5.0}, "warmup is a fraction of all steps"),
        ({"validate_every": -3}, "validate_every is at least 0"),
    ],
)
def test_a_setting_that_means_nothing_is_named(settings, named):
    with pytest.raises(UserError, match=named):
        meta_train(line(), Same(), **settings)


def test_the_option_of_a_wrong_setting_is_named():
    with pytest.raises(UserError) as raised:
        Settings(outer_lr=math.nan)
    assert raised.value.spelled(flag) == "The setting outer_lr is a finite number, not nan. Change --outer-lr."


def test_numbers_of_numpy_are_numbers():
    assert Settings(steps=np.int64(5), outer_lr=np.float32(0.1)).steps == 5
    assert (
        MAML.build(TaskSpec("regression", (1,), 1), inner_steps=np.int64(3), inner_lr=np.float32(0.5)).inner_steps == 3
    )


def test_what_has_nothing_to_train_is_refused():
    tasks = pool()
    with pytest.raises(UserError, match="nothing to meta-train"):
        meta_train(LEARNERS["centroid"].build(tasks.spec), tasks, steps=1)


def test_validation_tasks_that_the_learner_cannot_do_are_refused_before_the_first_step():
    tasks = pool()
    learner = MAML.build(tasks.spec, head="slots", backbone="mlp")
    heard = []
    with pytest.raises(UserError, match="3 classes only"):
        meta_train(learner, tasks, validation=tasks.split("val").with_sizes(way=2), steps=1, on_event=heard.append)
    assert not heard


def test_statistics_are_made_precise_before_each_validation(monkeypatch):
    """A frozen batch norm validates with the mean statistics of training tasks under the weights of that moment."""
    tasks = pool()

    def network(input_shape):
        return nn.Sequential(nn.Linear(6, 4), BatchNorm(4), nn.ReLU())

    learner = PrototypicalNetwork.build(tasks.spec, backbone=network)
    norm = next(module for module in learner.modules() if isinstance(module, BatchNorm))
    seen = []
    evaluate = loop.evaluate

    def watch(*arguments, **options):
        with torch.no_grad():
            linear = learner.backbone[0]
            batches = [tasks.task(index) for index in range(loop.RECALIBRATION_TASKS)]
            passes = [linear(torch.cat([part.inputs for part in task])).mean(0) for task in batches]
        seen.append((norm.mean.clone(), torch.stack(passes).mean(0)))
        return evaluate(*arguments, **options)

    monkeypatch.setattr(loop, "evaluate", watch)
    meta_train(learner, tasks, steps=4, validate_every=2, outer_lr=0.05, validation_tasks=4)
    assert len(seen) == 2
    for found, expected in seen:
        assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(seen[0][0], seen[1][0])


def shops() -> TaskCollection:
    """Regression tasks of 9, 11 and 30 rows."""
    counts = torch.tensor([9, 11, 30] * 6 + [30] * 6)
    tasks = torch.arange(24).repeat_interleave(counts)
    inputs = torch.randn(len(tasks), 2, generator=torch.Generator().manual_seed(0))
    splits = {"train": range(18), "val": range(18, 24), "test": range(18, 24)}
    names = [f"s{number}" for number in range(24)]
    shops = TaskCollection(inputs, inputs[:, :1], tasks, names, splits=splits).with_sizes(shot=4, query_shot=8)
    shops.seed = next(seed for seed in range(99) if _first_block_is_small(shops, seed))
    return shops


def _first_block_is_small(shops, seed) -> bool:
    shops.seed = seed
    return shops.sizes_of(0).query_shot < shops.sizes_of(BLOCK).query_shot


def test_where_sizes_vary_the_plan_is_made_for_the_largest_and_not_compiled(monkeypatch):
    planned, seen = loop.planned, []

    def watch(learner, tasks, spec, *, compilable, **options):
        seen.append((tasks.support.inputs.shape, tasks.query.inputs.shape, compilable))
        return planned(learner, tasks, spec, compilable=compilable, **options)

    monkeypatch.setattr(loop, "planned", watch)
    tasks = shops()
    found = meta_train(small_maml(tasks), tasks, steps=2, meta_batch_size=4)
    assert seen == [((4, 4, 2), (4, 7, 2), False)]
    assert 4 + 5 <= found.examples / 8 < 4 + 7, "the mean size of all blocks"
    plain = tasks.with_sizes(shot=2, query_shot=2)
    assert meta_train(small_maml(plain), plain, steps=2, meta_batch_size=4).examples == 8 * 4
    assert seen[1] == ((4, 2, 2), (4, 2, 2), True)


def test_normalization_is_measured_on_tasks_of_all_sizes(monkeypatch):
    drawn, tasks = [], shops()
    monkeypatch.setattr(loop, "recalibrate", lambda learner, passes: [one() for one in passes])
    learner = small_maml(tasks)
    monkeypatch.setattr(learner, "meta_loss", lambda task, spec: drawn.append(len(task.query.inputs)))
    training = loop.Training(learner, tasks, tasks.split("val"), Settings(steps=1, validation_tasks=2))
    training.validate()
    assert len(set(drawn)) > 1


def rows():
    """Twelve classes of rows, four examples of each."""
    labels = torch.arange(12).repeat_interleave(4)
    inputs = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))[labels]
    splits = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
    pool = LabeledPool(inputs, labels, [str(label) for label in range(12)], splits=splits)
    return pool.with_sizes(way=3, shot=1, query_shot=2)


def normalized(input_shape):
    """A network with statistics of its own, which pre-training sets at its end."""
    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU())


class Killed(BaseException):
    """The process ends here."""


def pretrained(run=None, on_event=ignore, **settings):
    learner = PrototypicalNetwork.build(rows().spec, backbone="mlp", backbone_options={"hidden": (8,)})
    told = []

    def hear(event):
        if isinstance(event, StepEvent) and event.work == PRETRAINING:
            told.append(event.done)
        on_event(event)

    meta_train(learner, rows(), run=run, on_event=hear, steps=4, **settings)
    return learner.state_dict(), told


def test_pre_training_comes_first_counts_as_seen_and_is_not_repeated_on_resume(tmp_path):
    whole, told = pretrained(pretrain_examples=512)
    plain, none = pretrained()
    assert told == [128, 256, 384, 512]
    assert none == []
    assert any(not torch.equal(whole[name], plain[name]) for name in whole)

    def stop(event):
        if isinstance(event, StepEvent) and event.work == META_TRAINING and event.done == 2:
            raise KeyboardInterrupt

    run = Run.open(tmp_path / "run", {})
    with pytest.raises(KeyboardInterrupt):
        pretrained(run, stop, pretrain_examples=512)
    resumed, told = pretrained(run, pretrain_examples=512)
    assert told == []
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("plan", [None, "loop+threads:2"])
@pytest.mark.parametrize("fault", ["kill", "stop"])
@pytest.mark.parametrize("key", ["protonet", "transfer", "pooled"])
def test_a_pre_training_that_was_interrupted_goes_on_to_the_same_bits(key, fault, plan, tmp_path, monkeypatch):
    """What a step of pre-training has done is lost neither to a stop nor, but for the last seconds, to a kill."""
    monkeypatch.setattr("handful.training.checkpoint.SAVE_AFTER", 0.0)
    tasks = Shared() if key == "pooled" else rows()

    def trained(run, stop_at=None):
        learner = LEARNERS[key].build(tasks.spec, backbone=normalized)
        seen, stop = [], threading.Event()

        def hear(event):
            if not isinstance(event, StepEvent) or event.work != PRETRAINING:
                return
            seen.append(event.done)
            if event.done == stop_at:
                if fault == "kill":
                    raise Killed
                stop.set()

        meta_train(learner, tasks, run=run, on_event=hear, stop=stop, steps=4, pretrain_examples=640, plan=plan)
        return learner.state_dict(), seen, run

    whole, seen, _ = trained(Run.open(tmp_path / "whole", {}))
    assert seen == [128, 256, 384, 512, 640]
    with pytest.raises(Killed if fault == "kill" else StoppedError):
        trained(Run.open(tmp_path / "run", {}), stop_at=384)
    resumed, seen, run = trained(Run.open(tmp_path / "run", {}, resume=True))
    assert seen == ([512, 640] if fault == "kill" else [640])
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not any(name.startswith("pretraining") for name in read_tensors(run._checkpoints()[0])[0])


def test_the_plan_of_a_pre_training_is_the_plan_of_its_run(tmp_path, monkeypatch):
    """It is chosen by the clock: another choice would have other last bits."""
    run = Run.open(tmp_path / "run", {})

    def other(*arguments, **options):
        raise AssertionError("planned again")

    learner = PrototypicalNetwork.build(rows().spec, backbone=normalized)
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        meta_train(learner, rows(), run=run, stop=stop, steps=2, pretrain_examples=256)
    monkeypatch.setattr("handful.training.loop.planned", other)
    assert meta_train(learner, rows(), run=run, steps=2, pretrain_examples=256).plan is not None


@pytest.mark.parametrize("saved", [False, True])
def test_a_stop_from_another_thread_finishes_the_step_and_saves_it(saved, tmp_path):
    """No signal is needed, so that a service can stop a training; what follows has the bits of one left in peace."""

    def trained(run, at=None):
        learner, stop, seen = line(noisy=True), threading.Event(), []

        def hear(event):
            if isinstance(event, StepEvent):
                seen.append(event.done)
                if event.done == at:
                    stop.set()

        meta_train(learner, Same(), run=run, on_event=hear, stop=stop, steps=6, checkpoint_every=6, plan="vmap")
        return learner.slope, seen

    whole, _ = trained(None)
    run, ended = Run.open(tmp_path / "run", {}) if saved else None, []

    def work():
        with pytest.raises(StoppedError, match="after step 3"):
            trained(run, at=3)
        ended.append(True)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended
    assert signal.getsignal(signal.SIGINT) is before
    slope, seen = trained(run)
    assert seen == ([4, 5, 6] if saved else [1, 2, 3, 4, 5, 6])
    assert torch.equal(slope, whole)


def test_training_leaves_the_handling_of_signals_to_the_program(tmp_path):
    handlers, own = set(), signal.getsignal(signal.SIGINT)
    learner = PrototypicalNetwork.build(rows().spec, backbone="mlp", backbone_options={"hidden": (4,)})
    hear = lambda event: handlers.add(signal.getsignal(signal.SIGINT))  # noqa: E731
    run = Run.open(tmp_path / "run", {})
    meta_train(learner, rows(), run=run, on_event=hear, steps=1, validation_tasks=2, pretrain_examples=128)
    assert handlers == {own}


def test_tasks_without_a_pool_cannot_be_pre_trained_on():
    tasks = Sine()
    with pytest.raises(UserError, match="have no common examples to pre-train on"):
        meta_train(small_maml(tasks), tasks, steps=1, pretrain_examples=10)
    with pytest.raises(UserError, match="pretrain_examples is at least 0"):
        Settings(pretrain_examples=-1)


@pytest.mark.parametrize("key", ["protonet", "meta-sgd"])
def test_weight_decay_pulls_weights_alone(key):
    """Not biases, temperatures and rates: zero is no simpler a value of these."""
    learner = LEARNERS[key].build(rows().spec, backbone="mlp", backbone_options={"hidden": (8,)})
    own = dict(learner.named_parameters())
    weights = [name for name in own if name.startswith("backbone.") and name.endswith("weight")]
    others = [name for name, p in own.items() if name not in weights and p.requires_grad]
    with torch.no_grad():
        for name in others:
            own[name].fill_(3.0)
    before = {name: own[name].norm().item() for name in weights}
    meta_train(learner, rows(), steps=20, outer_lr=1e-4, weight_decay=1000.0, validate_every=20)
    assert all(own[name].norm() < 0.5 * before[name] for name in weights)
    assert others
    assert all((own[name] - 3.0).abs().max() < 0.01 for name in others)


def test_a_pre_trained_rung_is_trained_by_pre_training_alone(tmp_path):
    """What a report recommends instead of meta-learning can be had."""

    def transfer():
        return LEARNERS["transfer"].build(rows().spec, backbone="mlp", backbone_options={"hidden": (8,)})

    learner, untrained, run = transfer(), transfer(), Run.open(tmp_path / "run", {})
    trained = meta_train(learner, rows(), run=run, pretrain_examples=256)
    assert trained.examples == 256
    assert [row["step"] for row in run.metrics()] == [0]
    assert not torch.equal(learner.backbone.layers[0].weight, untrained.backbone.layers[0].weight)
    with pytest.raises(UserError, match="pretrain_examples="):
        meta_train(transfer(), rows())


def test_a_network_without_batching_rules_trains_and_is_evaluated():
    tasks = Sine()
    learner = MAML.build(tasks.spec, backbone=Unbatchable, inner_steps=1)
    with noted("MAML adapts and predicts one task after another"):
        trained = meta_train(learner, tasks, steps=2, validation_tasks=4)
    assert trained.plan == Plan("loop")
    assert evaluate(learner, tasks.split("test"), tasks=4).score.tasks == 4


@pytest.mark.parametrize("plan", ["vmapp", 3, {"backend": "vmap"}])
def test_a_plan_that_is_none_is_refused(plan):
    tasks = Sine()
    with pytest.raises(UserError, match="plan"):
        meta_train(MAML.build(tasks.spec), tasks, steps=2, plan=plan)


class Curriculum(Line):
    """Its loss pulls toward how much of training is done."""

    def meta_loss(self, task, spec, noise=None):
        return (self.slope - self.progress).square().sum()


type.__setattr__(Curriculum, "key", "curriculum")


def test_a_learner_knows_how_much_of_training_is_done_also_after_resuming(tmp_path):
    """Bit for bit, though no checkpoint holds it."""

    def trained(run, on_event=ignore):
        learner, losses = Curriculum.build(Same().spec, backbone="raw"), {}

        def hear(event):
            if isinstance(event, StepEvent):
                losses[event.done] = event.loss
                on_event(event)

        options = {"steps": 8, "outer_lr": 0.1, "validate_every": 4, "checkpoint_every": 1, "validation_tasks": 2}
        meta_train(learner, Same(), run=run, on_event=hear, plan="vmap", **options)
        return learner, losses

    whole, losses = trained(Run.open(tmp_path / "whole", {}))
    slope = 0.0
    assert losses[1] == 0.0, "nothing is done before the first step"
    assert losses[2] == pytest.approx((slope - 1 / 8) ** 2)
    assert whole.progress == 7 / 8
    assert "progress" not in whole.state_dict()

    def stop(event):
        if event.done == 5:
            raise KeyboardInterrupt

    run = Run.open(tmp_path / "stopped", {})
    with pytest.raises(KeyboardInterrupt):
        trained(run, stop)
    resumed, later = trained(run)
    assert later == {step: loss for step, loss in losses.items() if step in later}
    assert 8 in later
    assert torch.equal(resumed.slope, whole.slope)
