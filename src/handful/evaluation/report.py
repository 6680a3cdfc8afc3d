"""The report: a verdict in plain words, tables and pictures, and the numbers to check it all again.

`report.json`, schema 1:

    {"schema": 1, "verdict": str,
     "settings": [{"way", "shot", "query_shot", "transductive",
                   "rows": [{"learner", "baseline": bool,
                             "score": {"metric", "mean", "low", "high", "tasks"},
                             "cost": {"adapt_seconds", "state_bytes"},
                             "paired": {"against", "mean", "low", "high", "tasks"},
                             "log_likelihood": {"mean", "low", "high", "tasks"},
                             "coverage": [{"level", "mean", "low", "high", "tasks"}],
                             "oracle": {"error_gap": {"mean", "low", "high", "tasks"}, "likelihood_gap": the same}}]}],
     "selection": str, "seed": int, "plan": str,
     "performance": {"seconds_per_step", "tasks_per_second", "peak_bytes", "share_of_limit"} or {}}

Accuracies are fractions from 0 to 1; `mse` is the mean squared error in squared units of the target. The first row is
the learner in question, the others are the ladder. `paired` is the mean difference on the tasks of both: above 0 this
row is better than the learner in `against` (for errors too). `low` and `high` are the ends of the 95 % interval over
`tasks` tasks. `transductive` says whether the learner in question uses the other queries of a task to answer one.
`log_likelihood` (nats for each value, densities in units of the target) and `coverage` (the share of true values inside
the central interval of each level) are of normal predictions only. `oracle` is there where the best prediction that
there is is known: by how much the error is above its error, and the log-likelihood below its log-likelihood.
Sizes that vary are `[low, high]`; what is not a finite number, such as the interval of a single task, is null.

`scores.json` holds, for the same settings and rows, the score of each task and its unit, from which the intervals
follow; likewise, by the names of `Evaluation`, what the entries that not all rows have follow from.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from handful.errors import ArtifactError
from handful.evaluation.comparison import Comparison, Row
from handful.evaluation.equivalence import Equivalence
from handful.evaluation.findings import Finding
from handful.evaluation.intervals import Interval, interval, tasks_needed
from handful.evaluation.protocol import Evaluation
from handful.storage import finite, read_json, write_json, write_text

SCHEMA = 1
REPORT, SCORES, PAGE = "report.json", "scores.json", "report.md"
PER_TASK = ("log_likelihoods", "coverages", "oracle_scores", "oracle_log_likelihoods")
"""What an evaluation of regression may hold of each task beside its score."""
TOLD_LEVELS = (0.5, 0.8, 0.9, 0.95)
"""The levels of central intervals of which the page tells the coverage; the picture shows all."""
POOLED = "pooled"
"""The rung that answers without adapting: one model for all tasks."""

Outcome: TypeAlias = Literal["beats", "tie", "loses"]

RECHECK = """\
import json, pathlib, torch
from handful.evaluation.intervals import interval

for setting in json.loads(pathlib.Path("scores.json").read_text())["settings"]:
    for row in setting["rows"]:
        scores = torch.tensor(row["scores"], dtype=torch.float64)
        print(setting["way"], setting["shot"], row["learner"], interval(scores, torch.tensor(row["units"])))
