"""Costly rungs: on as many tasks as there is time for."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from evaluation.toys import Clusters, Toy
from handful.evaluation import costly
from handful.evaluation.costly import DECIDING, FIRST_TASKS, Climb, with_costly
from handful.evaluation.ladder import Ladder
from handful.evaluation.scoring import evaluate
from handful.registry import LEARNERS
from handful.training.checkpoint import PretrainingCheckpoints
from results import evaluation

TASKS = 40
COSTLY = ("baseline-plus-plus", "fine-tune-all", "fine-tune-head", "scratch")


def narrow(input_shape):
    """A small network, for rungs that train one."""
    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], 12), torch.nn.ReLU())


def ladder_of(learner=None, **more):
    tasks = Clusters()
    return Ladder(learner or Toy.build(tasks.spec, backbone=narrow), tasks, examples=500, **more)


@cache
def climbed():
    """A ladder over the toys with its cheap rungs, once for all tests."""
    ladder = ladder_of()
    return ladder, ladder.run(*places(), tasks=TASKS)


def places():
    tasks = Clusters()
    return tasks.split("test"), tasks.split("val")


class Clock:
    """A clock that goes on only as rungs adapt: so many seconds for a task of each.

    sure: the rungs that are surely behind, and ahead of the learner on these tasks.
    """

    def __init__(self, monkeypatch, seconds, *, behind=(), ahead=()):
        self.now, self.seconds, self.scored = 0.0, seconds, []
        self.behind, self.ahead = behind, ahead
        monkeypatch.setattr(costly.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(costly, "cost", self.cost)
        monkeypatch.setattr("handful.evaluation.ladder.evaluate", self.evaluate)

    def cost(self, learner, setting):
        return self.seconds[learner.key], {}

    def evaluate(self, learner, setting, *, tasks, first=0, measured=None, **more):
        if learner.key not in self.seconds:
            return evaluate(learner, setting, tasks=tasks, **more)
        self.now += tasks * self.seconds[learner.key]
        self.scored.append((learner.key, setting.split_name, first, tasks))
        dummy = LEARNERS["dummy"].build(setting.spec)
        found = evaluate(dummy, setting, tasks=tasks, first=first)
        own = climbed()[1].learner.evaluation.scores
        scores = own[first : first + tasks] if setting.split_name == "test" else torch.zeros(tasks)
        noise = 0.2 * (torch.arange(tasks) % 2 - 0.5) + 0.001 * torch.arange(tasks)
        gap = 0.5 if learner.key in self.ahead else -0.5 if learner.key in self.behind else 0.0
        return replace(found, learner=learner.key, scores=(scores + gap + noise).double(), uses_other_tasks=True)


def climb(seconds, tasks=TASKS):
    ladder, comparison = climbed()
    ladder._chosen = {at: found for at, found in ladder._chosen.items() if at[0] not in COSTLY}
    return with_costly(ladder, comparison, *places(), tasks=tasks, seconds=seconds)


def counts(found):
    return {row.evaluation.learner: len(row.evaluation.scores) for row in found.comparison.rows if row.baseline}


@pytest.mark.slow
def test_all_costly_rungs_are_added_and_decided_by_as_many_tasks_as_it_takes():
    found = climb(600, tasks=10)
    ladder, comparison = climbed()
    assert set(counts(found)) == {row.evaluation.learner for row in comparison.rows[1:]} | set(COSTLY)
    assert set(COSTLY) == {rung.name for rung in ladder.rungs if rung.learner.costly}
    assert found.left_out == {}
    for row in found.comparison.rows[1:]:
        sure = row.better or row.worse
        assert len(row.evaluation.scores) == 10 or sure or row.evaluation.learner not in COSTLY
    scratch = next(row.evaluation for row in found.comparison.rows if row.evaluation.learner == "scratch")
    again = evaluate(
        LEARNERS["scratch"].build(Clusters().spec, backbone=narrow), Clusters().split("test"), tasks=len(scratch.scores)
    )
    assert torch.allclose(scratch.scores, again.scores), "piece by piece as at once"
    assert scratch.classes == again.classes
    assert torch.equal(scratch.units, again.units)
    assert scratch.confidences.shape == again.confidences.shape


@pytest.mark.slow
def test_the_cheapest_comes_first_and_the_undecided_get_twice_as_many(monkeypatch):
    seconds = {"baseline-plus-plus": 0.4, "fine-tune-all": 0.3, "fine-tune-head": 0.1, "scratch": 0.2}
    clock = Clock(monkeypatch, seconds, behind=("scratch", "baseline-plus-plus"))
    found = climb(1000)
    tests = [(key, first, tasks) for key, split, first, tasks in clock.scored if split == "test"]
    assert tests[:4] == [
        ("fine-tune-head", 0, 5),
        ("scratch", 0, 5),
        ("fine-tune-all", 0, 5),
        ("baseline-plus-plus", 0, 5),
    ]
    assert tests[4:6] == [("fine-tune-head", 5, 5), ("fine-tune-head", 10, 10)]
    assert {key: counts(found)[key] for key in COSTLY} == {
        "fine-tune-head": TASKS,
        "fine-tune-all": TASKS,
        "scratch": DECIDING,
        "baseline-plus-plus": DECIDING,
    }


def test_one_that_is_ahead_on_a_few_tasks_is_asked_again(monkeypatch):
    """Of several on a few tasks each one is soon ahead by luck."""
    Clock(monkeypatch, dict.fromkeys(COSTLY, 0.1), ahead=("fine-tune-all",), behind=("scratch", "fine-tune-head"))
    found = climb(1000)
    assert counts(found)["fine-tune-all"] == DECIDING
    assert counts(found)["scratch"] == DECIDING, "be it for the learner or against it"
    assert found.comparison.best_way.evaluation.learner == "fine-tune-all"


def test_looking_again_and_again_finds_no_difference_where_there_is_none():
    """Neither for the learner nor against it more often than in the 2.5 % of one look, but for a little."""
    generator, most, trials = torch.Generator().manual_seed(0), 160, 150
    own, rung = evaluation("protonet", torch.zeros(most)), next(rung for rung in climbed()[0].rungs)
    sure = {"ahead": 0, "behind": 0}
    for _ in range(trials):
        scores, count = torch.randn(most, generator=generator), FIRST_TASKS
        while True:
            found = evaluation("scratch", 0.1 * scores[:count])
            climb = Climb(rung, 1.0, (1.0, {}), found)
            if count == most or not costly._open(climb, own):
                break
            count *= 2
        gain = found.gain_over(own)
        sure["ahead"] += gain.low > 0
        sure["behind"] += gain.high < 0
    assert max(sure.values()) < 0.06 * trials, sure


def test_a_rung_on_a_few_tasks_decides_nothing(monkeypatch):
    seconds = {"baseline-plus-plus": 50.0, "fine-tune-all": 3.0, "fine-tune-head": 50.0, "scratch": 50.0}
    Clock(monkeypatch, seconds, ahead=("fine-tune-all",))
    found = climb(10.0).comparison
    row = next(row for row in found.rows if row.evaluation.learner == "fine-tune-all")
    assert len(row.evaluation.scores) == 3
    assert row.better
    assert found.best_way is not row
    assert row in found.undecided


@pytest.mark.parametrize("seconds", [3.0, 10.0, 30.0, 100.0])
def test_it_ends_within_its_time(monkeypatch, seconds):
    """Whatever a task takes: what does not fit in any more is left out, or has fewer tasks."""
    clock = Clock(monkeypatch, {"baseline-plus-plus": 2.0, "fine-tune-all": 8.0, "fine-tune-head": 0.3, "scratch": 1.0})
    found = climb(seconds)
    assert 0 < clock.now <= seconds
    scored = {key for key in counts(found) if key in COSTLY}
    assert scored | set(found.left_out) == set(COSTLY)
    assert found.left_out.items() <= clock.seconds.items()
    assert "fine-tune-head" in scored
    assert ("fine-tune-all" in found.left_out) == (seconds < 100)
    assert all(count >= 2 for count in counts(found).values())


def test_options_are_the_defaults_where_there_is_no_time_to_choose(monkeypatch):
    clock = Clock(monkeypatch, dict.fromkeys(COSTLY, 1.0))
    found = climb(4.0)
    assert {split for _, split, _, _ in clock.scored} == {"test"}
    scored = {key for key, *_ in clock.scored}
    assert set(found.by_default) == {key for key in scored if LEARNERS[key].search_space}
    assert found.by_default
    clock = Clock(monkeypatch, dict.fromkeys(COSTLY, 1.0))
    assert climb(600.0).by_default == ()
    assert {split for _, split, _, _ in clock.scored} == {"val", "test"}


def test_without_time_there_are_none():
    _, comparison = climbed()
    found = climb(0.0)
    assert found.comparison.rows == comparison.rows
    assert found.left_out == dict.fromkeys(COSTLY)
    assert not any(rung.learner.costly for rung in ladder_of(minutes=0).rungs)


def test_a_learner_that_is_pre_trained_lends_its_network():
    tasks = Clusters()
    learner = LEARNERS["transfer"].build(tasks.spec, backbone=narrow)
    learner.pretrain(tasks.pool(), examples=256)
    ladder = ladder_of(learner)
    assert ladder.pretraining_seconds == 0
    assert ladder.pretrained_on == "the learner's own network"
    rung = next(rung for rung in ladder.rungs if rung.name == "fine-tune-head")
    assert torch.equal(ladder.build(rung, {}).backbone[0].weight, learner.backbone[0].weight)


def test_the_network_of_the_runs_pre_training_serves_where_it_fits():
    tasks = Clusters()
    other = LEARNERS["protonet"].build(tasks.spec, backbone=narrow, seed=5)
    ladder = ladder_of(network=other.backbone.state_dict())
    rung = next(rung for rung in ladder.rungs if rung.name == "transfer")
    assert torch.equal(ladder.build(rung, {}).backbone[0].weight, other.backbone[0].weight)
    assert ladder.pretraining_seconds == 0
    wider = ladder_of(network={"0.weight": torch.zeros(3, 3)})
    assert wider.pretraining_seconds > 0
    assert wider.pretrained_on.startswith("pre-trained on 500 examples")


def test_pre_training_takes_a_part_of_the_time_and_says_so(monkeypatch):
    monkeypatch.setattr("handful.evaluation.ladder._seconds_per_example", lambda *arguments: 0.024)
    tasks = Clusters()
    learner = Toy.build(tasks.spec, backbone=narrow)

    def examples(minutes, keeper=None):
        return Ladder(learner, tasks, examples=2560, minutes=minutes, keeper=keeper).pretrained_on

    assert examples(1) == "pre-trained on 1,000 examples, as many as the time allowed (the learner: 2,560)"
    assert examples(0) == examples(100) == "pre-trained on 2,560 examples, as many as the learner was trained on"
    keeper = PretrainingCheckpoints(lambda pretraining: None)
    keeper.steps = 6
    assert examples(1, keeper).startswith("pre-trained on 768 examples"), "the one that is kept"
    assert examples(2, keeper).startswith("pre-trained on 2,000 examples"), "twice as many are better"


def test_the_time_of_pre_training_is_foretold_by_a_few_steps():
    from handful.evaluation.ladder import _seconds_per_example

    tasks = Clusters()
    learner = LEARNERS["transfer"].build(tasks.spec, backbone=narrow)
    assert 0 < _seconds_per_example(learner, tasks.pool(), 0) < 0.1
