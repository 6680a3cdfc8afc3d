"""The ladder: every rung that fits, on the same tasks, with options chosen on validation tasks."""

from functools import cache
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from evaluation.toys import Clusters, Ignoring, Line, Slopes, Toy
from handful.evaluation.ladder import CHOOSING_TASKS, Ladder
from handful.evaluation.scoring import evaluate
from handful.registry import LEARNERS
from handful.types import Examples, Task
from noted import noted

TASKS = 40


def narrow(input_shape):
    """A small network, for rungs that train one."""
    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], 12), torch.nn.ReLU())


@cache
def climbed(cls=Toy):
    """A ladder over the toys, once for all tests; with what it reported."""
    tasks = Slopes() if cls is Line else Clusters()
    heard = []
    learner = cls.build(tasks.spec, backbone=narrow)
    ladder = Ladder(
        learner,
        tasks,
        examples=500,
        on_event=lambda event: heard.append((event.work, event.done, event.total)),
    )
    comparison = ladder.run(tasks.split("test"), tasks.split("val"), tasks=TASKS)
    return ladder, comparison, heard


@pytest.mark.parametrize("cls", [Toy, Line])
def test_every_rung_of_the_registry_that_fits_is_there_once(cls):
    kind, labels = ("classification", "permuted") if cls is Toy else ("regression", "shared")
    _, comparison, _ = climbed(cls)
    expected = {
        key
        for key, rung in LEARNERS.items()
        if rung.baseline
        and kind in rung.kinds
        and labels in rung.labels
        and not rung.costly  # these are added apart
        and (cls is Toy or rung.start not in ("pretrained", "fitted"))  # the toy regression has no pool
        and rung.start != "encoder"  # and no learner here is one
    }
    keys = [row.evaluation.learner for row in comparison.rows]
    assert len(expected) >= 3
    assert keys[0] == cls.key
    assert sorted(keys[1:]) == sorted(expected)
    assert [row.baseline for row in comparison.rows] == [False] + [True] * len(expected)


def test_differences_are_paired_and_the_best_rung_comes_first():
    _, comparison, _ = climbed()
    own, *rungs = comparison.rows
    assert comparison.learner is own
    for rung in rungs:
        assert rung.against == "toy"
        assert rung.paired == rung.evaluation.gain_over(own.evaluation)
    assert comparison.best_rung is max(rungs, key=lambda row: row.paired.mean)
    assert own.against == comparison.best_rung.evaluation.learner
    assert own.paired == own.evaluation.gain_over(comparison.best_rung.evaluation)


def test_what_stands_for_each_task_alone_is_chosen_on_validation_tasks():
    """Rungs that learn from nothing else are compared there, and the best of them stands for its kind."""
    ladder, comparison, _ = climbed()
    validation = Clusters().split("val")
    rungs = [rung for rung in ladder.rungs if not (rung.uses_other_tasks or rung.learner.costly)]
    assert {rung.name for rung in rungs} == {"dummy", "centroid", "neighbors", "ridge-probe", "logistic-probe"}
    scores = {
        rung.name: evaluate(
            rung.learner.build(validation.spec, **ladder.choose(rung, validation)), validation, tasks=CHOOSING_TASKS
        ).score.mean
        for rung in rungs
    }
    assert ladder._best_alone(validation, None) == max(scores, key=lambda name: scores[name])
    assert not comparison.best_alone.evaluation.uses_other_tasks
    assert comparison.best_way.evaluation.uses_other_tasks


def test_options_are_the_best_on_validation_tasks():
    """TRAPS T22: and not those that would be best on the test tasks."""
    _, comparison, _ = climbed()
    validation, test = Clusters().split("val"), Clusters().split("test")
    for key in ("ridge-probe", "neighbors"):
        rung = LEARNERS[key]
        row = next(row for row in comparison.rows if row.evaluation.learner == key)
        candidates = [
            dict(zip(rung.search_space, values, strict=True)) for values in product(*rung.search_space.values())
        ]
        scores = [
            evaluate(rung.build(validation.spec, **options), validation, tasks=CHOOSING_TASKS).score.mean
            for options in candidates
        ]
        assert row.chosen == candidates[scores.index(max(scores))]
        assert len(set(scores)) > 1, "the choice matters"
        again = evaluate(rung.build(test.spec, **row.chosen), test, tasks=TASKS)
        assert torch.equal(again.scores, row.evaluation.scores)


