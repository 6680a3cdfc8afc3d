"""The report: honest words, exact schema, numbers that can be checked again."""

import json
import math
from dataclasses import replace

import pytest
import torch

from handful.doctor.diagnosis import Finding
from handful.errors import ArtifactError, UserError
from handful.evaluation.comparison import Comparison
from handful.evaluation.intervals import interval, tasks_needed
from handful.evaluation.scoring import FROZEN, LEVELS, TUNED
from handful.registry import METRICS
from handful.reports.report import Report, load, load_scores
from handful.reports.summary_lines import needed_line, performance_line
from results import compare, evaluation, noisy

OWN = evaluation("protonet", noisy(0.9))
WORSE = evaluation("transfer", noisy(0.8, seed=1))
NEAR_DUPLICATE_DISTANCE = evaluation("fine-tune-all", noisy(0.9, 10, seed=2), adapt_seconds=2.0)
BETTER = evaluation("ridge-probe", noisy(0.95, seed=3))


def report(*comparisons: Comparison, **facts) -> Report:
    given = {"selection": "best of 10 validations", "seed": 3, "plan": "loop"}
    return Report("A title", "letters of unseen scripts", list(comparisons), **(given | facts))


# The verdict


def test_a_clear_win_is_said_plainly_with_its_interval_and_both_numbers_of_tasks():
    alone = evaluation("centroid", noisy(0.5, seed=4))
    verdict = report(compare(OWN, WORSE, alone)).verdict
    half, gap, over = OWN.score.half_width, OWN.gain_over(WORSE), OWN.gain_over(alone)
    assert verdict == (
        f"With 1 example of each of 5 new classes, protonet has an accuracy of 90.0 ± {100 * half:.1f} % "
        "(95 % interval, 100 tasks).\nOther tasks help: protonet beats the best baseline that learns from each task "
        f"alone, centroid, by 40.0 ± {100 * over.half_width:.1f} points on 100 tasks in common.\nIt is the best way of "
        f"using other tasks, ahead of transfer by 10.0 ± {100 * gap.half_width:.1f} points on 100 tasks in common."
    )


def test_a_loss_comes_first_and_names_what_to_use_instead():
    verdict = report(compare(OWN, WORSE, BETTER)).verdict
    assert verdict.startswith("No significant gain from other tasks here: ")
    assert "tasks).\nprotonet LOSES to ridge-probe, which learns from each task alone, by 5.0 ± " in verdict
    assert ". Use ridge-probe instead.\nIt is the best way of using other tasks, ahead of transfer by 10.0" in verdict
    assert "beats" not in verdict


def test_another_way_of_using_other_tasks_that_is_better_is_a_result():
    """And no defeat of using them."""
    told = report(compare(OWN, evaluation("transfer", noisy(0.97, seed=3)), evaluation("centroid", noisy(0.5, seed=4))))
    assert told.verdict.startswith("With 1 example")
    assert (
        "Other tasks help: protonet beats the best baseline that learns from each task alone, centroid, by"
        in told.verdict
    )
    assert "The best way of using other tasks is transfer, ahead of protonet by 7.0 ± " in told.verdict
    setting = told.to_json()["settings"][0]
    assert (setting["over_alone"]["rung"], setting["over_ways"]["rung"]) == ("centroid", "transfer")
    assert setting["over_alone"]["low"] > 0 > setting["over_ways"]["high"]


def test_other_tasks_pay_where_only_another_way_of_using_them_does():
    tie = evaluation("ridge-probe", noisy(0.89, seed=5))
    transfer = evaluation("transfer", noisy(0.97, seed=3))
    told = report(compare(OWN, transfer, tie)).verdict
    assert told.startswith("With 1 example")
    assert "does not differ significantly from ridge-probe, which learns from each task alone (" in told
    assert "The best way of using other tasks is transfer, ahead of protonet by 7.0 ± " in told
    unsure = report(compare(OWN, tie)).verdict
    assert unsure.startswith("No significant gain from other tasks here: With 1 example")
    assert "tasks).\nprotonet does not differ significantly from ridge-probe" in unsure
    assert [text.count("ther tasks help") + text.count("NOT help") for text in (told, unsure)] == [1, 0], "said once"


def test_a_learner_that_learns_from_each_task_alone_is_not_sold_as_more():
    own, ways = (
        evaluation("centroid", noisy(0.9)),
        [evaluation("transfer", noisy(mean, seed=1)) for mean in (0.8, 0.97)],
    )
    told = [report(compare(own, evaluation("dummy", noisy(0.2, seed=2)), way)).verdict for way in ways]
    assert "centroid learns from each task alone.\nIt beats the best way of using other tasks, transfer, by" in told[0]
    assert told[0].startswith("No significant gain from other tasks here: ")
    assert "centroid learns from each task alone.\nThe best way of using other tasks is transfer, ahead of" in told[1]
    assert told[1].startswith("With 1 example")


def test_the_best_method_without_other_tasks_is_the_one_that_was_chosen_on_others():
    """Of two the one that the scored tasks happen to favor would be too good; one that is surely ahead is no luck."""
    chosen = evaluation("centroid", noisy(0.5, seed=4))
    lucky, ahead = (evaluation("ridge-probe", noisy(mean, seed=5)) for mean in (0.51, 0.7))
    for other, found in ((lucky, "centroid"), (ahead, "ridge-probe")):
        comparison = Comparison.of(OWN, [(chosen, {}), (other, {}), (WORSE, {})], alone="centroid")
        assert comparison.best_alone.evaluation.learner == found
        assert Comparison.of(OWN, [(chosen, {}), (other, {})]).best_alone.evaluation.learner == "ridge-probe"