"""


@dataclass(frozen=True)
class Report:
    """What was found out about a learner on tasks.

    title: what the page is called. tasks: what was evaluated, one line in plain words. comparisons: the learner and the
    ladder on each setting. selection: how the weights were chosen. seed, plan: what repeats the run. normalization: the
    policy of the learner's batch norms. history: rows {"step", "loss", and at validations "val"} of the training.
    shots: the score against the number of examples, for each learner, the one in question first. seconds: what took
    how long, as {"meta-training": 75.2}. performance: of the meta-training, see `handful.training.performance`. notes:
    what the data is, and is not. findings: of the diagnosis. pictures: more figures to show, by their captions; they
    come first. equivalence: how many times more examples the conventional way needs, on the first setting. half_width:
    of the interval that is wanted; then it tells how many tasks that takes.
    """

    title: str
    tasks: str
    comparisons: list[Comparison]
    selection: str
    seed: int
    plan: str
    normalization: str = ""
    history: Sequence[dict[str, Any]] = ()
    shots: dict[str, list[tuple[int, Interval]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    performance: dict[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    pictures: dict[str, Any] = field(default_factory=dict)
    equivalence: Equivalence | None = None
    half_width: float | None = None

    @property
    def verdict(self) -> str:
        """How good it is and whether meta-learning was worth it, one sentence for each setting, bad news first."""
        standings = [_Standing(comparison) for comparison in self.comparisons]
        missed = [standing.outcome in ("tie", "loses") for standing in standings]
        order = sorted(range(len(standings)), key=lambda index: not missed[index])
        text = " ".join(standings[index].sentence() for index in order)
        if not any(missed):
            return text
        return f"Meta-learning is not worth it {'here' if all(missed) else 'everywhere'}: {text}"

    def to_json(self) -> dict[str, Any]:
        """The report by schema 1, as this module's docstring gives it."""
        settings = []
        for comparison in self.comparisons:
            first = comparison.learner.evaluation
            settings.append(
                _sizes(first)
                | {"transductive": first.transductive, "rows": [_row_to_json(row) for row in comparison.rows]}
            )
        report = {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "settings": settings,
            "selection": self.selection,
            "seed": self.seed,
            "plan": self.plan,
            "performance": self.performance,
        }
        if self.equivalence is not None:
            report["equivalence"] = equivalence_to_json(self.equivalence)
        if self.half_width is not None:
            report["tasks_needed"] = [needed(c.learner.evaluation, self.half_width) for c in self.comparisons]
        return finite(report)  # type: ignore[no-any-return]

    def scores_to_json(self) -> dict[str, Any]:
        """The score and unit of each task of each row, in the order of the report's rows."""
        settings = [
            _sizes(comparison.learner.evaluation)
            | ({"classes": list(classes)} if any(classes := comparison.learner.evaluation.classes) else {})
            | {
                "rows": [
                    {
                        "learner": row.evaluation.learner,
                        "metric": row.evaluation.metric,
                        "transductive": row.evaluation.transductive,
                        "scores": row.evaluation.scores.tolist(),
                        "units": row.evaluation.units.tolist(),
                    }
                    | {name: values.tolist() for name in PER_TASK if len(values := getattr(row.evaluation, name))}
                    for row in comparison.rows
                ]
            }
            for comparison in self.comparisons
        ]
        return finite({"schema": SCHEMA, "settings": settings})  # type: ignore[no-any-return]

    def write(self, folder: Path) -> Path:
        """Write `report.md`, `report.json`, `scores.json` and the pictures into a folder; returns the page's path.

        The page comes last, so that one that is there speaks of files that are there.
        """
        pictures = self._draw(folder)
        write_json(folder / SCORES, self.scores_to_json())
        write_json(folder / REPORT, self.to_json())
        write_text(folder / PAGE, self.to_markdown(pictures))
        return folder / PAGE

    def _draw(self, folder: Path) -> dict[str, str]:
        """Write the pictures; returns their file names by caption."""
        from handful.evaluation import plots

        own = self.comparisons[0].learner.evaluation
        figures: dict[str, tuple[str, Any]] = {}
        for number, (caption, figure) in enumerate(self.pictures.items(), start=1):
            figures[caption] = (f"picture-{number}.png", figure)
        score = "Accuracy" if own.metric == "accuracy" else "Typical error"
        caption = f"{score} of {own.learner} (blue) and of the ladder, with 95 % intervals"
        figures[caption] = ("ladder.png", plots.ladder(self.comparisons))
        if self.shots:
            figures[f"{score} by the number of examples, with 95 % intervals"] = (
                "shots.png",
                plots.shots_curve(self.shots, own.metric, per_class=own.way is not None, equivalence=self.equivalence),
            )
        if len(own.confidences):
            error = plots.calibration_error(own.confidences, own.correct)
            caption = f"When {own.learner} says how sure it is, it is off by {100 * error:.1f} points on average"
            figures[f"{caption} ({_setting(own)})"] = (
                "reliability.png",
                plots.reliability(own.confidences, own.correct),
            )
        if own.coverage:
            caption = f"How many true values the intervals of {own.learner} hold, with 95 % intervals over tasks"
            figures[f"{caption} ({_setting(own)})"] = ("coverage.png", plots.coverage(own.coverage))
        if len(self.history) > 1:
            figures["Meta-training"] = ("learning-curve.png", plots.learning_curve(self.history, own.metric))
        for name, figure in figures.values():
            plots.save(figure, folder / name)
        return {caption: name for caption, (name, _) in figures.items()}

    def to_markdown(self, pictures: Mapping[str, str]) -> str:
        """The page. pictures: file names by caption."""
        own = self.comparisons[0].learner.evaluation
        parts = [f"# {self.title}", f"**{self.verdict}**", f"Tasks: {self.tasks}", *self.notes]
        shown = [f"![{caption}]({name})\n\n*{caption}.*" for caption, name in pictures.items()]
        more = len(self.pictures)
        parts += shown[:more]
        tables = [part for c in self.comparisons for part in (_table(c), *self._ranges(c.learner.evaluation))]
        parts += ["## Scores", *tables, *self._equivalence(), _legend(own), *shown[more:]]
        parts += ["## How it was chosen and run", "\n".join(f"- {line}" for line in self._circumstances(own))]
        if self.findings:
            parts += ["## Diagnosis", "\n".join(f"- **{f.status}**, {f.check}: {f.message}" for f in self.findings)]
        again = f"`{SCORES}` holds the score of every task; this computes the intervals above again:"
        parts += ["## Check it again", again, f"```python\n{RECHECK}```"]
        return "\n\n".join(parts) + "\n"

    def _ranges(self, own: Evaluation) -> Iterable[str]:
        """What the interval over tasks does not tell: other classes, and how many tasks a narrower one takes."""
        found = own.over_classes
        if found is not None and math.isfinite(found.half_width):
            text = f"For other classes of the same kind: {own.learner} {_percent(found)} (95 % interval over "
            yield f"{text}{found.classes} classes and {found.tasks:,} tasks)."
        if self.half_width is not None:
            yield needed_line(own, self.half_width)

    def _equivalence(self) -> Iterable[str]:
        if self.equivalence is not None:
            yield equivalence_line(self.equivalence, self.comparisons[0].learner.evaluation)

    def _circumstances(self, own: Evaluation) -> Iterable[str]:
        yield f"Weights: {self.selection}."
        if any(row.chosen for comparison in self.comparisons for row in comparison.rows):
            yield "Options of the ladder: chosen on validation tasks, for each number of shots."
        policy = f"Batch normalization: {self.normalization}. " if self.normalization else ""
        yield policy + (
            "**Transductive: an answer may depend on the other queries of its task.**"
            if own.transductive
            else "Not transductive: each query is answered as if it were alone."
        )
        yield f"Seed {self.seed}, plan: {self.plan}."
        if self.seconds:
            yield "Time: " + ", ".join(f"{what} {_time(seconds)}" for what, seconds in self.seconds.items()) + "."
        if self.performance:
            yield performance_line(self.performance).strip()


