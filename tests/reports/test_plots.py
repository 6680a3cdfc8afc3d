"""Pictures: each is drawn, has the size that a page shows well, and shows what it is given."""

from dataclasses import replace

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from handful.evaluation.intervals import Interval
from handful.registry import METRICS
from handful.reports import plots
from handful.types import Examples, Task
from results import compare, evaluation, noisy

ACCURACY = METRICS["accuracy"]
OWN, RUNG = evaluation("protonet", noisy(0.9)), evaluation("transfer", noisy(0.8, 50, seed=1))
HISTORY = [{"step": s, "loss": 2 / s, **({"val": 0.1 * s} if s % 3 == 0 else {})} for s in range(1, 10)]
SHOTS = {name: [(shot, Interval(0.5, 0.4, 0.6, 10)) for shot in (1, 5)] for name in ("protonet", "transfer")}


def image_task(channels: int = 1, way: int = 3) -> Task:
    targets = torch.arange(way)
    support = Examples(torch.rand(way, channels, 8, 8), targets)
    return Task(support, Examples(torch.rand(2 * way, channels, 8, 8), targets.repeat(2)))


def texts(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


@pytest.mark.parametrize(
    ("draw", "height"),
    [
        (lambda: plots.learning_curve(HISTORY, ACCURACY), 600),
        (lambda: plots.ladder([compare(OWN, RUNG)]), 338),
        (lambda: plots.ladder([compare(OWN, RUNG)] * 3), 626),
        (lambda: plots.shots_curve(SHOTS, ACCURACY), 720),
        (lambda: plots.reliability(OWN.confidences, OWN.correct), 700),
        (lambda: plots.coverage({0.5: Interval(0.4, 0.3, 0.5, 10), 0.9: Interval(0.8, 0.7, 0.9, 10)}), 700),
    ],
    ids=["learning curve", "ladder", "ladder of three", "shots", "reliability", "coverage"],
)
def test_is_written_at_the_width_of_a_page(draw, height, tmp_path):
    plots.save(draw(), tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (1600, height)
        assert len(picture.convert("L").getcolors()) > 20, "something is drawn"


def test_the_same_picture_is_the_same_bytes_whatever_the_users_style(tmp_path):
    plots.save(plots.shots_curve(SHOTS, ACCURACY), tmp_path / "one.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        plots.save(plots.shots_curve(SHOTS, ACCURACY), tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert matplotlib.rcParams["axes.spines.top"], "the user's settings are left alone"


def test_the_ladder_tells_scores_chance_and_fewer_tasks():
    figure = plots.ladder([compare(OWN, RUNG)])
    assert "90.0 ± " in texts(figure)
    assert "(50 tasks)" in texts(figure)
    assert "5-way 1-shot (chance: 20 %)" in texts(figure)
    bars = {round(bar.get_width(), 6): bar.get_facecolor() for bar in figure.axes[0].patches}
    assert bars[90.0] == matplotlib.colors.to_rgba(plots.BLUE)
    assert bars[80.0] == matplotlib.colors.to_rgba(plots.GRAY)


def test_the_label_of_an_interval_that_leaves_the_panel_stays_beside_it(tmp_path):
    own = evaluation("cnp", torch.tensor([0.9, 1.0, 1.1]), metric="rmse")
    wide = evaluation("pooled", torch.tensor([0.01, 0.01, 4.0]), metric="rmse")
    figure = plots.ladder([compare(own, wide)])
    figure.savefig(tmp_path / "ladder.png")
    panel = figure.axes[0]
    assert wide.score.high > panel.get_xlim()[1] ** 2, "it leaves it"
    assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in panel.texts)


def test_the_ladder_tells_rungs_of_one_task_from_those_of_others():
    alone = replace(evaluation("centroid", noisy(0.7, 50, seed=2)), uses_other_tasks=False)
    figure = plots.ladder([compare(OWN, RUNG, alone)])
    bars = {round(bar.get_width(), 6): bar.get_facecolor() for bar in figure.axes[0].patches}
    assert bars[70.0] == matplotlib.colors.to_rgba(plots.PALE)
    assert "from other tasks too | " in texts(figure)
    assert "from this task alone" in texts(figure)
    assert "from this task alone" not in texts(plots.ladder([compare(OWN, RUNG)]))


def test_the_ladder_of_regression_shows_roots_of_errors():
    rows = [evaluation(name, noisy(mse), metric="rmse") for name, mse in (("maml", 4.0), ("pooled", 9.0))]
    widths = {round(bar.get_width(), 6) for bar in plots.ladder([compare(*rows)]).axes[0].patches}
    assert widths == {2.0, 3.0}


def test_errors_of_nothing_but_0_have_an_axis(tmp_path):
    """Matplotlib warns of axes without a length, which is an error in the tests."""
    rows = [evaluation(name, torch.zeros(9), metric="rmse") for name in ("maml", "dummy")]
    history = [{"step": s, "loss": 0.0, "val": 0.0} for s in (4, 9)]
    for picture in (plots.ladder([compare(*rows)]), plots.learning_curve(history, METRICS["rmse"])):
        plots.save(picture, tmp_path / "picture.png")
    diverged = [evaluation(name, torch.full((9,), torch.inf), metric="rmse") for name in ("maml", "dummy")]
    plots.save(plots.ladder([compare(*diverged)]), tmp_path / "picture.png")


def test_the_learning_curve_marks_the_validation_that_was_kept():
    assert "kept: 90.0 %" in texts(plots.learning_curve(HISTORY, ACCURACY))
    errors = [{"step": s, "loss": 1.0, "val": float(s)} for s in (4, 9)]
    assert "kept: 2" in texts(plots.learning_curve(errors, METRICS["rmse"]))


def test_no_share_above_all_is_on_the_axis():
    flat = [{"step": step, "loss": 1.0, "val": 0.97} for step in (4, 9)]
    _, right = plots.learning_curve(flat, ACCURACY).axes
    assert max(tick for tick in right.get_yticks() if tick <= right.get_ylim()[1]) <= 100


def test_a_start_that_was_validated_has_no_loss():
    assert "kept: 90.0 %" in texts(plots.learning_curve([{"step": 0, "seconds": 0.1, "val": 0.1}, *HISTORY], ACCURACY))


def test_one_task_without_an_interval_is_drawn(tmp_path):
    one = compare(evaluation("protonet", torch.tensor([0.9])), evaluation("centroid", torch.tensor([0.5])))
    plots.save(plots.ladder([one]), tmp_path / "ladder.png")
    infinite = {"protonet": [(1, one.learner.evaluation.score), (5, one.learner.evaluation.score)]}
    plots.save(plots.shots_curve(infinite, ACCURACY), tmp_path / "shots.png")


def test_calibration_error_is_the_mean_gap():
    sure = torch.tensor([0.95] * 4 + [0.55] * 4)
    right = torch.tensor([True, True, True, False] + [True, True, False, False])
    assert plots.calibration_error(sure, right) == pytest.approx((0.20 + 0.05) / 2)
    assert plots.calibration(sure, right) == [
        (pytest.approx(0.55), 0.5, 4),
        (pytest.approx(0.95), 0.75, 4),
    ]
    assert plots.calibration_error(torch.ones(3), torch.ones(3, dtype=torch.bool)) == 0


def test_coverage_shows_shares_and_their_intervals():
    one = Interval(0.7, -float("inf"), float("inf"), 1)
    figure = plots.coverage({0.5: Interval(0.4, 0.3, 0.5, 10), 0.9: one})
    drawn = [tuple(map(tuple, line.get_xydata().tolist())) for line in figure.axes[0].lines]
    assert ((50.0, 40.0), (90.0, 70.0)) in drawn
    assert ((50.0, 30.0), (50.0, 50.0)) in drawn
    assert len(drawn) == 3, "the diagonal, the shares, and the one interval that there is"


def test_the_picture_of_a_task_frames_right_and_wrong_answers(tmp_path):
    task = image_task()
    predicted = task.query.targets.clone()
    predicted[4] = 2
    figure = plots.task_picture(task, predicted)
    assert "5 of 6 predictions are correct" in texts(figure)
    frames = [matplotlib.colors.to_hex(patch.get_edgecolor()).upper() for patch in figure.axes[0].patches]
    counts = [frames.count(color) for color in (plots.BLUE, plots.GREEN, plots.VERMILION)]
    assert counts == [3, 5, 1]
    assert len(figure.axes[0].images) == 9
    plots.save(figure, tmp_path / "task.png")


def test_the_picture_of_a_task_takes_any_images_and_any_names(tmp_path):
    """Colors out of range, names with dollar signs and in scripts that the font lacks, more classes than rows."""
    task = image_task(channels=3, way=12)
    names = ["$5 and $x", "漢字", *(f"a name of some length {i}" for i in range(10))]
    noisy_task = Task(Examples(task.support.inputs * 9 - 4, task.support.targets), task.query)
    figure = plots.task_picture(noisy_task, task.query.targets, names=names)
    plots.save(figure, tmp_path / "task.png")
    with Image.open(tmp_path / "task.png") as picture:
        assert picture.width <= 1600
    assert "1  $5 and $x" in texts(figure)
    assert "24 of 24 predictions are correct (20 shown)" in texts(figure)


def test_a_picture_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    class Broken(Figure):
        def savefig(self, *args, **kwargs):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        plots.save(Broken(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [float("-inf"), float("inf")])
def test_a_score_that_is_not_finite_has_a_label_and_no_bar(value):
    own = evaluation("maml", torch.full((2,), value), metric="rmse")
    comparison = compare(own, evaluation("dummy", torch.tensor([4.0, 4.0]), metric="rmse"))
    figure = plots.ladder([comparison])
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0, 2]
    assert "(2 diverged)" in texts(figure)
    some = compare(evaluation("maml", torch.tensor([9.0, value]), metric="rmse"), comparison.best_rung.evaluation)
    assert [bar.get_width() for bar in plots.ladder([some]).axes[0].patches] == [3, 2], "of the finite ones"
    assert "3.00 (1 diverged)" in texts(plots.ladder([some]))


def test_errors_are_written_with_equally_many_figures():
    rungs = [evaluation(name, torch.full((3,), mse), metric="rmse") for name, mse in (("b", 0.6561), ("c", 0.6416))]
    told = texts(plots.ladder([compare(evaluation("a", torch.ones(3), metric="rmse"), *rungs)])).split(" | ")
    assert {"1.00", "0.810", "0.801"} <= set(told)


def test_a_small_change_of_the_validation_score_looks_small():
    errors = [{"step": s, "loss": 1.0, "val": 1 - s / 1000} for s in (4, 9)]
    assert plots.learning_curve(errors, METRICS["rmse"]).axes[1].get_ylim()[0] == 0
    shares = [{"step": s, "loss": 1.0, "val": 0.5 + s / 1000} for s in (4, 9)]
    low, high = plots.learning_curve(shares, ACCURACY).axes[1].get_ylim()
    assert high - low >= 10
    best = [{"step": s, "loss": 1.0, "val": v} for s, v in ((4, 0.9), (9, 1.0))]
    assert plots.learning_curve(best, ACCURACY).axes[1].get_ylim()[1] < 105, "no tick passes 100 %"


def test_intervals_of_shares_end_at_100_percent():
    wide = torch.tensor([1.0, 1.0, 0.2])
    figure = plots.ladder([compare(evaluation("protonet", wide), evaluation("centroid", 1 - wide))])
    drawn = torch.cat([torch.as_tensor(line.get_xdata(), dtype=torch.float64) for line in figure.axes[0].lines])
    assert drawn.min() >= 0
    assert drawn.max() <= 100
    assert "73.3" in texts(figure).split(" | ")


def test_draws_are_told_where_a_rung_has_fewer_of_the_same_tasks():
    own, rung = (evaluation(name, noisy(0.5, n), units=torch.arange(n) % 5) for name, n in (("a", 100), ("b", 20)))
    assert "(20 draws)" in texts(plots.ladder([compare(own, rung)]))


def test_a_range_of_shots_is_written_as_everywhere():
    own, rung = (evaluation(name, noisy(4.0), metric="rmse", shot=(3, 46)) for name in ("cnp", "dummy"))
    assert "3 to 46-shot" in texts(plots.ladder([compare(own, rung)]))


def test_the_shots_curve_names_its_axes():
    axes = plots.shots_curve(SHOTS, METRICS["rmse"]).axes[0]
    assert axes.get_ylabel() == "RMSE"
    assert axes.get_xlabel() == "examples of each class"