@pytest.mark.slow
def test_options_are_chosen_for_each_way():
    """As for each shot: what is best at a low way is a handicap at a high one."""
    ladder, _, _ = climbed()
    tasks = Clusters().with_sizes(query_shot=6)
    rung = LEARNERS["neighbors"]
    chosen, best = [], []
    for way in (2, 15):
        validation = tasks.split("val").with_sizes(way=way)
        comparison = ladder.run(tasks.split("test").with_sizes(way=way), validation, tasks=4)
        row = next(row for row in comparison.rows if row.evaluation.learner == "neighbors")
        chosen.append(row.chosen)
        candidates = [
            dict(zip(rung.search_space, values, strict=True)) for values in product(*rung.search_space.values())
        ]
        built = [rung.build(validation.spec, **options) for options in candidates]
        scores = [evaluate(one, validation, tasks=CHOOSING_TASKS).score.mean for one in built]
        best.append(candidates[scores.index(max(scores))])
    assert chosen == best
    assert best[0] != best[1], "the way matters"


def test_options_with_which_a_rung_diverges_are_not_chosen(monkeypatch):
    """Whatever the error on the draws that are left."""
    tasks = Slopes().split("val")
    ladder = Ladder(Line.build(tasks.spec, backbone="raw"), None, examples=0, minutes=0)
    rung = next(rung for rung in ladder.rungs if rung.name == "ridge-probe")
    diverging = next(iter(rung.learner.search_space.values()))[0]

    def scored(learner, *arguments, **options):
        found = evaluate(learner, *arguments, **options)
        if diverging in learner.recipe["options"].values():
            found.scores.zero_()
            found.scores[0] = torch.inf
        return found

    monkeypatch.setattr("handful.evaluation.ladder.evaluate", scored)
    assert diverging not in ladder._best_choice(rung, tasks).values()


def test_there_is_no_data_equivalence_of_a_learner_that_diverges():
    class Diverging(Line):
        """Far away in one task."""

        def adapt(self, support, spec):
            return {"slope": torch.log(support.inputs[0].mean() + 1) * torch.ones(1)}

    Diverging.key = "diverging"
    tasks = Slopes().split("test")
    ladder = Ladder(Diverging.build(tasks.spec, backbone="raw"), None, examples=0, minutes=0)
    assert evaluate(ladder.learner, tasks, tasks=30).diverged.any()
    assert ladder.equivalence(tasks, tasks.split("val"), tasks=30) is None


def test_a_rung_that_diverges_is_no_part_of_the_data_equivalence(monkeypatch):
    tasks = Slopes().split("test")
    ladder = Ladder(Line.build(tasks.spec, backbone="raw"), None, examples=0, minutes=0)
    rungs = sorted(rung.name for rung in ladder.rungs)
    assert len(rungs) > 1
    lost = {rungs[0]}

    def scored(learner, *arguments, **options):
        found = evaluate(learner, *arguments, **options)
        if learner.key in lost:
            found.scores[3] = torch.inf
        return found

    monkeypatch.setattr("handful.evaluation.ladder.evaluate", scored)
    found = ladder.equivalence(tasks, tasks.split("val"), tasks=20)
    assert len(found.curve) > 1
    assert all(not score.diverged for _, score in found.curve)
    lost.update(rungs)
    assert ladder.equivalence(tasks, tasks.split("val"), tasks=20) is None


def test_one_pre_training_serves_all_rungs_and_its_time_is_known():
    ladder, _, heard = climbed()
    finished = [(done, total) for what, done, total in heard if what == "pre-training for the ladder" and done == total]
    assert len(finished) == 1
    assert ladder.pretraining_seconds > 0


def test_curves_over_shots_stop_where_the_examples_end():
    ladder, comparison, _ = climbed()
    tasks = Clusters()
    curves = ladder.shots_curve(tasks.split("test"), tasks.split("val"), comparison, (1, 4, 100), tasks=10)
    assert next(iter(curves)) == "toy"
    assert 2 <= len(curves) <= 3
    assert all([shot for shot, _ in points] == [1, 4] for points in curves.values())
    assert curves["toy"][1][1].mean > curves["toy"][0][1].mean


def test_more_shots_are_scored_on_the_same_queries():
    """So that what does not look at its support has a flat curve."""
    tasks = Clusters()
    ladder = Ladder(Ignoring.build(tasks.spec, backbone=narrow), None, examples=0, minutes=0)
    test, validation = tasks.split("test"), tasks.split("val")
    curves = ladder.shots_curve(test, validation, ladder.run(test, validation, tasks=10), (1, 2, 4), tasks=10)
    ignoring, *others = curves.values()
    assert len({score for _, score in ignoring}) == 1
    assert all(len({score for _, score in points}) == 3 for points in others)


class Uneven(Clusters):
    """Some classes have 5 examples and not 12."""

    def __init__(self):
        super().__init__()
        for label in range(45, 55):
            self.members[label], self.counts[label] = self.members[label][:5], 5


