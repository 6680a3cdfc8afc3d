"""Pictures of a report: learning curve, race, ladder, accuracy by shots, reliability, coverage, and a task to look at.

They are 1600 pixels wide (the picture of a task at most) and show percent, not fractions. The learner in question is
blue, what it is compared with is gray; colors are those of *Color Universal Design* (Okabe & Ito, 2008), which
color-blind people can distinguish.
"""

import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from handful.errors import count_of
from handful.evaluation.comparison import Comparison, Row
from handful.evaluation.data_equivalence import Equivalence
from handful.evaluation.formatting import (
    ALONE,
    OTHER_TASKS,
    figures,
    heading,
    lost,
    root,
    setting_name,
    share,
)
from handful.evaluation.intervals import Interval
from handful.evaluation.scoring import Evaluation
from handful.metrics import Metric
from handful.reports.race import RaceResult
from handful.storage import replacing
from handful.types import Task

WIDTH, DPI = 8.0, 200
LEGEND = 0.25
"""The height of a legend below, in inches."""
BLUE, VERMILION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
INK, GRAY, PALE = "#333333", "#B4BAC2", "#E4E7EB"
BINS = 10
LARGEST = 56.0
"""The longest side of an image in the picture of a task, in points."""

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same picture everywhere
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a user's class name is a dollar sign
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "axes.grid": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "lines.solid_capstyle": "round",
}

Arguments = ParamSpec("Arguments")


def _styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """`draw` in the common style of all pictures, regardless of the user's settings of matplotlib."""

    @functools.wraps(draw)
    def styled(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with _style():
            return draw(*args, **kwargs)

    return styled


def _style() -> Any:
    return matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **_STYLE})


def save(figure: Figure, path: Path) -> None:
    """Write a picture as PNG, atomically."""
    with replacing(path) as temporary, _style(), warnings.catch_warnings():  # some ticks are made when drawn
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # class names in any script; a box is drawn
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