def test_a_loss_to_a_rung_that_is_trained_says_how():
    verdict = report(compare(OWN, evaluation("transfer", noisy(0.97, seed=3)))).verdict
    assert verdict.endswith("Use transfer instead: train it with examples to pre-train on.")


def test_a_loss_to_a_rung_that_tunes_an_encoder_says_what_that_costs():
    verdict = report(compare(OWN, evaluation("contrastive", noisy(0.97, seed=3), adapt_seconds=26.0))).verdict
    assert verdict.endswith("Use contrastive instead, which takes 26.0 s for a new task and is not trained beforehand.")


@pytest.mark.parametrize("score", [1.0, 0.6])
def test_three_tasks_with_equal_scores_are_sure_of_nothing(score, tmp_path):
    own, rung = (evaluation(key, torch.full((3,), value)) for key, value in (("maml", score), ("pooled", score - 0.02)))
    told = report(compare(own, rung), half_width=0.01)
    assert (
        "it does not differ significantly from pooled (maml ahead by 2.0 points (-70.2 to +71.3) on 3 tasks"
        in told.verdict
    )
    assert "± 0.0" not in told.write(tmp_path).read_text()
    row, other = load(tmp_path)["settings"][0]["rows"]
    assert row["score"]["low"] < score - 0.1
    assert other["paired"]["low"] < 0 < other["paired"]["high"]
    assert f"{tasks_needed(own.score, 0.01)} tasks" in needed_line(own, 0.01)


def test_three_equal_errors_have_no_interval():
    own, rung = (
        evaluation(key, torch.full((3,), value), metric="rmse") for key, value in (("maml", 1.0), ("mean", 2.0))
    )
    told = report(compare(own, rung))
    assert "3 tasks: no interval)" in told.verdict
    assert "does not differ significantly" in told.verdict
    assert needed_line(own, 0.1).endswith("cannot be estimated where all scores are equal.")
    assert "±" not in told.verdict


def test_a_tie_is_no_win():
    near = evaluation("fine-tune-all", noisy(0.89, seed=2))
    comparison = compare(OWN, WORSE, near)
    paired = comparison.rows[1].paired
    assert paired.low < 0 < paired.high, "the case is a tie"
    verdict = report(comparison).verdict
    assert (
        "As a way of using other tasks, it does not differ significantly from fine-tune-all (protonet ahead by"
        in verdict
    )
    assert "100 tasks in common" in verdict
    assert "so small a difference needs about" in verdict
    assert "beats" not in verdict


def test_a_sure_loss_does_not_hide_behind_a_lucky_rung_on_few_tasks():
    lucky = evaluation("fine-tune-all", noisy(0.99, 4, spread=0.3, seed=2))
    comparison = compare(OWN, lucky, BETTER)
    assert comparison.rows[1].evaluation.learner == "fine-tune-all", "by its mean alone it is the best"
    assert comparison.rows[1].paired.low < 0
    assert comparison.best_rung.evaluation.learner == "ridge-probe"
    assert "LOSES to ridge-probe, which" in report(comparison).verdict


def test_a_sure_loss_on_few_tasks_is_a_loss():
    few = evaluation("fine-tune-all", OWN.scores[:10] + 0.05 + 1e-4 * torch.arange(10))
    verdict = report(compare(OWN, WORSE, few)).verdict
    assert "The best way of using other tasks is fine-tune-all, ahead of protonet by 5.0 ± " in verdict
    assert "10 tasks in common" in verdict


def test_a_possible_equal_on_few_tasks_is_named_beside_a_win():
    close = evaluation("centroid", OWN.scores - 0.01 - 1e-4 * torch.arange(100))
    unsure = evaluation("scratch", noisy(0.9, 4, spread=0.4, seed=5))
    comparison = compare(OWN, close, unsure)
    assert [row.evaluation.learner for row in comparison.undecided] == ["scratch"]
    verdict = report(comparison).verdict
    assert "beats the best baseline that learns from each task alone, centroid, by 1.5 ± " in verdict
    assert verdict.endswith("(undecided: scratch on 4 tasks).")


def test_bad_news_of_one_setting_comes_before_good_news_of_another():
    twenty = compare(replace(OWN, way=20), replace(BETTER, way=20))
    verdict = report(compare(OWN, WORSE), twenty).verdict
    assert verdict.startswith(
        "No significant gain from other tasks in every setting: With 1 example of each of 20 new classes"
    )
    assert verdict.index("LOSES") < verdict.index("It is the best way")


