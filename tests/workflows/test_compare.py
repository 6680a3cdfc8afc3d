"""Comparing runs: only on the same tasks, task by task."""

import json
import math

import pytest
import torch

import own_data
from handful.errors import ArtifactError, UserError
from handful.evaluation.intervals import seeds_interval
from handful.reports.report import Report
from handful.storage import write_json
from handful.training.run import Run
from handful.workflows.compare import compare
from handful.workflows.evaluate import evaluate
from handful.workflows.experiment import Experiment, Source
from handful.workflows.train import train
from noted import noted

SETTING = {"way": 5, "shot": 1, "query_shot": 15}


def evaluated(
    path,
    scores,
    *,
    metric="accuracy",
    learner=None,
    source=None,
    setting=SETTING,
    place="report",
    seed=0,
    data="as it was",
    **more,
):
    learner = learner or path.name  # runs of one learner that differ in the seed alone are one kind
    source = source or {"tasks": "glyphs", "seed": 0}
    Run.open(path, {"learner": learner, "source": source, "seed": seed})
    row = {"learner": learner, "metric": metric, "scores": scores, "units": list(range(len(scores)))} | more
    write_json(
        path / place / "scores.json",
        {"schema": 1, "data": f"{data}, split {source['seed']}", "settings": [setting | {"rows": [row]}]},
    )
    return path


def test_the_best_comes_first_and_the_others_are_measured_against_it(tmp_path):
    low = evaluated(tmp_path / "low", [0.1, 0.5, 0.3, 0.7])
    high = evaluated(tmp_path / "high", [0.3, 0.6, 0.5, 0.8])
    (setting,) = compare([low, high])
    first, second = setting["runs"]
    assert setting["setting"] == "5-way 1-shot, 15 queries"
    assert [first["run"], second["run"]] == [str(high), str(low)]
    assert first["score"]["mean"] == pytest.approx(0.55)
    assert "against_best" not in first
    assert second["against_best"]["mean"] == pytest.approx(-0.15)
    json.dumps(setting, allow_nan=False)


def test_the_interval_is_paired(tmp_path):
    """Where one is better by nearly the same, the interval of the difference is narrow, though scores scatter."""
    scores = [0.1, 0.9, 0.4, 0.6]
    better = [score + ahead for score, ahead in zip(scores, (0.049, 0.05, 0.051, 0.05), strict=True)]
    runs = [evaluated(tmp_path / "a", scores), evaluated(tmp_path / "b", better)]
    gap = compare(runs)[0]["runs"][1]["against_best"]
    assert gap["low"] == pytest.approx(-0.05, abs=0.002)
    assert gap["high"] == pytest.approx(-0.05, abs=0.002)


@pytest.mark.parametrize("metric", ["accuracy", "rmse"])
@pytest.mark.parametrize("several", [False, True])
def test_equal_scores_and_differences_are_not_sure(tmp_path, several, metric):
    runs = [
        evaluated(tmp_path / f"{name}{seed}", [score] * 3, learner=name, metric=metric, seed=seed)
        for name, score in (("a", 1.0), ("b", 0.9))
        for seed in ((0, 1) if several else (0,))
    ]
    first, second = compare(runs)[0]["runs"]
    assert second["against_best"]["low"] < 0 < second["against_best"]["high"]
    if metric == "accuracy":
        assert (first["score"]["low"], first["score"]["high"]) == (pytest.approx(0.292, abs=1e-3), 1.0)
    else:
        assert math.isinf(first["score"]["low"])


def test_of_errors_the_lowest_is_the_best(tmp_path):
    runs = [evaluated(tmp_path / name, [value, 2 * value], metric="rmse") for name, value in (("a", 3.0), ("b", 1.0))]
    first, second = compare(runs)[0]["runs"]
    assert first["run"] == str(tmp_path / "b")
    assert second["against_best"]["mean"] == pytest.approx(-3.0)


def test_runs_of_different_length_meet_on_the_first_tasks(tmp_path):
    runs = [evaluated(tmp_path / "a", [0.5, 0.5, 0.9]), evaluated(tmp_path / "b", [0.4, 0.4])]
    (found,) = compare(runs)
    assert {row["score"]["tasks"] for row in found["runs"]} == {2}
    assert found["setting"].endswith("the first 2 draws that all runs have")
    (found,) = compare(runs[:1] + [evaluated(tmp_path / "c", [0.4, 0.4, 0.4])])
    assert "draws" not in found["setting"]