@dataclass(frozen=True)
class _Standing:
    """Where a learner stands against its best rung."""

    comparison: Comparison

    @property
    def outcome(self) -> Outcome:
        paired = self.comparison.best_rung.paired
        return "loses" if paired.low > 0 else "beats" if paired.high < 0 else "tie"

    def sentence(self) -> str:
        own, rung = self.comparison.learner.evaluation, self.comparison.best_rung
        head, other, gap = f"{_situation(own)}, {own.learner} {_quality(own)}", rung.evaluation, _gap(rung, own)
        if self.outcome == "beats":
            text = f"{head}, and beats the best simple method, {other.learner}, {gap}{self._undecided()}."
        elif self.outcome == "loses":
            text = f"{head}, and LOSES to {other.learner} {gap}: use {other.learner} instead."
        else:
            text = f"{head}, and cannot be told apart from the simpler {other.learner} ({gap}{self._needed()})."
        return text + self._adapting()

    def _undecided(self) -> str:
        """Which costly rungs ran on too few tasks to tell."""
        rows = self.comparison.undecided
        few = [f"{row.evaluation.learner} on {_count(row.paired.tasks, 'task')}" for row in rows]
        return f" (not told apart: {', '.join(few)})" if few else ""

    def _needed(self) -> str:
        paired = self.comparison.best_rung.paired
        if paired.mean == 0 or not math.isfinite(paired.half_width):
            return ""
        count = tasks_needed(paired, abs(paired.mean))
        return f"; to see so small a difference would take about {_round(count)} tasks"

    def _adapting(self) -> str:
        """Whether adapting to each task was better than one model for all, where there is such a rung."""
        pooled = next((row for row in self.comparison.rows[1:] if row.evaluation.learner == POOLED), None)
        if pooled is None:
            return ""
        # Where the pooled model decides, its difference has just been told.
        gap = "" if pooled is self.comparison.best_rung else _gap(pooled, self.comparison.learner.evaluation)
        if pooled.paired.high < 0:
            return f" Adapting to each task beats one pooled model for all tasks{gap and f' {gap}'}."
        if pooled.paired.low > 0:
            return f" Adapting to each task LOSES to one pooled model for all tasks{gap and f' {gap}'}."
        told = gap and f" ({gap})"
        return f" Whether adapting to each task is better than one pooled model for all tasks cannot be told{told}."