def test_regression_speaks_of_errors_in_the_targets_units_and_of_pooling():
    own = evaluation("maml", noisy(4.0), metric="rmse", shot=10)
    pooled = evaluation("pooled", noisy(9.0, seed=1), metric="rmse", shot=10)
    verdict = report(compare(own, pooled)).verdict
    assert "With 10 examples of a new task, maml has an RMSE of 2.00" in verdict
    assert "of RMSE on 100 tasks in common, 2.00 instead of 3.00" in verdict
    assert verdict.endswith("Adapting to each task beats one pooled model for all tasks.")
    closer = evaluation("ridge-probe", noisy(7.0, seed=2), metric="rmse", shot=10)
    verdict = report(compare(own, closer, pooled)).verdict
    assert "beats the best baseline that learns from each task alone, ridge-probe, by 0.646 ± " in verdict
    assert "It is the best way of using other tasks, ahead of pooled by 1.00 ± " in verdict
    assert verdict.endswith("Adapting to each task beats one pooled model for all tasks.")
    better = evaluation("cnp", noisy(2.0, seed=3), metric="rmse", shot=10)
    verdict = report(compare(own, better, pooled)).verdict
    assert "The best way of using other tasks is cnp, ahead of maml by" in verdict
    assert "Adapting to each task beats one pooled model for all tasks by 1.00 ± " in verdict
    verdict = report(compare(pooled, own)).verdict
    assert "The best way of using other tasks is maml, ahead of pooled by" in verdict


@pytest.mark.parametrize(
    ("error", "words"),
    [(3.0, "LOSES to one pooled model"), (4.0, "It is undecided whether adapting to each task")],
)
def test_regression_says_when_adapting_does_not_beat_pooling(error, words):
    own = evaluation("maml", noisy(4.0), metric="rmse")
    pooled = evaluation("pooled", noisy(error, seed=1), metric="rmse")
    verdict = report(compare(own, pooled)).verdict
    assert words in verdict
    assert "  " not in verdict


def test_one_task_is_not_given_an_interval():
    verdict = report(compare(evaluation("protonet", torch.tensor([0.75])), evaluation("centroid", torch.tensor([0.5]))))
    assert "an accuracy of 75.0 % (1 task: no interval)" in verdict.verdict
    assert "does not differ significantly" in verdict.verdict
    assert "inf" not in verdict.verdict


def test_without_a_way_shots_are_those_of_the_task():
    """Tasks of a table have the classes that they have, and `shot` counts rows of a task."""
    verdict = report(compare(*(replace(e, way=None, shot=5) for e in (OWN, WORSE)))).verdict
    assert verdict.startswith("With 5 examples of a new task, protonet has an accuracy of 90.0")


UNFINITE = pytest.mark.parametrize("value", [math.inf, -math.inf])


def broken(key: str, value: float, mean: float = 4.0, *, places=(7,), seed=0, **facts):
    """An evaluation of errors, of which some are not finite."""
    scores = noisy(mean, seed=seed)
    scores[list(places)] = value
    return evaluation(key, scores, metric="rmse", shot=10, **facts)


@UNFINITE
def test_a_learner_that_diverges_is_said_to(value, tmp_path):
    rungs = [evaluation(key, noisy(9.0, seed=1), metric="rmse", shot=10) for key in ("ridge-probe", "pooled")]
    told = report(compare(broken("maml", value, places=(7, 8)), *rungs), half_width=0.1)
    assert told.verdict == (
        "No significant gain from other tasks here: With 10 examples of a new task, maml DIVERGES: it has no finite "
        "prediction on 2 of 100 tasks. Use ridge-probe instead."
    )
    page = told.write(tmp_path).read_text()
    row, *others = load(tmp_path)["settings"][0]["rows"]
    mean = float(told.comparisons[0].learner.evaluation.scores.nan_to_num(0, 0, 0).sum() / 98)
    assert (row["score"]["mean"], row["score"]["tasks"], row["score"]["diverged"]) == (pytest.approx(mean), 98, 2)
    assert "(2 diverged)" in next(line for line in page.splitlines() if line.startswith("| **maml**"))
    assert [(other["score"]["mean"], other["score"]["diverged"]) for other in others] == [(pytest.approx(9), 0)] * 2
    kept = load_scores(tmp_path)["settings"][0]["rows"]
    assert [place for place, score in enumerate(kept[0]["scores"]) if not math.isfinite(score)] == [7, 8]
    assert kept[0]["diverged"] == [7, 8]
    assert "diverged" not in kept[1]
    again = interval(torch.tensor(kept[0]["scores"]), torch.tensor(kept[0]["units"]))
    assert again.mean == pytest.approx(mean)
    assert again.diverged == 2


@UNFINITE
def test_a_rung_that_diverges_as_often_is_compared_on_the_rest(value):
    own = broken("maml", value)
    told = report(compare(own, broken("pooled", value, 9.0, seed=1))).verdict
    assert "has an RMSE of 2.00, 1.99 to 2.01 (1 diverged) (in " in told
    assert "It is the best way of using other tasks, ahead of pooled by 1.00 ± " in told
    assert "on 99 tasks in common" in told
    few = evaluation("scratch", noisy(5.0, 10), metric="rmse", shot=10)
    assert report(compare(own, broken("pooled", value), few)).verdict.endswith("Use scratch instead.")


@UNFINITE
def test_a_learner_that_diverges_more_rarely_beats_a_rung_that_does_so_more_often(value):
    told = report(compare(broken("maml", value), broken("pooled", value, 1.0, places=(7, 8, 9)))).verdict
    assert "(1 diverged)" in told
    assert "It is the best way of using other tasks, ahead of pooled, which has no finite prediction on 3 of" in told