def test_curves_over_shots_are_of_the_classes_of_the_setting():
    """And stop where only the classes with the most examples go on, without a word about those."""
    ladder, comparison, _ = climbed()
    test, validation = Uneven().split("test"), Uneven().split("val")
    curves = ladder.shots_curve(test, validation, comparison, (1, 2, 4), tasks=10)
    assert [shot for shot, _ in curves["toy"]] == [1, 2]
    assert curves["toy"][1][1] == evaluate(ladder.learner, test, tasks=10).score
    with noted("are left out"):
        larger = test.with_sizes(shot=4, query_shot=test.sizes.query_shot)
    many = ladder.shots_curve(larger, validation, comparison, (1, 2), tasks=10)
    assert many["toy"][0][1] == evaluate(ladder.learner, larger, tasks=10, shot=1).score


@pytest.mark.slow
def test_the_data_equivalence_has_fewer_examples_of_the_same_tasks_where_classes_are_uneven():
    ladder, _, _ = climbed()
    with noted("are left out"):
        test, validation = Uneven().split("test"), Uneven().split("val")
        test = test.with_sizes(shot=4, query_shot=test.sizes.query_shot)
    found = ladder.equivalence(test, validation, tasks=10, examples=(1, 2, 4))
    assert [size for size, _ in found.curve][:2] == [1, 2]
    ways = ladder.conventional(test, validation.with_sizes(shot=1), tasks=10, shot=1).values()
    assert found.curve[0][1].mean == max(way.score.mean for way in ways)


def test_where_a_part_of_a_support_is_none_each_shot_is_drawn_anew():
    class Standardized(Slopes):
        """By its support."""

        nested = False

        def sample(self, generator, sizes):
            (inputs, targets), query = super().sample(generator, sizes)
            support = Examples(inputs[: sizes.shot], targets[: sizes.shot])
            scale = support.targets.square().mean().sqrt()
            return Task(*(Examples(part.inputs, part.targets / scale) for part in (support, query)))

    tasks = Standardized()
    ladder = Ladder(Line.build(tasks.spec, backbone="raw"), None, examples=0, minutes=0)
    test, validation = tasks.split("test"), tasks.split("val")
    curves = ladder.shots_curve(test, validation, ladder.run(test, validation, tasks=10), (1, 2, 4), tasks=10)
    expected = [(shot, evaluate(ladder.learner, test.with_sizes(shot=shot), tasks=10).score) for shot in (1, 2, 4)]
    assert curves["line"] == expected


@pytest.mark.slow
def test_the_data_equivalence_tries_more_examples_as_long_as_the_same_tasks_have_some():
    """A class has 12 examples, 3 of them queries."""
    ladder, _, heard = climbed()
    tasks = Clusters()
    found = ladder.equivalence(tasks.split("test"), tasks.split("val"), tasks=10)
    assert (found.tasks, found.shot) == (10, 2)
    assert [size for size, _ in found.curve] in ([1, 2], [1, 2, 5])
    assert found.score == pytest.approx(evaluate(ladder.learner, tasks.split("test"), tasks=10).score.mean)
    assert any(what == "data equivalence" for what, _, _ in heard)
    raw = [rung for rung in ladder.rungs if rung.learner.start == "raw"]
    worst = min(evaluate(ladder.build(rung, {}), tasks.split("test"), tasks=10).score.mean for rung in raw)
    assert found.curve[1][1].mean > worst, "the best rung counts"


def test_there_is_no_data_equivalence_where_shots_vary():
    ladder, _, _ = climbed()
    tasks = Clusters().with_sizes(shot=(1, 3))
    assert ladder.equivalence(tasks.split("test"), tasks.split("val"), tasks=4) is None


@pytest.mark.parametrize("vectors", [True, False])
def test_a_centroid_of_an_encoders_vectors_is_cosine(vectors):
    tasks = Clusters()
    tasks.pipeline = SimpleNamespace(encoded=vectors, tuned=False, labels=None, prepare=lambda raw: raw)
    ladder = Ladder(Toy.build(tasks.spec, backbone=narrow), None, examples=0, minutes=0)
    rung = next(rung for rung in ladder.rungs if rung.name == "centroid")
    wanted = rung.learner.build(tasks.spec, distance="cosine" if vectors else "euclidean")
    test = Clusters().split("test")
    found = ladder.scored(rung, {}, tasks.split("test"), 30)
    assert torch.equal(found.scores, evaluate(wanted, test, tasks=30).scores)
    assert not torch.equal(
        found.confidences,
        evaluate(
            rung.learner.build(tasks.spec, distance="euclidean" if vectors else "cosine"), test, tasks=30
        ).confidences,
    )