def load(path: Path) -> dict[str, Any]:
    """Read a report of schema 1 from its folder or file; `ArtifactError` if it is missing, broken or something else."""
    return _load(path, REPORT, {"schema", "verdict", "settings", "selection", "seed", "plan"})


def load_scores(path: Path) -> dict[str, Any]:
    """Read the per-task scores beside a report, from the folder or file."""
    return _load(path, SCORES, {"schema", "settings"})


def _load(path: Path, name: str, keys: set[str]) -> dict[str, Any]:
    if path.is_dir():
        if not (path / name).exists():
            raise ArtifactError(f"{path} holds no {name}. Run `handful evaluate {path}` to make one.")
        path = path / name
    report = read_json(path)
    if not isinstance(report, dict) or "schema" not in report:
        raise ArtifactError(f"{path} is not a {name} of handful: it has no 'schema'.")
    if report["schema"] != SCHEMA:
        raise ArtifactError(
            f"{path} has schema {report['schema']!r}, but this version of handful reads {SCHEMA}. "
            "Evaluate again, or use the version that wrote it."
        )
    missing = sorted(keys - report.keys())
    if missing:
        raise ArtifactError(f"{path} is incomplete: it lacks {', '.join(missing)}. Evaluate again.")
    return report


def _row_to_json(row: Row) -> dict[str, Any]:
    evaluation = row.evaluation
    more: dict[str, Any] = {}
    if evaluation.log_likelihood is not None:
        more["log_likelihood"] = vars(evaluation.log_likelihood)
        more["coverage"] = [{"level": level, **vars(share)} for level, share in evaluation.coverage.items()]
    gaps = {"error_gap": evaluation.error_gap, "likelihood_gap": evaluation.likelihood_gap}
    if evaluation.error_gap is not None:
        more["oracle"] = {name: vars(gap) for name, gap in gaps.items() if gap is not None}
    over_classes = evaluation.over_classes
    wider = {} if over_classes is None else {"over_classes": vars(over_classes)}
    return {
        "learner": evaluation.learner,
        "baseline": row.baseline,
        "score": {"metric": evaluation.metric, **vars(evaluation.score), **wider},
        "cost": {"adapt_seconds": evaluation.adapt_seconds, "state_bytes": evaluation.state_bytes},
        "paired": {"against": row.against, **vars(row.paired)},
        **more,
    }


def _sizes(evaluation: Evaluation) -> dict[str, Any]:
    sizes = {name: getattr(evaluation, name) for name in ("way", "shot", "query_shot")}
    return {name: list(size) if isinstance(size, tuple) else size for name, size in sizes.items()}


# Words


def _situation(own: Evaluation) -> str:
    """ "With 1 example of each of 5 new classes", as a sentence begins."""
    if own.way is None:
        return f"With {_examples(own.shot)} of a new task"
    return f"With {_examples(own.shot)} of each of {_size(own.way)} new classes"


def _quality(own: Evaluation) -> str:
    score = own.score
    tasks = (
        f"95 % interval, {_count(score.tasks, 'task')}" if math.isfinite(score.half_width) else "1 task: no interval"
    )
    if own.metric == "accuracy":
        return f"answers {_percent(score)} of the questions right ({tasks})"
    low, high = _root(score.low), _root(score.high)
    between = f", {_figures(low)} to {_figures(high)}" if math.isfinite(score.half_width) else ""
    return f"is off by {_figures(_root(score.mean))} in a typical prediction{between} (in the target's units; {tasks})"


def _gap(rung: Row, own: Evaluation) -> str:
    """By how much the learner is better or worse than a rung, on the tasks of both."""
    other, paired = rung.evaluation, rung.paired
    common = f"{_count(paired.tasks, 'task')} in common"
    if own.metric == "accuracy":
        sign = "" if paired.low > 0 or paired.high < 0 else "difference "
        size = f"{100 * abs(paired.mean):.1f}" if not sign else f"{_signed(-100 * paired.mean)}"
        return f"{'' if sign else 'by '}{sign}{size}{_plus_minus(100 * paired.half_width, '.1f')} points on {common}"
    count = min(len(own.scores), len(other.scores))
    typical = [_figures(_root(interval(e.scores[:count], e.units[:count]).mean)) for e in (own, other)]
    sure = paired.low > 0 or paired.high < 0
    error = f"{_figures(abs(paired.mean))}" if sure else f"{-paired.mean:+.3g}"
    words = f"{error}{_plus_minus(paired.half_width, '.2g')} of squared error on {common}"
    return f"{'by' if sure else 'difference'} {words}: off by {typical[0]} instead of {typical[1]}"