def test_of_accuracies_what_diverges_is_wrong_and_told():
    scores = torch.full((40,), 0.9).scatter(0, torch.arange(10), 0.0)
    own = evaluation("maml", scores, diverged=scores == 0)
    told = report(compare(own, evaluation("ridge-probe", noisy(0.85, 40, spread=0.01))))
    assert "% (10 diverged) (" in told.verdict
    assert "LOSES to ridge-probe" in told.verdict
    assert told.scores_to_json()["settings"][0]["rows"][0]["diverged"] == list(range(10))


@UNFINITE
def test_the_draws_that_diverge_are_told_of_all(value):
    own = broken("maml", value, places=(6, 7, 9), units=torch.arange(100) // 4)
    told = report(compare(own, evaluation("dummy", noisy(9.0), metric="rmse"))).verdict
    assert "on 3 of 100 draws of 25 tasks" in told


@UNFINITE
def test_a_learner_without_any_finite_prediction_has_no_score(value, tmp_path):
    own = broken("maml", value, places=range(100))
    told = report(compare(own, evaluation("pooled", noisy(9.0), metric="rmse")), half_width=0.1)
    assert "on 100 of 100 tasks" in told.verdict
    page = told.write(tmp_path).read_text()
    assert "where no score is finite" in page
    assert "diverged" in next(line for line in page.splitlines() if line.startswith("| **maml**"))
    assert load(tmp_path)["settings"][0]["rows"][0]["score"]["mean"] is None


@UNFINITE
def test_a_rung_that_diverges_is_the_last_and_stands_for_no_other(value, tmp_path):
    own = evaluation("maml", noisy(4.0, seed=1), metric="rmse", shot=10)
    rungs = broken("scratch", value, 1.0), broken("pooled", value), evaluation("centroid", noisy(5.0), metric="rmse")
    comparison = compare(own, *rungs)
    assert [row.evaluation.learner for row in comparison.rows[:2]] == ["maml", "centroid"]
    verdict = report(comparison).verdict
    assert "beats the best baseline that learns from each task alone, centroid, by 0.236 ± " in verdict
    report(comparison).write(tmp_path)
    alone = report(compare(own, rungs[0])).verdict
    assert alone.endswith("learns from each task alone, scratch, which has no finite prediction on 1 of 100 tasks.")


def test_of_rungs_that_are_surely_better_the_one_with_the_most_to_show_decides():
    """And not one with a higher mean over a few lucky tasks."""
    lucky = evaluation("fine-tune-all", OWN.scores[:5] + 0.08 + 0.02 * torch.arange(-2, 3))
    comparison = compare(OWN, lucky, evaluation("ridge-probe", OWN.scores + 0.05 + 1e-4 * torch.arange(100)))
    assert comparison.rows[1].evaluation.learner == "fine-tune-all"
    assert 0 < comparison.rows[1].paired.low < comparison.rows[2].paired.low
    assert comparison.best_rung.evaluation.learner == "ridge-probe"


def rising(*values: float) -> list[dict]:
    """The history of a training with these validations."""
    return [{"step": 10 * place, "loss": 1.0, "val": value} for place, value in enumerate(values, start=1)]


def test_a_verdict_on_a_training_that_was_still_getting_better_is_not_settled():
    lost = compare(OWN, WORSE, BETTER)
    verdict = report(lost, history=rising(0.3, 0.28, 0.4)).verdict
    assert verdict.startswith(
        "Not settled: the best validation score came at the last of 30 steps; train longer before"
    )
    assert "So far:\nNo significant gain from other tasks here: With 1 example" in verdict
    assert "LOSES to ridge-probe" in verdict
    assert report(lost, history=rising(0.3, 0.4, 0.4)).verdict.startswith("No significant gain from other tasks here")
    assert "Not settled" not in report(compare(OWN, WORSE), history=rising(0.3, 0.4)).verdict, "it wins all the same"
    errors = [evaluation(name, noisy(mse), metric="rmse") for name, mse in (("maml", 9.0), ("pooled", 4.0))]
    assert report(compare(*errors), history=rising(3.0, 2.0)).verdict.startswith("Not settled")
    assert "Not settled" not in report(compare(*errors), history=rising(2.0, 3.0)).verdict


@pytest.mark.slow
def test_noise_and_a_last_hair_of_a_training_that_has_ended_are_not_still_getting_better():
    errors = [evaluation(name, noisy(mse), metric="rmse") for name, mse in (("maml", 9.0), ("pooled", 4.0))]

    def unsettled(*values):
        return report(compare(*errors), history=rising(*values)).verdict.startswith("Not settled")

    assert not unsettled(0.153142, 0.153137)
    assert not unsettled(0.13025, 0.13005)
    assert not unsettled(0.9, 0.3, 0.13025, 0.13005)
    assert not unsettled(0.20, 0.26, 0.21, 0.25, 0.19), "it goes up and down by more than that"
    assert unsettled(0.9, 0.6, 0.4, 0.3)
    assert unsettled(0.9, 0.6, 0.61, 0.4, 0.3)
    generator = torch.Generator().manual_seed(0)
    runs = (1 + 0.05 * torch.randn(300, 10, generator=generator)).tolist()
    assert sum(values.index(min(values)) == 9 for values in runs) > 20
    assert sum(unsettled(*values) for values in runs) < 12


@pytest.mark.parametrize(("mean", "ahead"), [(0.91, "fine-tune-all"), (0.89, "protonet")])
def test_a_difference_that_is_not_sure_names_the_one_ahead(mean, ahead):
    """And has no sign, which would be the other one than that of the table."""
    told = report(compare(OWN, evaluation("fine-tune-all", noisy(mean, spread=0.2, seed=2))))
    assert f"differ significantly from fine-tune-all ({ahead} ahead by 1.0 ± " in told.verdict
    assert f" {'+' if mean > 0.9 else '-'}1.0 ± " in told.to_markdown({})
    maml, pooled = (
        evaluation(name, noisy(value, spread=0.2, seed=seed), metric="rmse")
        for name, value, seed in (("maml", 0.9, 0), ("pooled", mean, 2))
    )
    better, gap = ("maml", 0.00526) if mean > 0.9 else ("pooled", 0.00529)
    assert f"({better} ahead by {gap} ± 0.03" in report(compare(maml, pooled)).verdict


def test_draws_of_the_same_tasks_are_counted_beside_them():
    """A costly rung is scored on the first draws: of the same tasks, but other scores of the learner."""
    units = torch.arange(100) % 10
    own = evaluation("r2d2", torch.cat([noisy(9.0, 30), noisy(16.0, 70)]), metric="rmse", units=units)
    rung = evaluation("fine-tune-all", noisy(4.0, 30, seed=1), metric="rmse", units=units[:30])
    told = report(compare(own, rung))
    assert "(in the target's units; 95 % interval, 100 draws of 10 tasks)" in told.verdict
    assert "on 30 draws of 10 tasks in common, there 3.00 instead of 2.00" in told.verdict
    assert "tasks (draws)" in (page := told.to_markdown({}))
    assert "10 (100) |" in page
    assert "10 (30) |" in page
    assert "draws of" not in report(compare(OWN, WORSE, NEAR_DUPLICATE_DISTANCE)).to_markdown({})


def test_where_all_answers_of_a_task_are_of_one_class_there_is_nothing_to_tell_apart():
    own, constant = (evaluation(name, torch.ones(20), way=None) for name in ("protonet", "dummy"))
    verdict = report(compare(own, constant, evaluation("pooled", noisy(0.8, 20)))).verdict
    assert verdict.startswith("With 1 example of a new task, NOTHING CAN BE PREDICTED")
    assert "does not differ significantly from" not in verdict
    assert "NOTHING" not in report(compare(OWN, evaluation("dummy", noisy(0.2)))).verdict


def test_where_all_targets_of_a_task_are_the_same_there_is_nothing_to_tell_apart():
    rows = [(name, torch.full((20,), error)) for name, error in (("r2d2", 1e-9), ("dummy", 0.0), ("pooled", 4.0))]
    verdict = report(compare(*(evaluation(name, scores, way=None, metric="rmse") for name, scores in rows))).verdict
    assert verdict.startswith("With 1 example of a new task, NOTHING CAN BE PREDICTED: all examples of a task ")
    assert "have the same target" in verdict
    assert "(r2d2: RMSE 3.16e-05)" in verdict
    rows[1] = ("dummy", torch.full((20,), 1e-12))
    more = report(compare(*(evaluation(name, scores, way=None, metric="rmse") for name, scores in rows))).verdict
    assert "NOTHING" not in more


def test_no_share_passes_0_or_100_percent():
    few = torch.tensor([1.0, 1.0, 0.2])
    own, rung = evaluation("protonet", few), evaluation("centroid", 1 - few)
    page = report(compare(own, rung)).to_markdown({})
    assert "has an accuracy of 73.3 (0.0 to 100.0) %" in page
    assert "26.7 (0.0 to 100.0) %" in page
    wide = evaluation("protonet", torch.tensor([0.7, 0.9]), way=None)
    low, high = wide.score.low, wide.score.high
    assert low < 0
    assert high > 1


# The files


def test_json_has_exactly_the_keys_of_schema_1(tmp_path):
    report(compare(OWN, WORSE, NEAR_DUPLICATE_DISTANCE)).write(tmp_path)
    saved = json.loads((tmp_path / "report.json").read_text())
    assert list(saved) == ["schema", "verdict", "settings", "selection", "seed", "plan", "performance"]
    assert (saved["schema"], saved["seed"], saved["plan"]) == (1, 3, "loop")
    (setting,) = saved["settings"]
    assert list(setting) == ["way", "shot", "query_shot", "over_ways", "transductive", "rows"]
    assert list(setting["over_ways"]) == ["rung", "mean", "low", "high", "tasks", "diverged", "undefined"]
    assert (setting["way"], setting["shot"], setting["query_shot"], setting["transductive"]) == (5, 1, 15, False)
    for row in setting["rows"]:
        assert list(row) == ["learner", "baseline", "uses_other_tasks", "score", "cost", "paired"]
        assert list(row["score"]) == ["metric", "mean", "low", "high", "tasks", "diverged", "undefined"]
        assert list(row["cost"]) == ["adapt_seconds", "state_bytes"]
        assert list(row["paired"]) == ["against", "mean", "low", "high", "tasks", "diverged", "undefined"]
    first, *rungs = setting["rows"]
    assert (first["learner"], first["baseline"], first["score"]["tasks"]) == ("protonet", False, 100)
    assert math.isclose(first["score"]["mean"], 0.9)
    assert all(row["baseline"] and row["paired"]["against"] == "protonet" for row in rungs)
    transfer = next(row for row in rungs if row["learner"] == "transfer")
    assert math.isclose(transfer["paired"]["mean"], -0.1), "positive is better than the one in `against`"


def unsure() -> Comparison:
    """A learner that says how sure it is, on tasks of which the best prediction is known, and a rung that does not."""
    count = 100
    own = evaluation(
        "cnp",
        noisy(4.0),
        metric="rmse",
        log_likelihoods=noisy(0.5, seed=4),
        coverages=torch.tensor(LEVELS).double().expand(count, -1) - 0.05 + noisy(0.0, spread=1e-6).unsqueeze(1),
        oracle_scores=noisy(3.0, seed=5),
        oracle_log_likelihoods=noisy(1.25, seed=6),
    )
    return compare(own, evaluation("dummy", noisy(9.0, seed=1), metric="rmse"))


def test_predictions_that_say_how_sure_they_are_are_told_with_what_is_best(tmp_path):
    comparison = unsure()
    page = report(comparison).write(tmp_path).read_text()
    words = " ".join(page.split())
    gap = comparison.learner.evaluation.likelihood_gap
    assert "Log-likelihood of cnp: 0.500 ± " in words
    assert "True values: 45.0 ± 0.0 % in the 50 % interval, 75.0 ± 0.0 % in the 80 % interval" in words
    assert "The oracle (Bayes-optimal) prediction has RMSE 1.732: 0.268 ± " in words
    assert "oracle: 1.73)" in words, "of the verdict too"
    assert f"Its log-likelihood is 1.250: 0.750 ± {gap.half_width:.3f} nats higher, on the same tasks." in words
    assert "](coverage.png)" in page
    assert (tmp_path / "coverage.png").stat().st_size > 5000
    own, rung = load(tmp_path)["settings"][0]["rows"]
    assert own["oracle"]["likelihood_gap"] == vars(gap)
    assert own["coverage"][4] == {"level": 0.5, **vars(comparison.learner.evaluation.coverage[0.5])}
    kept = load_scores(tmp_path)["settings"][0]["rows"][0]
    again = interval(torch.tensor(kept["log_likelihoods"], dtype=torch.float64), torch.tensor(kept["units"]))
    assert vars(again) == own["log_likelihood"]
    assert not {"log_likelihood", "coverage", "oracle"} & set(rung)


def test_a_score_that_is_undefined_is_counted_beside_those_that_are_not(tmp_path):
    """And no finite number stands for it."""
    scores = noisy(0.9, spread=0.01)
    scores[[7, 8]] = math.nan
    told = report(
        compare(
            evaluation("maml", scores, metric="auc"), evaluation("dummy", noisy(0.5, spread=0.01, seed=1), metric="auc")
        )
    )
    assert told.verdict.startswith(
        "With 1 example of each of 5 new classes, maml has an AUC of 90.0 ± 0.2 % (2 undefined) (95 %"
    )
    assert (
        "interval, 98 tasks).\nOther tasks help: maml beats the best baseline that learns from each task "
        in told.verdict
    )
    assert "(2 undefined) |" in told.write(tmp_path).read_text()
    row = load(tmp_path)["settings"][0]["rows"][0]
    assert (row["score"]["undefined"], row["score"]["diverged"], row["score"]["tasks"]) == (2, 0, 98)
    kept = load_scores(tmp_path)["settings"][0]["rows"][0]
    assert [place for place, score in enumerate(kept["scores"]) if math.isnan(score)] == [7, 8]


def test_where_a_metric_is_undefined_on_all_tasks_nothing_is_compared():
    whole, none = noisy(-1.0), torch.full((100,), math.nan)
    sure, points = (evaluation(*facts, metric="log-likelihood", way=None) for facts in (("cnp", whole), ("mean", none)))
    assert report(compare(points, sure)).verdict == (
        "No significant gain from other tasks here: With 1 example of a new task, mean HAS NO SCORE: "
        "its log-likelihood is undefined on all tasks."
    )
    told = report(compare(sure, points)).verdict
    assert told.startswith("With 1 example of a new task, cnp has a log-likelihood of -1.00, -1.02 to ")
    assert told.endswith("; no baseline has a log-likelihood.")


def test_several_targets_have_a_score_each_in_its_unit(tmp_path):
    errors = torch.stack([noisy(4.0), noisy(900.0)], 1)
    own = evaluation("cnp", noisy(0.25), metric="rmse", target_scores=errors, target_names=("heat", "rain"))
    told = report(compare(own, evaluation("dummy", noisy(1.0, seed=1), metric="rmse")))
    assert "has an RMSE of 0.500" in told.verdict
    assert "(in standard deviations of each target; " in told.verdict
    words = " ".join(told.write(tmp_path).read_text().split())
    assert "RMSE of cnp by target: heat 2.00 ± 0.0056; rain 30.0 ± 0.00038. Scores in the table are of" in words
    row = load(tmp_path)["settings"][0]["rows"][0]
    assert [(one["name"], round(one["mean"])) for one in row["targets"]] == [("heat", 4), ("rain", 900)]


def test_the_training_s_metric_may_be_another_than_that_of_the_scores(tmp_path):
    history = [{"step": step, "loss": 1.0, "val": float(val)} for step, val in ((10, 9), (20, 8), (30, 4))]
    losing = compare(WORSE, OWN)
    for metric, settled in ((METRICS["mae"], False), (None, True)):
        told = report(losing, history=history, validated_by=metric)
        assert told.verdict.startswith("With 1 example" if settled else "Not settled"), metric


def test_lower_errors_are_positive_differences():
    own, other = (evaluation(n, noisy(m), metric="rmse") for n, m in (("maml", 4.0), ("dummy", 9.0)))
    rows = report(compare(own, other)).to_json()["settings"][0]["rows"]
    assert rows[0]["paired"]["mean"] == pytest.approx(5)
    assert rows[1]["paired"]["mean"] == pytest.approx(-5)


def test_intervals_follow_from_the_saved_scores(tmp_path):
    """TRAPS T23, T24: whoever doubts an interval computes it again, also where draws share a unit."""
    units = torch.arange(100) // 4
    comparison = compare(
        replace(OWN, units=units), replace(WORSE, units=units), replace(NEAR_DUPLICATE_DISTANCE, units=units[:10])
    )
    report(comparison).write(tmp_path)
    settings, scores = load(tmp_path)["settings"], load_scores(tmp_path)["settings"]
    for row, kept in zip(settings[0]["rows"], scores[0]["rows"], strict=True):
        again = interval(torch.tensor(kept["scores"], dtype=torch.float64), torch.tensor(kept["units"]))
        assert row["learner"] == kept["learner"]
        assert {"metric": kept["metric"], **vars(again)} == row["score"]
    own = scores[0]["rows"][0]
    against = settings[0]["rows"][0]["paired"]["against"]
    rung = next(row for row in scores[0]["rows"] if row["learner"] == against)
    count = len(rung["scores"])
    difference = torch.tensor(own["scores"], dtype=torch.float64)[:count] - torch.tensor(
        rung["scores"], dtype=torch.float64
    )
    paired = vars(interval(difference, torch.tensor(rung["units"])))
    assert {"against": rung["learner"], **paired} == settings[0]["rows"][0]["paired"]
    assert settings[0]["rows"][0]["score"]["tasks"] == 25


@pytest.mark.parametrize("other", [WORSE, evaluation("transfer", torch.tensor([0.5, math.nan]))])
def test_the_recipe_on_the_page_computes_them_again(other, tmp_path, monkeypatch, capsys):
    page = report(compare(OWN, other)).write(tmp_path).read_text()
    monkeypatch.chdir(tmp_path)
    exec(page.split("```python")[1].split("```")[0], {})
    assert f"5 1 protonet {OWN.score}" in (printed := capsys.readouterr().out)
    assert f"5 1 transfer {other.score}" in printed


def test_no_number_is_written_that_json_does_not_have(tmp_path):
    one = compare(evaluation("protonet", torch.tensor([0.75])), evaluation("centroid", torch.tensor([0.5])))
    report(one).write(tmp_path)

    def refuse(constant):
        raise AssertionError(constant)

    saved = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    score = saved["settings"][0]["rows"][0]["score"]
    assert (score["mean"], score["low"], score["high"]) == (0.75, None, None)


def test_the_page_begins_with_the_verdict_and_shows_what_it_was_told(tmp_path):
    told = report(
        compare(OWN, WORSE, NEAR_DUPLICATE_DISTANCE),
        normalization="frozen",
        history=[{"step": s, "loss": 2 / s, **({"val": 0.1 * s} if s % 2 else {})} for s in range(1, 9)],
        shots={"protonet": [(1, OWN.score), (5, WORSE.score)], "transfer": [(1, WORSE.score), (5, WORSE.score)]},
        seconds={"meta-training": 75.2, "pre-training": 174.0},
        notes=["This is type design, not handwriting."],
        findings=[Finding("overlap", "warning", "Three examples are twice there.")],
    )
    page = told.write(tmp_path).read_text()
    assert "; the same tasks and queries throughout, with fewer support examples.*" in page
    anew = replace(told, nested=False).write(tmp_path / "anew").read_text()
    assert "by the number of examples, with 95 % intervals; drawn anew for each number.*" in anew
    assert page.splitlines()[2:4] == [f"- **{line}**" for line in told.verdict.splitlines()]
    for words in (
        "This is type design, not handwriting.",
        "5-way 1-shot (chance is 20 %)",
        "best of 10 validations",
        "Batch normalization: frozen. Not transductive",
        "Seed 3, plan: loop.",
        "meta-training 75.2 s, pre-training 2 min 54 s",
        "**warning**, overlap: Three examples are twice there.",
        "1.2 ms",
        "4.1 kB",
        "2.0 s",
    ):
        assert words in page, words
    pictures = {name for name in page.replace(")", "(").split("(") if name.endswith(".png")}
    assert pictures == {"ladder.png", "shots.png", "reliability.png", "learning-curve.png"}
    assert all((tmp_path / name).stat().st_size > 5000 for name in pictures)
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len({len(line) for line in table}) == 1, "columns line up in a terminal"
    assert len(table) == 2 + 3


def test_a_transductive_score_says_so_on_the_page_and_in_the_json(tmp_path):
    told = report(compare(replace(OWN, transductive=True), WORSE))
    page = told.write(tmp_path).read_text()
    assert "protonet (transductive)" in page
    assert "Transductive: a prediction may depend" in page
    assert told.to_json()["settings"][0]["transductive"] is True


def test_sizes_that_vary_are_lists_and_read_well(tmp_path):
    varied = [replace(e, way=(3, 5), shot=(1, 4), query_shot=None) for e in (OWN, WORSE)]
    told = report(compare(*varied))
    assert "With 1 to 4 examples of each of 3 to 5 new classes" in told.verdict
    page = told.write(tmp_path).read_text()
    assert "3 to 5-way 1 to 4-shot, all remaining queries per class" in page
    setting = load(tmp_path)["settings"][0]
    assert (setting["way"], setting["shot"], setting["query_shot"]) == ([3, 5], [1, 4], None)


# Reading


def test_what_is_not_a_report_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ArtifactError, match=r"has no report\.json. Create one with `handful evaluate"):
        load(tmp_path)
    with pytest.raises(ArtifactError, match="does not exist"):
        load(tmp_path / "nowhere.json")
    path = tmp_path / "report.json"
    for content, words in (
        ("{broken", "cannot be read as JSON"),
        ("[1]", "has no 'schema'"),
        ('{"schema": 2}', "has schema 2, but this version of handful reads 1"),
        ('{"schema": 1, "verdict": "good"}', "lacks plan, seed, selection, settings"),
    ):
        path.write_text(content)
        with pytest.raises(ArtifactError, match=words):
            load(tmp_path)


