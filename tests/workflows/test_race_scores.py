"""Who is ahead: by paired intervals over tasks, or over classes where these are drawn anew; the cheapest among ties."""

import math

import torch

from evaluation.toys import Clusters, Slopes
from handful.metrics import METRICS
from handful.streams import seeded
from handful.workflows.race_scores import Judge, Scored, on_same_tasks, reason

TASKS = 60


def judge(tasks=None, metric="accuracy") -> Judge:
    return Judge((tasks or Clusters()).split("val"), METRICS[metric], TASKS)


def scored(values, seconds=1.0) -> Scored:
    return Scored(torch.as_tensor(values, dtype=torch.float64), seconds)


def spread(mean: float, width: float = 0.05, seed: int = 0) -> torch.Tensor:
    return mean + width * torch.randn(TASKS, generator=seeded("race scores", seed), dtype=torch.float64)


def test_the_better_one_of_two_that_differ_on_all_tasks_is_surely_ahead():
    court = judge()
    good, bad = scored(spread(0.8)), scored(spread(0.8) - 0.1 + 0.001 * spread(0.0, 1.0, 3))
    assert court.surely_ahead(good, bad)
    assert not court.surely_ahead(bad, good)
    assert court.best({"bad": bad, "good": good}) == "good"
    assert reason(court, ("good", good), bad) == "significantly behind good"


def test_one_that_was_scored_on_fewer_tasks_is_compared_on_these():
    court, values = judge(), spread(0.8)
    few, all_of_them = scored(values[:20] + 0.1 + 0.001 * spread(0.0, 1.0, 3)[:20]), scored(values)
    assert court.score(few) == float(few.scores.mean())
    assert court.ahead(few, all_of_them).tasks == 20
    assert court.surely_ahead(few, all_of_them)
    assert court.ahead(all_of_them, few).mean == -court.ahead(few, all_of_them).mean


def test_of_errors_the_smaller_one_is_ahead():
    court = judge(Slopes(), "rmse")
    small, large = scored(spread(4.0)), scored(spread(4.0) + 1 + spread(0.0, 0.01, 1))
    assert court.best({"large": large, "small": small}) == "small"
    assert court.surely_ahead(small, large)


def test_among_ties_the_cheapest_is_taken():
    court = judge()
    slow, cheap = scored(spread(0.800), seconds=2.0), scored(spread(0.799, seed=1), seconds=0.1)
    assert court.rank(slow) != court.rank(cheap)
    assert court.best({"slow": slow, "cheap": cheap}) == "cheap"


def test_what_was_trained_is_left_out_unless_it_is_clearly_ahead_of_its_start():
    court = judge()
    field = {
        "frozen": scored(spread(0.7)),
        "worst": scored(spread(0.5)),
        "lucky": scored(spread(0.75, width=1.0, seed=5)),
        "learned": scored(spread(0.7) + 0.1 + spread(0.0, 0.001, 3)),
    }
    assert court.below(field, ["worst", "frozen"]) == {"lucky": "not clearly ahead of frozen"}


def test_where_every_task_has_all_classes_a_gain_for_other_classes_is_unknown():
    """However many the draws: the rule by which heads on a network are switched on, too."""
    of_all = Clusters(splits={"train": list(range(30)), "val": list(range(30, 35)), "test": list(range(35, 60))})
    field = {"frozen": scored(spread(0.7)), "map": scored(spread(0.709) + 0.001 * spread(0.0, 1.0, 3))}
    assert set(judge(of_all).below(field, ["frozen"])) == {"map"}
    assert not judge(Slopes()).below(field, ["frozen"]), "over tasks it is known"


def test_a_field_is_ranked_on_the_tasks_that_all_of_its_candidates_have():
    hard, easy = torch.full((10,), 0.3).double(), torch.full((TASKS - 10,), 0.9).double()
    field = {"a": scored(torch.cat([hard, easy])), "b": scored(hard + 0.2 + 0.01 * spread(0.0)[:10])}
    assert judge().best(on_same_tasks(field)) == "b"
    assert {len(one.scores) for one in on_same_tasks(field).values()} == {10}


def test_a_mean_that_is_far_behind_is_no_tie_however_wide_the_interval():
    court = judge()
    leader, noisy = scored(spread(0.8), seconds=2.0), scored(spread(0.7, width=1.0, seed=2), seconds=0.1)
    assert not court.surely_ahead(leader, noisy) or court.ahead(leader, noisy).low > 0
    assert court.best({"leader": leader, "noisy": noisy}) == "leader"


def test_intervals_are_over_classes_where_classes_are_drawn_anew():
    """All that differs are tasks with one class: for other classes that says nothing, however many the draws."""
    court, tasks = judge(), Clusters().split("val")
    lucky = {tasks.manifest(0).classes[0]}
    gains = torch.tensor([0.2 * len(lucky & set(tasks.manifest(index).classes)) for index in range(TASKS)])
    base = spread(0.6, width=0.001)
    gap = court.ahead(scored(base + gains), scored(base))
    assert gap.mean > 0 > gap.low
    assert not court.surely_ahead(scored(base + gains), scored(base))


def test_one_that_diverged_more_often_is_behind_and_its_scores_come_back_from_json():
    court = judge(Slopes(), "rmse")
    values = spread(1.0)
    values[3], values[4] = math.inf, math.nan
    found = Scored.from_json(scored(values).to_json(), 1.0)
    assert found.diverged == 1
    assert torch.equal(found.scores.isnan(), values.isnan())
    assert court.best({"diverged": found, "dear": scored(spread(9.0), seconds=5.0)}) == "dear"


def test_those_that_go_on_are_the_best_but_none_that_is_surely_behind():
    court = judge()
    field = {"c": scored(spread(0.3)), "a": scored(spread(0.8)), "b": scored(spread(0.799, seed=4))}
    assert court.going_on(field, 3) == ["a", "b"]
    assert court.going_on(field, 1) == ["a"]
