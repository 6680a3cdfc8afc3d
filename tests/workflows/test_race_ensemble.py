"""The ensemble of a race: which candidates it is made of, and that it is what was scored."""

from types import SimpleNamespace

import pytest

import own_data
from handful.evaluation.scoring import evaluate, metric_of
from handful.events import ignore
from handful.learners.ensemble import Ensemble
from handful.registry import LEARNERS
from handful.tasks.opening import open_tasks
from handful.types import Point
from handful.workflows.experiment import Experiment, Source
from handful.workflows.race_ensemble import MEMBERS, PICKS, ensemble_of
from handful.workflows.race_record import RaceRecord
from handful.workflows.race_scores import Judge, Scored

TASKS = 12


@pytest.fixture(scope="module")
def track(tmp_path_factory):
    """What candidates share, as far as an ensemble of them needs it."""
    table = own_data.shops(tmp_path_factory.mktemp("data") / "shops.csv")
    tasks = open_tasks(table, task="shop", target="sold").with_sizes(shot=4)
    validation = tasks.split("val")
    experiment = Experiment(Source(str(table), task="shop", target="sold"), shot=4)
    metric = metric_of(validation)
    return SimpleNamespace(
        tasks=tasks,
        validation=validation,
        experiment=experiment,
        metric=metric,
        judge=Judge(validation, metric, TASKS),
        record=RaceRecord(tmp_path_factory.mktemp("race") / "race.json", 1.0),
        check_stop=lambda: None,
        on_event=ignore,
    )


@pytest.fixture
def record(track, tmp_path):
    track.record = RaceRecord(tmp_path / "race.json", 1.0)
    return track.record


def candidates(track, **options):
    """Those of these names with their scores on the validation tasks."""
    learners = {name: LEARNERS[name.partition(" ")[0]].build(track.tasks.spec, **own) for name, own in options.items()}
    entrants = {
        name: SimpleNamespace(name=name, learner=lambda one=one: one, examples=number)
        for number, (name, one) in enumerate(learners.items())
    }
    scores = {name: Scored(evaluate(one, track.validation, tasks=TASKS).scores) for name, one in learners.items()}
    return entrants, scores


FIELD = {"ridge-probe": {}, "neighbors": {}, "dummy": {}, "ridge-probe 9": {"regularization": 9.0}, "neighbors 5": {}}


def test_it_is_better_on_the_validation_tasks_than_each_of_its_members(track, record):
    entrants, scores = candidates(track, **FIELD)
    made = ensemble_of(track, entrants, scores, {})
    learner = made.learner()
    found = Scored(evaluate(learner, track.validation, tasks=TASKS).scores)
    assert isinstance(learner, Ensemble)
    assert all(track.judge.rank(found) > track.judge.rank(one) for one in scores.values())
    assert set(made.members) == set(made.picks) <= set(FIELD)
    assert 2 <= len(made.members) <= MEMBERS
    assert sum(made.picks.values()) <= PICKS
    assert made.examples == max(entrants[name].examples for name in made.members)
    assert made.described.count("%") == len(made.members)


class FarOff(LEARNERS["ridge-probe"]):
    """Makes every average worse."""

    def predict(self, state, inputs):
        return Point(super().predict(state, inputs).mean + 1000)


def test_one_candidate_that_nothing_makes_better_stays_alone(track, record):
    entrants, scores = candidates(track, **{"ridge-probe": {}})
    far_off = FarOff.build(track.tasks.spec)
    entrants["far off"] = SimpleNamespace(name="far off", learner=lambda: far_off, examples=0)
    scores["far off"] = Scored(evaluate(far_off, track.validation, tasks=TASKS).scores)
    assert ensemble_of(track, entrants, scores, {}) is None
    assert record.results["picks of the ensemble"] == {"ridge-probe": 1}
    assert ensemble_of(track, entrants, {"ridge-probe": scores["ridge-probe"]}, {}) is None


def test_what_was_picked_before_an_interruption_is_taken(track, record):
    entrants, scores = candidates(track, **FIELD)
    record.results["picks of the ensemble"] = {"dummy": 1, "neighbors": 3}
    made = ensemble_of(track, entrants, scores, {})
    assert made.described == "neighbors 75%, dummy 25%"


def test_a_candidate_that_diverged_is_no_member(track, record):
    entrants, scores = candidates(track, **FIELD)
    for name in set(FIELD) - {"dummy"}:
        scores[name].scores[0] = float("inf")
    assert ensemble_of(track, entrants, scores, {}) is None


def test_without_time_to_predict_again_there_is_none_and_the_reason_is_told(track, record):
    entrants, scores = candidates(track, **FIELD)
    slow = {name: Scored(one.scores, seconds=60.0) for name, one in scores.items()}
    dropped: dict[str, str] = {}
    assert ensemble_of(track, entrants, slow, dropped) is None
    assert dropped == {"ensemble": "no time was left for it"}
    assert record.decided["time for the ensemble"] is False


def test_by_the_budget_of_a_race_that_tried_none_there_is_none(track, tmp_path):
    entrants, scores = candidates(track, **FIELD)
    track.record = RaceRecord(tmp_path / "race.json", 1.0, given=True)
    assert ensemble_of(track, entrants, scores, {}) is None