def test_a_place_that_cannot_be_written_is_a_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        report(compare(OWN, WORSE)).write(tmp_path / "file")


def test_the_speed_of_a_training_is_a_sentence():
    speed = {"seconds_per_step": 0.0123, "tasks_per_second": 1302.7, "peak_bytes": 3 * 2**20, "share_of_limit": 0.0318}
    assert performance_line(speed) == (
        "Speed: 12 ms per meta-step, 1,303 tasks a second, 3 MiB at most, 3.2 % of the machine's measured "
        "peak on large matrix products and convolutions.\n"
    )
    assert "3 MiB at most (2 predicted), 3.2 %" in performance_line(speed | {"predicted_bytes": 2 * 2**20})
    del speed["share_of_limit"]
    assert performance_line(speed | {"peak_bytes": 0, "tasks_per_second": 1.234}) == (
        "Speed: 12 ms per meta-step, 1.23 tasks a second.\n"
    )
    assert performance_line({}) == ""


# An encoder that is a part of the learner


def test_what_is_skipped_for_lack_of_time_is_named_with_what_a_task_takes(tmp_path):
    skipped = {"contrastive": 27.13, "diagnosis": None}
    page = report(unsure(), left_out=skipped).write(tmp_path).read_text()
    assert "Skipped for lack of time: contrastive (27.1 s a task), diagnosis. More minutes include them." in page


