"""How long scoring takes is foretold by a few tasks."""

import math

import pytest
import torch

from evaluation.toys import Clusters, Toy
from handful.evaluation import pace as paces
from handful.evaluation.ladder import CHOOSING_TASKS, Ladder
from handful.evaluation.pace import Costs, Pace, choosing_tasks, pace
from handful.registry import LEARNERS


def narrow(input_shape):
    return torch.nn.Linear(input_shape[0], 4)


def test_tasks_beyond_all_rows_take_no_longer():
    assert Pace(2.0).of(100) == 200
    assert Pace(2.0, most=30).of(100) == 60


def test_scoring_costs_the_tasks_and_the_choices():
    costs = Costs(Pace(1.0), (Pace(0.5), Pace(0.1, choices=3)), 50)
    assert costs.seconds(100, 50) == pytest.approx(100 + 50 + 0.1 * (100 + 150))


def test_rows_that_a_setting_before_has_shown_cost_nothing():
    costs = Costs(Pace(1.0, most=150), (Pace(1.0),), 50)
    assert costs.seconds(100, 50) == 200
    assert costs.seconds(100, 50, before=1) == 150
    assert costs.seconds(100, 50, before=2) == 100


def test_a_curve_costs_the_learner_and_two_rungs_beyond_what_is_known():
    known = Costs(Pace(1.0, most=10), (Pace(1.0, most=10),), 50)
    assert known.curve_seconds(scored=10, tasks=60, sizes=5, choosing=50) == 0
    costs = Costs(Pace(1.0), (Pace(0.5), Pace(0.2), Pace(0.1)), 50)
    assert costs.curve_seconds(scored=10, tasks=60, sizes=5, choosing=50) == pytest.approx(600 * 1.7)


def test_choices_are_made_on_fewer_tasks_where_fewer_are_scored():
    assert choosing_tasks(400, 50) == 50
    assert choosing_tasks(100, 50) == 25
    assert choosing_tasks(10, 50) == 5
    assert choosing_tasks(10, 2) == 2


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a second with each adaptation."""
    now = [0.0]
    monkeypatch.setattr(paces.time, "perf_counter", lambda: now[0])
    return now


def test_the_pace_is_that_of_the_second_try(clock, monkeypatch):
    tasks = Clusters()
    learner = LEARNERS["centroid"].build(tasks.spec)
    adapt, tries = type(learner).adapt, iter([7.0, 2.0])

    def slowly(self, support, spec):
        clock[0] += next(tries)
        return adapt(self, support, spec)

    monkeypatch.setattr(type(learner), "adapt", slowly)
    assert pace(learner, tasks, choices=4) == Pace(2.0, math.inf, 4)


def test_tasks_together_are_timed_as_they_are_scored(clock, monkeypatch):
    scored = []

    def evaluate(learner, setting, *, tasks, measured):
        scored.append(tasks)
        clock[0] += 0.8

    monkeypatch.setattr(paces, "evaluate", evaluate)
    tasks = Clusters()
    found = pace(LEARNERS["centroid"].build(tasks.spec), tasks, together=True)
    assert scored == [16]
    assert found.seconds == pytest.approx(0.05)


def test_photos_that_a_network_sees_once_are_bounded_by_their_number(monkeypatch):
    monkeypatch.setattr("handful.evaluation.scoring.LARGE", 1)
    tasks = Clusters()
    learner = LEARNERS["transfer"].build(tasks.spec, backbone=narrow)
    task = tasks.task(0)
    rows = len(tasks.rows())
    assert pace(learner, tasks).most == rows / (len(task.support.inputs) + len(task.query.inputs))


def test_a_ladder_counts_its_cheap_rungs_and_their_choices():
    tasks = Clusters()
    ladder = Ladder(Toy.build(tasks.spec, backbone=narrow), tasks, examples=256)
    costs = ladder.costs(tasks.split("test"))
    cheap = [rung for rung in ladder.rungs if not rung.learner.costly]
    alone = [rung for rung in cheap if not rung.uses_other_tasks]
    assert len(costs.rungs) == len(cheap)
    assert costs.choosing == CHOOSING_TASKS
    tried = sum(len(rung.choices) for rung in cheap if len(rung.choices) > 1)
    assert sum(rung.choices for rung in costs.rungs) == tried + len(alone)
    assert min(rung.seconds for rung in costs.rungs) > 0