def _percent(score: Interval) -> str:
    return f"{100 * score.mean:.1f}{_plus_minus(100 * score.half_width, '.1f')} %"


def _signed(points: float) -> str:
    return f"{round(points, 1) + 0.0:+.1f}"  # no -0.0


def _plus_minus(half_width: float, form: str) -> str:
    return f" ± {half_width:{form}}" if math.isfinite(half_width) else ""


def _figures(value: float) -> str:
    """Three significant figures, without an exponent where a reader can do without."""
    return f"{value:,.0f}" if 1000 <= value < 1e7 else f"{value:.3g}"


def _root(value: float) -> float:
    return math.sqrt(max(0.0, value))


def _examples(shot: Any) -> str:
    return f"{_size(shot)} example{'' if shot == 1 else 's'}"


def _size(size: Any) -> str:
    return f"{size[0]} to {size[1]}" if isinstance(size, tuple) else str(size)


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _round(count: int) -> str:
    """Two figures: an extrapolation has no more."""
    digits = max(0, len(str(count)) - 2)
    return f"{round(count, -digits):,}"


def needed(own: Evaluation, half_width: float) -> dict[str, Any]:
    """How many tasks an interval of this half-width takes, and how many more than were scored; null for one task."""
    score = own.score
    count = tasks_needed(score, half_width) if math.isfinite(score.half_width) else None
    more = None if count is None else max(0, count - score.tasks)
    return {"half_width": half_width, "tasks": count, "more": more}


def needed_line(own: Evaluation, half_width: float) -> str:
    """The same in a sentence. half_width: as the metric, a fraction for accuracies."""
    found = needed(own, half_width)
    wanted = f"± {100 * half_width:g} points" if own.metric == "accuracy" else f"± {half_width:g} of squared error"
    if found["tasks"] is None:
        return f"How many tasks an interval of {wanted} takes cannot be told from a single one."
    score = own.score
    if not found["more"]:
        return f"For an interval of {wanted}, the {_count(score.tasks, 'task')} scored are enough."
    text = f"An interval of {wanted} takes about {_count(found['tasks'], 'task')}, {found['more']:,} more"
    repeated = len(own.scores) > score.tasks  # all tasks of the split were drawn several times
    return f"{text}, which the data does not have." if repeated else f"{text} (--number {found['tasks']})."


def equivalence_to_json(found: Equivalence) -> dict[str, Any]:
    """The factor with its ends; one that is infinite is null, and the words tell what was tried."""
    names = ("shot", "factor", "low", "high", "fewest", "most", "tasks", "score")
    curve = [{"shot": shot, **vars(score)} for shot, score in found.curve]
    return {name: getattr(found, name) for name in names} | {"words": str(found), "curve": curve}


def equivalence_line(found: Equivalence, own: Evaluation) -> str:
    """What the factor means, in a sentence."""
    per = " of each class" if own.way is not None else ""
    text = (
        f"**Data equivalence:** to score like {own.learner} with {_examples(found.shot)}{per}, the best way that knows "
        f"no other tasks needs {found} times as many examples (95 % interval over the first "
        f"{_count(found.tasks, 'task')}; tried with {found.fewest} to {found.most})."
    )
    return textwrap.fill(text, 120)


def performance_line(performance: dict[str, float]) -> str:
    """How fast the meta-training was, in a line; empty where that is unknown."""
    if not performance:
        return ""
    parts = [
        f"{_time(performance['seconds_per_step'])} per meta-step",
        f"{rate_text(performance['tasks_per_second'])} tasks a second",
    ]
    if performance["peak_bytes"]:
        parts.append(f"{performance['peak_bytes'] / 2**20:.0f} MiB at most")
    if "share_of_limit" in performance:
        share = 100 * performance["share_of_limit"]
        parts.append(f"{share:.2g} % of the operations that the machine reaches on large matrix products")
    return f"Speed: {', '.join(parts)}.\n"