def on_encoders(*, tuned: float = 0.89) -> Comparison:
    frozen = [
        evaluation("centroid", noisy(0.8, seed=5), ground=FROZEN),
        evaluation("neighbors", noisy(0.7), ground=FROZEN),
    ]
    after = [
        evaluation("centroid", noisy(tuned, seed=6), ground=TUNED),
        evaluation("neighbors", noisy(0.75), ground=TUNED),
    ]
    return compare(OWN, *after, *frozen)


def test_what_tuning_and_adapting_bring_is_told_in_words_and_numbers(tmp_path):
    comparison = on_encoders()
    page = " ".join(report(comparison).write(tmp_path).read_text().split())
    tuning, adapting = comparison.bought.tuning, comparison.bought.adapting
    assert (
        f"**Tuning the encoder:** +9.0 ± {100 * tuning.half_width:.1f} points for centroid on its vectors, on 100 "
        "tasks." in page
    )
    assert (
        f"**Adapting:** +1.0 ± {100 * adapting.half_width:.1f} points for protonet over centroid, the best "
        "baseline on the tuned encoder, on 100 tasks." in page
    )
    [setting] = load(tmp_path)["settings"]
    assert setting["tuning"] == {"rung": "centroid", **vars(tuning)}
    assert setting["adapting"] == {"rung": "centroid", **vars(adapting)}
    names = [row["learner"] for row in setting["rows"]]
    assert names[0] == "protonet"
    assert set(names[1:]) == {f"{key}, {on} encoder" for on in ("tuned", "frozen") for key in ("centroid", "neighbors")}
    assert [row["learner"] for row in load_scores(tmp_path)["settings"][0]["rows"]] == names


def test_a_learner_is_measured_against_the_frozen_encoder_and_not_against_its_own():
    """However good baselines are on what meta-training has tuned."""
    verdict = report(on_encoders(tuned=0.99)).verdict
    assert (
        "beats the best baseline that learns from each task alone, centroid on the frozen encoder, by 10.0" in verdict
    )
    assert "LOSES" not in verdict


def test_of_a_learner_without_an_encoder_nothing_is_told_of_tuning(tmp_path):
    assert "Tuning the encoder" not in report(compare(OWN, WORSE)).write(tmp_path).read_text()
    assert "tuning" not in load(tmp_path)["settings"][0]
