"""Time budgets: how many steps fit, that they are kept to, and that a continuation takes the same ones."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from handful.engine.meta_gradient import MetaGradient
from handful.errors import UserError
from handful.evaluation.scoring import evaluate
from handful.events import NoteEvent, PlanEvent, StepEvent
from handful.registry import LEARNERS
from handful.training import checkpoint, loop
from handful.training.budget import StepCount, affordable, validation_interval
from handful.training.loop import meta_train
from handful.training.run import Run
from handful.training.settings import Settings
from training.test_loop import Same, line, rows


@pytest.mark.parametrize("every", [0, 3])
@pytest.mark.parametrize(("seconds", "per_step", "per_validation"), [(60, 1, 0.5), (60, 0.01, 2), (10, 3, 1)])
def test_what_is_affordable_fits_and_not_much_more_would(seconds, per_step, per_validation, every):
    def cost(steps):
        return steps * per_step + -(-steps // validation_interval(steps, every)) * per_validation

    steps = affordable(seconds, per_step, per_validation, every)
    assert cost(steps) <= seconds
    assert cost(round(1.05 * steps) + 1) > seconds


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 0.1])
def test_there_is_one_step_at_least(seconds):
    assert affordable(seconds, 1.0, 1.0) == 1


@pytest.mark.parametrize("corrected", [None, 40, 20, 80])
def test_a_corrected_training_goes_through_the_whole_schedule_without_a_jump(corrected):
    count = StepCount(40, corrected)
    positions = [count.position(step) for step in range(count.total)]
    steps = [after - before for before, after in pairwise(positions)]
    assert positions[: count.correction_step + 1] == list(range(11))
    assert all(0 < step <= 1 / (1 if corrected in (None, 40, 80) else 0.3) for step in steps)
    assert positions[-1] + steps[-1] == pytest.approx(40)
    assert StepCount.from_json(count.to_json()) == count


@pytest.fixture
def clock(monkeypatch):
    """A clock that meta-steps and validations move on: `step` and `validation` seconds each."""
    clock = SimpleNamespace(now=0.0, step=1.0, validation=0.5, later=None, calls=0)

    class Timed(MetaGradient):
        def __call__(self, *arguments):
            clock.calls += 1
            clock.now += clock.later if clock.later and clock.calls > loop.TIMED_STEPS else clock.step
            return super().__call__(*arguments)

    def timed(learner, distribution, **options):
        clock.now += clock.validation
        return evaluate(learner, distribution, **options)

    for module in (loop, checkpoint):
        monkeypatch.setattr(
            module, "time", SimpleNamespace(monotonic=lambda: clock.now, perf_counter=lambda: clock.now)
        )
    monkeypatch.setattr(loop, "MetaGradient", Timed)
    monkeypatch.setattr(loop, "evaluate", timed)
    return clock


def trained(run=None, stop_at=None, **settings):
    """A learner trained for a minute, and what was heard."""
    learner, heard = line(noisy=True), []

    def hear(event):
        heard.append(event)
        if isinstance(event, StepEvent) and event.done == stop_at:
            raise KeyboardInterrupt

    options = {"minutes": 1.0, "plan": "vmap", "validation_tasks": 2, "checkpoint_every": 4} | settings
    meta_train(learner, Same(), run=run, on_event=hear, **options)
    return learner, heard


@pytest.mark.parametrize(("step", "later"), [(1.0, None), (1.0, 1.02), (1.0, 2.0), (2.0, 1.0)])
def test_a_training_takes_the_time_that_it_was_given(clock, step, later):
    clock.step, clock.later = step, later
    _, heard = trained()
    assert 55 <= clock.now <= 61
    plan = next(event for event in heard if isinstance(event, PlanEvent))
    last = [event for event in heard if isinstance(event, StepEvent)][-1]
    assert last.done == last.total
    corrected = later in (1.0, 2.0)
    assert (last.total != plan.steps) == corrected
    assert sum(isinstance(event, NoteEvent) for event in heard) == corrected


@pytest.mark.parametrize("stop_at", [14, 25])
def test_a_continuation_takes_the_steps_of_the_record_to_the_same_bits(clock, stop_at, tmp_path):
    """On a clock of another speed; and where the last checkpoint is from before the correction, in which 14 steps were
    taken."""
    clock.later = 2.0
    whole, heard = trained(Run.open(tmp_path / "whole", {}))
    plan = next(event for event in heard if isinstance(event, PlanEvent))
    assert StepCount(plan.steps).correction_step == 13
    record = Run(tmp_path / "whole").step_count()

    clock.calls = 0
    run = Run.open(tmp_path / "run", {})
    with pytest.raises(KeyboardInterrupt):
        trained(run, stop_at=stop_at)
    assert run.step_count() == record
    clock.step = clock.later = 17.0
    resumed, heard = trained(run)
    assert run.step_count() == record
    assert [event for event in heard if isinstance(event, StepEvent)][-1].done == record.total
    assert torch.equal(resumed.slope, whole.slope)


def test_a_run_that_was_killed_before_its_first_checkpoint_keeps_its_steps(clock, tmp_path):
    run = Run.open(tmp_path / "run", {})
    with pytest.raises(KeyboardInterrupt):
        trained(run, stop_at=3)
    assert run.step_count() == StepCount(53)
    clock.step = clock.later = 3.0
    trained(run)
    count = run.step_count()
    assert count.first == 53
    assert count.corrected < 30


def test_steps_and_minutes_exclude_each_other():
    with pytest.raises(UserError, match=r"Steps \(10\) and minutes \(2\) exclude each other"):
        Settings(steps=10, minutes=2)
    assert Settings().steps == 1000
    assert Settings(minutes=2).steps is None


@pytest.mark.parametrize("minutes", [0, -1.0, float("nan"), float("inf"), "2", True])
def test_minutes_are_a_number_above_zero(minutes):
    with pytest.raises(UserError, match=r"minutes is a .*number"):
        Settings(minutes=minutes)


def test_a_learner_without_meta_steps_takes_no_minutes():
    learner = LEARNERS["transfer"].build(rows().spec, backbone="mlp", backbone_options={"hidden": (4,)})
    with pytest.raises(UserError, match="has no meta-steps"):
        meta_train(learner, rows(), minutes=1, pretrain_examples=128)