def rate_text(rate: float) -> str:
    """Three digits, and no power of ten."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.2g} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _bytes(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:.3g} GB"


# Tables


def _setting(own: Evaluation) -> str:
    way = f"{_size(own.way)}-way " if own.way is not None else ""
    return f"{way}{_size(own.shot)}-shot"


def table_lines(comparison: Comparison) -> tuple[str, list[list[str]]]:
    """The heading of one setting and its table: the header's cells, then those of each row."""
    own = comparison.learner.evaluation
    score = "accuracy" if own.metric == "accuracy" else "mean squared error"
    lines = [["learner", score, "tasks", f"better than {own.learner} by", "a new task takes", "state", "chosen"]]
    for row in comparison.rows:
        evaluation = row.evaluation
        lines.append(
            [
                evaluation.learner + (" (transductive)" if evaluation.transductive else ""),
                _percent(evaluation.score) if own.metric == "accuracy" else _error(evaluation.score),
                str(evaluation.score.tasks),
                _paired(row, own.metric) if row.baseline else "",
                _time(evaluation.adapt_seconds),
                _bytes(evaluation.state_bytes),
                ", ".join(f"{name} {value}" for name, value in row.chosen.items()),
            ]
        )
    chance = f" (chance is {100 / own.way:g} %)" if own.metric == "accuracy" and isinstance(own.way, int) else ""
    queries = "all remaining" if own.query_shot is None else _size(own.query_shot)
    per = " per class" if own.way is not None else ""
    return f"{_setting(own)}{chance}, {queries} questions{per}", lines


def _table(comparison: Comparison) -> str:
    """A heading and the rows of one setting, padded so that a terminal shows a table too."""
    heading, (header, first, *rest) = table_lines(comparison)
    lines = [header, [f"**{first[0]}**", *first[1:]], *rest]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width if column in (0, 6) else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    padded = [
        [cell.ljust(width) if column in (0, 6) else cell.rjust(width) for column, (cell, width) in enumerate(cells)]
        for cells in (zip(line, widths, strict=True) for line in [header, rule, *lines[1:]])
    ]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in padded)
    return "\n\n".join([f"### {heading}", table, *_uncertainty(comparison.learner.evaluation)])


def _uncertainty(own: Evaluation) -> Iterable[str]:
    """How good and how honest the learner's variances are, and how far it is from the best that there is, in words."""
    likelihood, error_gap, gap = own.log_likelihood, own.error_gap, own.likelihood_gap
    if likelihood is not None:
        coverage = own.coverage
        held = ", ".join(f"{_percent(coverage[level])} in the {100 * level:.0f} % interval" for level in TOLD_LEVELS)
        yield textwrap.fill(
            f"Log-likelihood of {own.learner}: {_nats(likelihood)} for each value. True values: {held}.", 120
        )
    if error_gap is not None:
        best = interval(own.oracle_scores, own.units).mean
        text = f"The best prediction that there is has a mean squared error of {_figures(best)}: "
        text += f"{_error(error_gap)} lower"
        if gap is not None:
            best = interval(own.oracle_log_likelihoods, own.units).mean
            text += f". Its log-likelihood is {best:.3f}: {_nats(gap)} higher"
        yield textwrap.fill(f"{text}, on the same tasks.", 120)


def _nats(value: Interval) -> str:
    return f"{value.mean:.3f}{_plus_minus(value.half_width, '.3f')} nats"


def _paired(row: Row, metric: str) -> str:
    paired = row.paired
    if metric == "accuracy":
        text = f"{_signed(100 * paired.mean)}{_plus_minus(100 * paired.half_width, '.1f')}"
    else:
        text = f"{paired.mean:+.3g}{_plus_minus(paired.half_width, '.2g')}"
    return text if paired.tasks == row.evaluation.score.tasks else f"{text} ({paired.tasks} tasks)"


def _error(score: Interval) -> str:
    return f"{_figures(score.mean)}{_plus_minus(score.half_width, '.2g')}"


def _legend(own: Evaluation) -> str:
    unit = "in points" if own.metric == "accuracy" else "in mean squared error, turned so that above 0 is better"
    text = (
        f"± is half of the 95 % interval over tasks. *Better than {own.learner} by*: the mean difference on the tasks "
        f"of both, {unit}; where the interval holds 0, the two cannot be told apart. Costly rungs are scored on the "
        "first tasks only. *A new task takes*: median time to adapt to one. *State*: what is kept of it."
    )
    return textwrap.fill(text, 120)