@pytest.mark.parametrize("several", [False, True])
def test_a_run_that_diverged_is_the_last_and_its_errors_are_those_of_the_rest(tmp_path, several):
    """On disk, what is not a finite number is null."""
    tables = {"a": [2.0, 3.0, 4.0], "b": [1.0, 2.0, None], "c": [3.0, 3.0, 5.0]}
    seeds = (0, 1) if several else (0,)
    runs = [
        evaluated(
            tmp_path / f"{name}{seed}", scores, metric="rmse", learner=name, seed=seed, diverged=[2] * (name == "b")
        )
        for name, scores in tables.items()
        for seed in seeds
    ]
    first, second, third = compare(runs)[0]["runs"]
    assert [row["learner"] for row in (first, second, third)] == ["a", "c", "b"]
    assert first["score"]["mean"] == pytest.approx(3)
    assert second["against_best"]["mean"] == pytest.approx(-2 / 3)
    assert [row["score"]["diverged"] for row in (first, second, third)] == [0, 0, len(seeds)]
    assert (third["score"]["mean"], third["score"]["tasks"]) == (pytest.approx(1.5), 2)
    assert third["against_best"]["mean"] == pytest.approx(1.0), "of the tasks that both have"


def test_a_score_that_is_undefined_is_counted_apart(tmp_path):
    scores = {"a": [0.9, 0.8, None], "b": [0.7, 0.6, None]}
    first, second = compare([evaluated(tmp_path / name, own, metric="auc") for name, own in scores.items()])[0]["runs"]
    assert [(row["score"]["diverged"], row["score"]["undefined"]) for row in (first, second)] == [(0, 1)] * 2
    assert second["against_best"]["mean"] == pytest.approx(-0.2)
    assert second["against_best"]["undefined"] == 1


def test_runs_need_one_metric(tmp_path):
    runs = [evaluated(tmp_path / metric, [0.9, 0.8], metric=metric) for metric in ("auc", "accuracy")]
    with pytest.raises(UserError, match=r"different metrics \(accuracy, auc\)"):
        compare(runs)


def test_accuracies_count_what_diverged_as_wrong_and_say_how_often(tmp_path):
    scores = [[0.9, 0.8, 0.7], [0.0, 0.0, 0.9]]
    runs = [evaluated(tmp_path / f"run{i}", own, diverged=[0, 1] * i) for i, own in enumerate(scores)]
    for count, lost in ((3, 2), (1, 1)):
        runs.append(evaluated(tmp_path / f"short{count}", [0.5] * count))
        found = {row["learner"]: row["score"] for row in compare(runs)[0]["runs"]}
        assert found["run1"]["mean"] == pytest.approx(sum(scores[1][:count]) / count)
        assert (found["run0"]["diverged"], found["run1"]["diverged"]) == (0, lost)


def test_a_report_beside_the_run_is_found_too(tmp_path):
    runs = [evaluated(tmp_path / "a", [0.5], place="."), evaluated(tmp_path / "b", [0.4])]
    assert len(compare(runs)[0]["runs"]) == 2


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"source": {"tasks": "sine", "seed": 0}}, "differ in tasks"),
        ({"source": {"tasks": "glyphs", "seed": 1}}, "differ in seed"),
        ({"setting": SETTING | {"shot": 5}}, "share no setting"),
        ({"setting": SETTING | {"query_shot": 5}}, "share no setting"),
    ],
)
def test_other_tasks_are_refused(tmp_path, other, named):
    runs = [evaluated(tmp_path / "a", [0.5]), evaluated(tmp_path / "b", [0.4], **other)]
    with pytest.raises(UserError, match=named):
        compare(runs)


def test_scores_on_test_examples_that_changed_in_between_are_refused(tmp_path):
    runs = [evaluated(tmp_path / "a", [0.5]), evaluated(tmp_path / "b", [0.5], data="one class more")]
    with pytest.raises(UserError, match=r"a and .*b were scored on other test examples"):
        compare(runs)


def test_it_takes_two_evaluated_runs(tmp_path):
    run = evaluated(tmp_path / "a", [0.5])
    with pytest.raises(UserError, match="two runs"):
        compare([run])
    Run.open(tmp_path / "b", Run(run).config() | {"learner": "b"})
    with pytest.raises(ArtifactError, match=r"b has no finished model"):
        compare([run, tmp_path / "b"])