@_styled
def learning_curve(history: Sequence[dict[str, Any]], metric: Metric) -> Figure:
    """Meta-loss by step, smoothed, beside the score on validation tasks with its best step."""
    figure = Figure(figsize=(WIDTH, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    trained = [row for row in history if "loss" in row]  # not the start, where that is validated
    steps, losses = [row["step"] for row in trained], [row["loss"] for row in trained]
    left.plot(steps, losses, color=PALE, linewidth=0.8)
    left.plot(steps, _smooth(losses, max(1, len(losses) // 40)), color=BLUE, linewidth=1.8)
    top = sorted(losses)[int(0.995 * (len(losses) - 1))]
    left.set_ylim(min(0.0, min(losses)), 1.08 * top if top > 0 else None)
    left.set_title("Meta-loss on training tasks")
    right.set_title(f"{heading(metric)} on validation tasks")
    points = [(row["step"], _shown(row["val"], metric)) for row in history if row.get("val") is not None]
    if points:
        right.plot(*zip(*points, strict=True), color=BLUE, linewidth=1.8, marker="o", markersize=4)
        best = (max if metric.higher_is_better else min)(points, key=lambda point: point[1])
        right.plot(*best, marker="o", markersize=9, markerfacecolor="none", markeredgecolor=VERMILION)
        kept = f"kept: {best[1]:.1f} %" if metric.unit == "share" else f"kept: {figures(best[1])}"
        side = "right" if best[0] > steps[-1] / 2 else "left"
        below = metric.higher_is_better
        right.annotate(
            kept,
            best,
            xytext=(0, -13 if below else 13),
            textcoords="offset points",
            color=VERMILION,
            ha=side,
            va="top" if below else "bottom",
        )
        right.margins(y=0.2)
        low, high = right.get_ylim()
        # A change of one percent shall not look like success.
        if metric.unit == "share":
            high = min(high, 101.0)
            right.set_ylim(max(0.0, min(low, high - 10)), high)
        elif metric.unit == "target":
            right.set_ylim(_ends(0, 1.2 * max(error for _, error in points)))
    if metric.unit == "share":
        right.yaxis.set_major_formatter(_percent)
    for axes in (left, right):
        axes.set_xlabel("meta-step")
        axes.set_xlim(0, 1.02 * steps[-1])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _grid(axes, "y")
    return figure


def _ends(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis, which has a length even if all values are 0."""
    return (low, high) if high > low else (low, low + 1)


@_styled
def ladder(comparisons: Sequence[Comparison]) -> Figure:
    """Bars of all learners with 95 % intervals, a panel for each setting; the learner in question is on top.

    Those of baselines that learn from each task alone are pale.
    """
    names = list(dict.fromkeys(row.evaluation.name for comparison in comparisons for row in comparison.rows))
    columns = min(2, len(comparisons))
    lines = math.ceil(len(comparisons) / columns)
    figure = Figure(figsize=(WIDTH, LEGEND + lines * (0.9 + 0.27 * len(names))), layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten()
    for panel in panels[len(comparisons) :]:
        panel.set_visible(False)
    for panel, comparison in zip(panels, comparisons, strict=False):
        _ladder_panel(panel, comparison, names)
    for panel in panels[::columns]:
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.45, -0.55)
        panel.get_yticklabels()[0].set(color=BLUE, fontweight="bold")
    rungs = [row.evaluation for comparison in comparisons for row in comparison.rows if row.baseline]
    kinds = sorted({(not rung.uses_other_tasks, _rung_color(rung)) for rung in rungs})
    keys = [Patch(color=color, label=f"from {ALONE if alone else OTHER_TASKS}") for alone, color in kinds]
    figure.legend(handles=keys, loc="outside lower center", ncols=max(1, len(keys)))
    return figure


def _rung_color(rung: Evaluation) -> str:
    return GRAY if rung.uses_other_tasks else PALE


def _ladder_panel(panel: Any, comparison: Comparison, names: list[str]) -> None:
    first = comparison.rows[0].evaluation
    metric, share_of_all = first.metric, first.metric.unit == "share"
    scores = {row.evaluation.name: shown(row.evaluation.score, first.metric) for row in comparison.rows}
    finite = [score.mean for score in scores.values() if math.isfinite(score.mean)]
    reach = 100 if share_of_all else max(map(abs, finite), default=1.0) or 1.0
    low, high = 1.3 * min([0.0, *finite]), 130 if share_of_all else 1.3 * max([0.0, *finite])
    for row in comparison.rows:
        score = scores[row.evaluation.name]
        at = names.index(row.evaluation.name)
        end = score.mean if math.isfinite(score.mean) else 0.0  # of what diverged there is a label and no bar
        panel.barh(at, end, height=0.66, color=_rung_color(row.evaluation) if row.baseline else BLUE)
        if math.isfinite(score.half_width):
            panel.plot([score.low, score.high], [at, at], color=INK, linewidth=1.3)
            end = min(max(end, score.high), high)  # the label of an interval that leaves the panel stays beside it
        weight = "normal" if row.baseline else "bold"
        panel.text(end + 0.015 * reach, at, _label(row, first), va="center", fontweight=weight)
    panel.set_xlim(_ends(low, high))
    title = setting_name(first.way, first.shot)
    if share_of_all:
        panel.set_xticks(range(0, 101, 20))
        panel.xaxis.set_major_formatter(_percent)
        if isinstance(first.way, int) and metric.chance:
            chance = 100 * metric.chance(first.way)
            panel.axvline(chance, color=VERMILION, linewidth=1, linestyle=(0, (2, 2)), zorder=0.5)
            title += f" (chance: {chance:.3g} %)"
        panel.spines["bottom"].set_bounds(0, 100)
    else:
        panel.set_xlabel(f"{metric.title}: {'longer' if metric.higher_is_better else 'shorter'} is better")
    panel.spines["left"].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.set_title(title)


def _label(row: Row, first: Evaluation) -> str:
    own = row.evaluation
    if own.metric.unit == "share":
        text = share(own.score).partition(" (")[0]  # ends at 0 or 100 % are seen
    else:
        text = "" if math.isnan(own.score.mean) else figures(_shown(own.score.mean, own.metric))
    text += lost(own.score)
    if len(own.scores) == len(first.scores):
        return text
    return f"{text}  ({count_of(len(own.scores), 'draw' if first.score.tasks < len(first.scores) else 'task')})"


@_styled
def race(result: RaceResult) -> Figure:
    """Validation scores of a race's candidates by the seconds that each had trained: the winner is blue, a cross is
    where one was dropped, and a dotted line is a candidate that takes no meta-steps itself."""
    metric, rounds = result.metric, result.rounds
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    axes = figure.subplots()
    ends: dict[str, tuple[float, float]] = {}
    for name, points in rounds.items():
        at, scores = [seconds for seconds, _ in points], [_shown(score, metric) for _, score in points]
        won = name == result.winner
        color, order = (BLUE, 10) if won else (GRAY, 2)
        axes.plot(at, scores, color=color, marker="o", markersize=4, linewidth=2.4 if won else 1.2, zorder=order)
        if name in result.dropped:
            axes.plot(at[-1:], scores[-1:], color=VERMILION, marker="x", markersize=7, zorder=11)
        ends[name] = at[-1], scores[-1]
    axes.set_xlim(0, 1.04 * max(at for at, _ in ends.values()) or 1.0)
    for name, score in result.untrained.items():
        won = name == result.winner
        ends[name] = axes.get_xlim()[1], _shown(score, metric)
        axes.axhline(ends[name][1], color=BLUE if won else GRAY, linewidth=1.8 if won else 1, linestyle=(0, (1, 2)))
    _near(axes, sorted((score for _, score in ends.values()), reverse=metric.higher_is_better))
    _named(axes, ends, result.winner, metric)
    axes.set_xlabel("seconds of its own training")
    axes.set_title(f"{heading(metric)} on the race's validation tasks")
    if metric.unit == "share":
        axes.yaxis.set_major_formatter(_percent)
    _grid(axes, "y")
    return figure


def _near(axes: Any, scores: Sequence[float]) -> None:
    """Limit the axis to scores from the best to 2.5 times as far behind as the median; worse ones are at the edge."""
    best, middle = scores[0], scores[len(scores) // 2]
    reach = 2.5 * abs(best - middle) or 0.1 * abs(best) or 1.0
    low, high = sorted((best, best + math.copysign(reach, scores[-1] - best)))
    axes.set_ylim(low - 0.08 * reach, high + 0.08 * reach)


def _named(axes: Any, ends: Mapping[str, tuple[float, float]], winner: str, metric: Metric) -> None:
    """Write each name with its score beside the axes, at the height of the score if possible, and draw a thin line from
    there to where the candidate ended."""
    low, high = axes.get_ylim()
    names = sorted(ends, key=lambda name: ends[name][1], reverse=True)
    heights = _apart([min(high, max(low, ends[name][1])) for name in names], 0.055 * (high - low))
    for name, height in zip(names, heights, strict=True):
        at, score = ends[name]
        text = f"{name} {score:.1f} %" if metric.unit == "share" else f"{name} {figures(score)}"
        own = {"color": BLUE, "fontweight": "bold"} if name == winner else {}
        thin = {"arrowstyle": "-", "color": GRAY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        axes.annotate(
            text,
            (at, min(high, max(low, score))),
            (1.03, height),
            textcoords=("axes fraction", "data"),
            arrowprops=thin,
            va="center",
            fontsize=8,
            annotation_clip=False,
            **own,
        )


def _apart(heights: Sequence[float], room: float) -> list[float]:
    """Falling heights, moved as little as possible so that each is at least this far below the one before."""
    groups: list[list[float]] = []  # of heights without the room between them, which may not rise
    for number, height in enumerate(heights):
        groups.append([height + number * room])
        while len(groups) > 1 and _mean(groups[-1]) > _mean(groups[-2]):
            last = groups.pop()
            groups[-1] += last
    level = [_mean(group) for group in groups for _ in group]
    return [height - number * room for number, height in enumerate(level)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@_styled
def shots_curve(
    shots: dict[str, list[tuple[int, Interval]]],
    metric: Metric,
    *,
    per_class: bool = True,
    equivalence: Equivalence | None = None,
) -> Figure:
    """The score against the number of examples, one line with its interval's band per learner, the first in front.

    per_class: whether shots are counted for each class, or for the task.
    equivalence: with it, the curve of the conventional way is drawn too, and an arrow from the learner to the number of
        examples at which that way has the same score.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    colors = [BLUE, ORANGE, GREEN, PURPLE, VERMILION, "#56B4E9"]
    for order, (name, points) in enumerate(shots.items()):
        color = colors[order] if order < len(colors) else GRAY
        at = [shot for shot, _ in points]
        scores = [shown(score, metric) for _, score in points]
        axes.plot(
            at,
            [score.mean for score in scores],
            color=color,
            marker="o",
            markersize=4,
            linewidth=2.4 if order == 0 else 1.4,
            zorder=10 - order,
            label=name,
        )
        lows, highs = [s.low for s in scores], [s.high for s in scores]
        if all(map(math.isfinite, lows + highs)):
            axes.fill_between(at, lows, highs, color=color, alpha=0.15, linewidth=0)
    ticks = sorted({shot for points in shots.values() for shot, _ in points})
    if equivalence is not None:
        _conventional(axes, equivalence, metric)
        ticks = sorted({*ticks, *(shot for shot, _ in equivalence.curve)})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("examples of each class" if per_class else "examples of the new task")
    axes.set_ylabel(metric.title)
    axes.set_title(f"{heading(metric)} on new tasks, by the number of examples they come with")
    if metric.unit == "share":
        axes.yaxis.set_major_formatter(_percent)
    _grid(axes, "y")
    figure.legend(loc="outside right center")
    return figure


def _conventional(axes: Any, found: Equivalence, metric: Metric) -> None:
    """The curve of the conventional way, and the factor as an arrow at the learner's score."""
    scores = [shown(score, metric).mean for _, score in found.curve]
    at = [shot for shot, _ in found.curve]
    style: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 1.4, "marker": "s", "markersize": 3}
    axes.plot(at, scores, color=INK, label="learning from each task alone", **style)
    if found.factor == 0:
        return
    end = found.shot * found.factor if math.isfinite(found.factor) else found.most
    height = _shown(found.score, metric)
    if end > found.shot:
        arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (end, height), (found.shot, height), arrowprops=arrow, zorder=20)
    factor = f"x {found.factor:.2g}" if math.isfinite(found.factor) else f"x {found.most / found.shot:.2g} or more"
    middle = math.sqrt(found.shot * end)
    axes.annotate(factor, (middle, height), (0, 4), textcoords="offset points", ha="center", va="bottom", fontsize=8)


@_styled
def reliability(confidences: Tensor, correct: Tensor) -> Figure:
    """Accuracy by confidence, and the frequency of each confidence; both arguments are `(n,)`."""
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    bins = calibration(confidences, correct)
    left.plot([0, 100], [0, 100], color=GRAY, linewidth=1, linestyle=(0, (4, 3)))
    left.plot(
        [100 * c for c, _, _ in bins],
        [100 * a for _, a, _ in bins],
        color=BLUE,
        linewidth=1.8,
        marker="o",
        markersize=5,
    )
    left.text(6, 92, "underconfident", color="#888888", va="top", fontsize=8)
    left.text(97, 5, "overconfident", color="#888888", ha="right", fontsize=8)
    left.set(xlim=(0, 102), ylim=(0, 102), xlabel="confidence", ylabel="accuracy")
    left.set_title(f"Reliability (calibration error {100 * calibration_error(confidences, correct):.1f} points)")
    counts = torch.histc(confidences.float(), BINS, 0, 1) / max(1, len(confidences))
    right.bar([100 * (i + 0.5) / BINS for i in range(BINS)], (100 * counts).tolist(), width=90 / BINS, color=GRAY)
    right.set(xlim=(0, 100), xlabel="confidence", ylabel="share of predictions")
    right.set_title(f"Confidence ({len(confidences):,} predictions)")
    for axes in (left, right):
        axes.xaxis.set_major_formatter(_percent)
        axes.yaxis.set_major_formatter(_percent)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    _grid(left, "both")
    _grid(right, "y")
    return figure


@_styled
def coverage(levels: dict[float, Interval]) -> Figure:
    """The coverage of true values by the central interval of each level, with 95 % intervals over tasks."""
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color=GRAY, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(6, 92, "underconfident", color="#888888", va="top", fontsize=8)
    axes.text(97, 5, "overconfident", color="#888888", ha="right", fontsize=8)
    axes.plot(
        [100 * level for level in levels],
        [100 * held.mean for held in levels.values()],
        color=BLUE,
        linewidth=1.8,
        marker="o",
        markersize=5,
    )
    for level, held in levels.items():
        if math.isfinite(held.half_width):
            ends = [100 * max(0.0, held.low), 100 * min(1.0, held.high)]
            axes.plot([100 * level] * 2, ends, color=INK, linewidth=1.3)
    axes.set(xlim=(0, 102), ylim=(0, 102), xlabel="level of the interval", ylabel="coverage of true values")
    axes.set_title("Coverage of the prediction intervals")
    axes.xaxis.set_major_formatter(_percent)
    axes.yaxis.set_major_formatter(_percent)
    _grid(axes, "both")
    return figure


def calibration(confidences: Tensor, correct: Tensor, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of predictions of each non-empty bin of equal width."""
    place = (confidences * bins).long().clamp(0, bins - 1)
    rows = []
    for index in range(bins):
        inside = place == index
        if inside.any():
            rows.append(
                (float(confidences[inside].double().mean()), float(correct[inside].double().mean()), int(inside.sum()))
            )
    return rows


def calibration_error(confidences: Tensor, correct: Tensor) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over bins, weighted by their numbers.

    *Obtaining Well Calibrated Probabilities Using Bayesian Binning* (Naeini et al., 2015),
    https://doi.org/10.1609/aaai.v29i1.9602.
    """
    return sum(abs(c - a) * n for c, a, n in calibration(confidences, correct)) / max(1, len(confidences))


@_styled
def task_picture(
    task: Task,
    predicted: Tensor,
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
    rows: int = 10,
    shots: int = 5,
    queries: int = 10,
) -> Figure:
    """One task of images to look at: a row for each class, the support on the left, the predictions on the right.

    task: support and query inputs `(n, channels, height, width)`.
    predicted: `(n,)` class numbers.
    names: of the classes.
    rows, shots, queries: how many are drawn at most.

    Correct predictions are framed green, wrong ones red with the predicted class.
    """
    way = int(max(task.support.targets.max(), task.query.targets.max())) + 1
    titles = [f"{number + 1}  {names[number]}" if names is not None else str(number + 1) for number in range(way)]
    drawn = min(way, rows)
    support = [task.support.inputs[task.support.targets == c][:shots] for c in range(drawn)]
    query = [torch.nonzero(task.query.targets == c).flatten()[:queries] for c in range(drawn)]
    columns = max(map(len, support)), max(map(len, query))

    # Sizes in points; a length of 1 is the side of an image, and `pitch` is from one image to the next.
    points, pitch, gap = 72 * WIDTH, 1.14, 0.75
    text = 14 + 5.2 * max(map(len, titles[:drawn]))
    side = min(LARGEST, (points - text - 8) / (sum(columns) * pitch + gap))
    left, head = text / side, 48 / side
    start = left + columns[0] * pitch + gap
    across = start + columns[1] * pitch - (pitch - 1) + 6 / side
    down = drawn * pitch - (pitch - 1)
    size = (across * side / 72, (down + head + 6 / side) * side / 72)
    figure = Figure(figsize=size)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, across), ylim=(down + 6 / side, -head))
    axes.set_axis_off()

    right = int((predicted == task.query.targets).sum())
    shown_queries = sum(map(len, query))
    part = "" if shown_queries == len(predicted) else f" ({shown_queries} shown)"
    axes.text(
        5 / side,
        12 / side - head,
        title or f"A new task: {right} of {len(predicted)} predictions are correct{part}",
        fontsize=11.5,
        fontweight="bold",
        va="center",
    )
    caption: dict[str, Any] = {"fontsize": 8.5, "va": "baseline"}
    axes.text(left, -8 / side, "learned from", color=BLUE, **caption)
    axes.text(start, -8 / side, "predicted correctly", color=GREEN, **caption)
    if right < len(predicted):
        axes.text(start + 75 / side, -8 / side, "wrong, with the predicted class", color=VERMILION, **caption)
    look = _look(task.support.inputs)
    badge = {"facecolor": VERMILION, "edgecolor": VERMILION, "linewidth": 0.5, "pad": 1.4}
    for row in range(drawn):
        top = row * pitch
        axes.text(5 / side, top + 0.5, titles[row], va="center", fontsize=8.5)
        for column, image in enumerate(support[row]):
            _thumbnail(axes, image, look, (left + column * pitch, top), BLUE)
        for column, index in enumerate(query[row].tolist()):
            label = int(predicted[index])
            x = start + column * pitch
            _thumbnail(axes, task.query.inputs[index], look, (x, top), GREEN if label == row else VERMILION)
            if label != row:
                style: dict[str, Any] = {"fontsize": 7.5, "color": "white", "bbox": badge, "zorder": 4}
                axes.text(x + 1 - 2 / side, top + 1 - 2 / side, str(label + 1), ha="right", va="bottom", **style)
    middle, half = start - (gap + pitch - 1) / 2, 0.27
    arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (middle + half, down / 2), (middle - half, down / 2), arrowprops=arrow)
    return figure


def _look(images: Tensor) -> dict[str, Any]:
    """How images are shown: ink on an empty ground as black on white, others as they are."""
    low, high = float(images.min()), float(images.max())
    if images.shape[1] == 1:
        empty = float(images.median()) <= low + 0.02 * (high - low)
        return {"cmap": "gray_r" if empty else "gray", "vmin": low, "vmax": high}
    return {"low": low, "high": high}


def _thumbnail(axes: Any, image: Tensor, look: dict[str, Any], at: tuple[float, float], color: str) -> None:
    x, y = at
    style = dict(look)
    if "low" in style:
        low, high = style.pop("low"), style.pop("high")
        picture = ((image[:3] - low) / max(high - low, 1e-9)).clamp(0, 1).permute(1, 2, 0)
    else:
        picture = image[0]
    axes.imshow(
        picture.detach().cpu().numpy(), extent=(x, x + 1, y + 1, y), aspect="auto", interpolation="antialiased", **style
    )
    axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=color, linewidth=1.6, zorder=3))


def shown(score: Interval, metric: Metric) -> Interval:
    """A score for display: a percentage up to 100, or the square root of a mean of squares."""
    mean, low, high = (_shown(value, metric) for value in (score.mean, score.low, score.high))
    if metric.unit == "share" and math.isfinite(score.half_width):
        low, high = max(0.0, low), min(100.0, high)
    return Interval(mean, low, high, score.tasks)


def _shown(value: float, metric: Metric) -> float:
    return 100 * value if metric.unit == "share" else root(value) if metric.root else value


def _percent(value: float, _: Any) -> str:
    return f"{value:g} %"


def _smooth(values: list[float], width: int) -> list[float]:
    """Means over windows of up to `2 * width + 1` values around each."""
    total = [0.0]
    for value in values:
        total.append(total[-1] + value)
    edges = [(max(0, i - width), min(len(values), i + width + 1)) for i in range(len(values))]
    return [(total[end] - total[start]) / (end - start) for start, end in edges]


def _grid(axes: Any, which: str) -> None:
    axes.grid(axis=which, color=PALE, linewidth=0.7)
    axes.set_axisbelow(True)