@pytest.mark.slow
def test_runs_that_were_not_evaluated_are_scored_on_the_tasks_that_evaluate_would_take(tmp_path, monkeypatch):
    source = Source(str(own_data.species(tmp_path / "species.csv")), label="kind")
    sizes = {"way": 2, "shot": 2, "query_shot": 3, "backbone_options": {"hidden": [4]}}
    settings = {"steps": 2, "meta_batch_size": 1, "validation_tasks": 2}
    runs = [tmp_path / learner for learner in ("protonet", "r2d2")]
    for run in runs:
        train(Experiment(source, learner=run.name, settings=settings, **sizes), run)
    heard = []
    with noted(
        "protonet has no evaluation.* on 100 test tasks .*handful evaluate .*protonet", "r2d2 has no evaluation"
    ):
        [setting] = compare(runs, on_event=heard.append)
    assert {event.total for event in heard} == {100}
    assert {row["score"]["tasks"] for row in setting["runs"]} == {100}
    assert not (runs[0] / "report").exists()
    monkeypatch.setattr(Report, "_draw", lambda report, folder: {})
    evaluate(runs[0], tasks=100, minutes=0).write(runs[0] / "report")
    with noted("r2d2 has no evaluation") as notes:
        assert compare(runs) == [setting]
    assert len(list(notes)) == 1


# Runs that differ in the seed


def seeded(path, learner, seed, scores, *, split=None):
    source = {"tasks": "glyphs", "seed": seed if split is None else split}
    return evaluated(path / f"{learner}{seed}", scores, learner=learner, source=source, seed=seed)


def tables(seeds=3, tasks=20):
    generator = torch.Generator().manual_seed(0)
    luck = torch.rand(seeds, tasks, generator=generator, dtype=torch.float64)
    return luck, luck + 0.1 + 0.02 * torch.rand(seeds, tasks, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("split", [0, None])
def test_runs_that_differ_in_the_seed_are_one_line_with_an_interval_for_other_seeds(tmp_path, split):
    """split: the seed of the splits, or None where it is that of the training."""
    low, high = tables()
    runs = [
        seeded(tmp_path, name, seed, table[seed].tolist(), split=split)
        for seed in (2, 0, 1)
        for name, table in (("low", low), ("high", high))
    ]
    (setting,) = compare(runs)
    first, second = setting["runs"]
    assert [first["learner"], second["learner"]] == ["high", "low"]
    assert first["runs"] == [str(tmp_path / f"high{seed}") for seed in range(3)]
    assert first["score"] == vars(seeds_interval(list(high), same_tasks=split == 0))
    assert second["against_best"] == vars(seeds_interval(list(low - high), same_tasks=split == 0))
    assert second["against_best"]["high"] < 0, "the tasks of both are paired"


def test_seeds_of_one_learner_alone_may_be_compared(tmp_path):
    low, _ = tables()
    (setting,) = compare([seeded(tmp_path, "low", seed, low[seed].tolist()) for seed in range(3)])
    assert setting["runs"][0]["score"]["seeds"] == 3


def test_a_missing_seed_is_named(tmp_path):
    low, high = tables()
    runs = [seeded(tmp_path, "low", seed, low[seed].tolist()) for seed in range(3)]
    runs += [seeded(tmp_path, "high", seed, high[seed].tolist()) for seed in range(2)]
    with pytest.raises(UserError, match=r"high0 has the seeds 0, 1, but .*low0 has 0, 1, 2"):
        compare(runs)


def test_one_training_is_not_two_seeds(tmp_path):
    run = evaluated(tmp_path / "a", [0.5, 0.7])
    with pytest.raises(UserError, match=r"the same training, with seed 0\. Use only one of them"):
        compare([run, run])
    again = evaluated(tmp_path / "b", [0.5, 0.7], learner="a")
    with pytest.raises(UserError, match=f"{again} and {run} are the same training"):
        compare([again, run, evaluated(tmp_path / "c", [0.1, 0.2])])


def test_seeds_are_on_the_same_splits_or_each_on_its_own(tmp_path):
    low, _ = tables()
    runs = [seeded(tmp_path, "low", seed, low[seed].tolist(), split=split) for seed, split in enumerate((0, 0, 1))]
    with pytest.raises(UserError, match=r"splits of the seeds 0, 0, 1, some of which are the same"):
        compare(runs)


def test_each_run_is_named_with_its_own_settings(tmp_path):
    """Although runs are put in the order of their kinds and seeds."""
    runs = [
        evaluated(tmp_path / "maml1", [0.5], learner="maml", seed=1),
        evaluated(tmp_path / "r2d21", [0.5], learner="r2d2", seed=1),
        evaluated(tmp_path / "maml0", [0.5], learner="maml", seed=0, setting=SETTING | {"shot": 5}),
        evaluated(tmp_path / "r2d20", [0.5], learner="r2d2", seed=0),
    ]
    with pytest.raises(UserError) as raised:
        compare(runs)
    for name, shot in (("maml1", 1), ("r2d21", 1), ("maml0", 5), ("r2d20", 1)):
        assert f"{tmp_path / name}: 5-way {shot}-shot, 15 queries" in str(raised.value)
