"""The report: a verdict, tables and pictures, and the numbers to recompute them.

`report.json`, schema 1:

    {"schema": 1, "verdict": str,
     "settings": [{"way", "shot", "query_shot", "transductive",
                   "over_alone", "over_ways", "tuning", "adapting": {"rung", "mean", "low", "high", "tasks"},
                   "rows": [{"learner", "baseline": bool, "uses_other_tasks": bool,
                             "score": {"metric", "mean", "low", "high", "tasks", "diverged", "undefined",
                                       "root": true where these are of squares},
                             "targets": [{"name", "mean", "low", "high", "tasks"}],
                             "cost": {"adapt_seconds", "state_bytes"},
                             "paired": {"against", "mean", "low", "high", "tasks", "diverged"},
                             "log_likelihood": {"mean", "low", "high", "tasks"},
                             "coverage": [{"level", "mean", "low", "high", "tasks"}],
                             "oracle": {"error_gap": {"mean", "low", "high", "tasks"}, "likelihood_gap": the same}}]}],
     "selection": str, "seed": int, "plan": str,
     "encoder": {"name", "revision", "tuned": bool, "provenance": {"licence", "trained on"},
                 "scores": {"frozen", "map", "tuned", "kept", "share"}},
     "performance": {"seconds_per_step", "tasks_per_second", "peak_bytes", "predicted_bytes", "share_of_limit"}}

Shares, such as accuracies, are fractions from 0 to 1. Numbers of the metric `rmse`, and of all others with `root`, are
of squared errors, in squared units of the target. `targets` has the scores of each of several targets, in its own unit;
the `score` is then that of the standardized ones. `uses_other_tasks`: whether the row's method learns from other tasks
than the given one. `over_alone`: by how much the learner is better than the best baseline that learns from each task
alone; `over_ways`: by how much it is better than the best baseline that uses other tasks. Either is missing without
such a baseline. `tuning` and `adapting` exist if an encoder is a part of the learner: by how much the best baseline on
the frozen encoder is better on the tuned one, and by how much the learner is better than the best baseline on the
tuned one. `encoder` exists if the inputs are vectors of an encoder; its `scores` are of validation tasks. A row's
`learner` is its key; with baselines on a frozen and a tuned encoder, a comma and which one follow. The first row is
the learner in question, the others are the ladder. `paired` is the mean difference on the tasks of both: above 0 this
row is better than the learner in `against` (for errors too). `low` and `high` are the ends of the 95 % interval over
`tasks` tasks. `transductive`: whether the learner in question uses the other queries of a task to predict one.
`log_likelihood` (nats for each value, densities in units of the target) and `coverage` (the share of true values
inside the central interval of each level) are of normal predictions only. `oracle` exists if the oracle
(Bayes-optimal) prediction is known: by how much the error is above the oracle's, and the log-likelihood below it.
Sizes that vary are `[low, high]`; numbers that are not finite, such as the interval of a single task, are null.
`diverged` counts the draws with a non-finite prediction; a share counts them as 0, other metrics leave them out.
`undefined` counts the draws without a score, such as an AUC with one class.

`scores.json` holds a hash of the test examples and, for the same settings and rows, the score of each task and its
unit, from which the intervals follow, and the places of the draws that diverged; likewise, by the names of
`Evaluation`, what the entries that not all rows have follow from.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from handful.doctor.finding import Finding
from handful.errors import ArtifactError, spelled
from handful.evaluation.comparison import Comparison, Row
from handful.evaluation.data_equivalence import Equivalence
from handful.evaluation.formatting import (
    ALONE,
    OTHER_TASKS,
    byte_size,
    difference,
    duration,
    heading,
    in_words,
    setting_name,
    size,
)
from handful.evaluation.intervals import Interval
from handful.evaluation.scoring import Evaluation
from handful.metrics import Metric, recorded_metric
from handful.reports.encoder_lines import UsedEncoder
from handful.reports.race import RaceResult
from handful.reports.summary_lines import (
    bought_lines,
    by_target,
    equivalence_line,
    legend,
    needed,
    needed_line,
    performance_line,
    uncertainty,
)
from handful.reports.verdict import Standing
from handful.storage import finite, read_json, write_json, write_text

SCHEMA = 1
REPORT, SCORES, PAGE = "report.json", "scores.json", "report.md"
PER_TASK = ("target_scores", "log_likelihoods", "coverages", "oracle_scores", "oracle_log_likelihoods")
"""What an evaluation of regression may contain for each task beside its score."""

STILL_RISING = 0.01
"""The share by which the last validation is better than all before if a training was still improving."""

RECHECK = """\
from pathlib import Path

import torch
from handful.evaluation.intervals import interval
from handful.metrics import recorded_metric
from handful.reports.report import load_scores

for setting in load_scores(Path("scores.json"))["settings"]:
    for row in setting["rows"]:
        scores, bounds = torch.tensor(row["scores"], dtype=torch.float64), recorded_metric(row["metric"]).bounds
        found = interval(scores, torch.tensor(row["units"]), bounds=bounds)
        print(setting["way"], setting["shot"], row["learner"], found)
"""


@dataclass(frozen=True)
class Report:
    """The results of a learner on tasks.

    title: of the page.
    tasks: what was evaluated, in one line.
    comparisons: the learner and the ladder on each setting.
    selection: how the weights were chosen.
    seed, plan: those of the run, to repeat it.
    normalization: the policy of the learner's batch norms.
    history: rows {"step", "loss", and at validations "val"} of the training.
    validated_by: what "val" is; None: as the scores.
    shots: the score against the number of examples, for each learner, the one in question first.
    nested: whether it is of the same tasks at all shots (see `TaskDistribution.nested`).
    seconds: times by what took them, as {"meta-training": 75.2}.
    performance: of the meta-training, see `handful.training.performance`.
    notes: facts about the data and their limits.
    findings: of the diagnosis.
    pictures: more figures to show, by their captions; they come first.
    equivalence: how many times more examples the conventional way needs, on the first setting.
    half_width: of a wanted interval, for which the report then gives the number of tasks.
    data: a hash of the test examples.
    pretrained_on: how the network of the ladder was pre-trained, in words.
    left_out: baselines and parts of the report that were skipped for lack of time, with the seconds that a baseline
        takes for a task, where these are known.
    by_default: baselines with default options, for lack of time to choose.
    encoder: that the model starts from.
    race: which the learner won; None if it was named.
    """

    title: str
    tasks: str
    comparisons: list[Comparison]
    selection: str
    seed: int
    plan: str
    normalization: str = ""
    history: Sequence[dict[str, Any]] = ()
    validated_by: Metric | None = None
    shots: dict[str, list[tuple[int, Interval]]] = field(default_factory=dict)
    nested: bool = True
    seconds: dict[str, float] = field(default_factory=dict)
    performance: dict[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    pictures: dict[str, Any] = field(default_factory=dict)
    equivalence: Equivalence | None = None
    half_width: float | None = None
    data: str = ""
    pretrained_on: str = ""
    left_out: Mapping[str, float | None] = field(default_factory=dict)
    by_default: Sequence[str] = ()
    encoder: UsedEncoder | None = None
    race: RaceResult | None = None

    @property
    def verdict(self) -> str:
        """The score, the gain from other tasks, and the best way of using them, each in a line: bad news first.

        "Not settled" if the learner does not win and the last validation was clearly the best one.
        """
        standings = [Standing(comparison) for comparison in self.comparisons]
        missed = [standing.outcome not in ("beats", "alone") for standing in standings]
        without = [not standing.pays for standing in standings]
        order = sorted(range(len(standings)), key=lambda index: (not without[index], not missed[index]))
        said = all(without)
        text = "\n".join(line for index in order for line in standings[index].lines(said=said))
        if all(standing.trivial for standing in standings):
            return text
        if any(without):
            text = f"No significant gain from other tasks {'here' if said else 'in every setting'}: {text}"
        if any(missed) and self._still_rising and not any(standing.outcome == "diverged" for standing in standings):
            return (
                f"Not settled: the best validation score came at the last of {self.history[-1]['step']:,} steps; train "
                f"longer before drawing conclusions. So far:\n{text}"
            )
        return text

    @property
    def _validated_by(self) -> Metric:
        return self.validated_by or self.comparisons[0].learner.evaluation.metric

    @property
    def _still_rising(self) -> bool:
        """Whether the last validation was the best by more than 1 % and by more than any earlier fall."""
        sign = self._validated_by.sign
        validations: list[float] = [sign * row["val"] for row in self.history if row.get("val") is not None]
        if len(validations) < 2:
            return False
        *earlier, last = validations
        falls = [before - after for before, after in pairwise(earlier) if after < before]
        noise = sum(falls) / max(1, len(falls))
        return last - max(earlier) > max(noise, STILL_RISING * abs(max(earlier)))

    def to_json(self) -> dict[str, Any]:
        """The report by schema 1, as this module's docstring gives it."""
        settings = []
        for comparison in self.comparisons:
            first = comparison.learner.evaluation
            settings.append(
                _sizes(first)
                | _best_to_json(comparison)
                | _bought_to_json(comparison)
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
        if self.encoder is not None:
            report["encoder"] = self.encoder.to_json()
        if self.half_width is not None:
            report["tasks_needed"] = [needed(c.learner.evaluation, self.half_width) for c in self.comparisons]
        return finite(report)  # type: ignore[no-any-return]

    def scores_to_json(self) -> dict[str, Any]:
        """The score and unit of each task of each row, in the order of the report's rows."""
        settings = [scores_of([row.evaluation for row in comparison.rows]) for comparison in self.comparisons]
        return finite({"schema": SCHEMA, "data": self.data, "settings": settings})  # type: ignore[no-any-return]

    def write(self, folder: Path) -> Path:
        """Write `report.md`, `report.json`, `scores.json` and the pictures into a folder; returns the page's path.

        The page is written last, so that the files it names exist.
        """
        pictures = self._draw(folder)
        write_json(folder / SCORES, self.scores_to_json())
        write_json(folder / REPORT, self.to_json())
        write_text(folder / PAGE, self.to_markdown(pictures))
        return folder / PAGE

    def _draw(self, folder: Path) -> dict[str, str]:
        """Write the pictures; returns their file names by caption."""
        from handful.reports import plots

        own = self.comparisons[0].learner.evaluation
        drawings: dict[str, tuple[str, Any]] = {}
        for number, (caption, figure) in enumerate(self.pictures.items(), start=1):
            drawings[caption] = (f"picture-{number}.png", figure)
        score = heading(own.metric)
        caption = f"{score} of {own.learner} (blue) and of the ladder (pale: from {ALONE}), with 95 % intervals"
        drawings[caption] = ("ladder.png", plots.ladder(self.comparisons))
        if self.shots:
            caption = f"{score} by the number of examples, with 95 % intervals"
            drawn = "the same tasks and queries throughout, with fewer support examples"
            drawings[f"{caption}; {drawn if self.nested else 'drawn anew for each number'}"] = (
                "shots.png",
                plots.shots_curve(self.shots, own.metric, per_class=own.way is not None, equivalence=self.equivalence),
            )
        if len(own.confidences):
            error = plots.calibration_error(own.confidences, own.correct)
            caption = (
                f"Calibration of {own.learner}: its confidence differs from its accuracy by {100 * error:.1f} points "
                f"on average"
            )
            drawings[f"{caption} ({setting_name(own.way, own.shot)})"] = (
                "reliability.png",
                plots.reliability(own.confidences, own.correct),
            )
        if own.coverage:
            caption = (
                f"Coverage of true values by the prediction intervals of {own.learner}, with 95 % intervals over tasks"
            )
            drawings[f"{caption} ({setting_name(own.way, own.shot)})"] = ("coverage.png", plots.coverage(own.coverage))
        if len(self.history) > 1:
            drawings["Meta-training"] = ("learning-curve.png", plots.learning_curve(self.history, self._validated_by))
        if self.race is not None and self.race.rounds:
            caption = "Validation score of each candidate of the race by the seconds of its training"
            drawings[
                f"{caption}; a cross marks where it was dropped, a dotted line a candidate without meta-training"
            ] = (
                "race.png",
                plots.race(self.race),
            )
        for name, figure in drawings.values():
            plots.save(figure, folder / name)
        return {caption: name for caption, (name, _) in drawings.items()}

    def to_markdown(self, pictures: Mapping[str, str]) -> str:
        """The page.

        pictures: file names by caption.
        """
        own = self.comparisons[0].learner.evaluation
        verdict = "\n".join(f"- **{line}**" for line in self.verdict.splitlines())
        parts = [f"# {self.title}", verdict, f"Tasks: {self.tasks}", *self.notes]
        shown = [f"![{caption}]({name})\n\n*{caption}.*" for caption, name in pictures.items()]
        more = len(self.pictures)
        parts += shown[:more]
        tables = [part for c in self.comparisons for part in (_table(c), *self._ranges(c.learner.evaluation))]
        parts += ["## Scores", *tables, *self._equivalence(), legend(own), *shown[more:]]
        if self.race is not None:
            parts += ["## The race", self.race.markdown()]
        parts += ["## Selection and settings", "\n".join(f"- {line}" for line in self._circumstances(own))]
        if self.findings:
            parts += [
                "## Diagnosis",
                "\n".join(
                    f"- **{f.status}**, {f.check}: {f.message} {spelled(f.hint, str)}".rstrip() for f in self.findings
                ),
            ]
        again = f"`{SCORES}` has the score of every task; this recomputes the intervals above:"
        parts += ["## Recompute it", again, f"```python\n{RECHECK}```"]
        return "\n\n".join(parts) + "\n"

    def _ranges(self, own: Evaluation) -> Iterable[str]:
        """Beyond the interval over tasks: an interval over classes, and the number of tasks for a narrower one."""
        found = own.over_classes
        if found is not None and math.isfinite(found.half_width):
            text = (
                f"For other classes of the same kind: {own.learner} {in_words(found, own.metric)} (95 % interval over "
            )
            yield f"{text}{found.classes} classes and {found.tasks:,} tasks)."
        if self.half_width is not None:
            yield needed_line(own, self.half_width)

    def _equivalence(self) -> Iterable[str]:
        if self.equivalence is not None:
            yield equivalence_line(self.equivalence, self.comparisons[0].learner.evaluation)

    def _circumstances(self, own: Evaluation) -> Iterable[str]:
        yield f"Weights: {self.selection}."
        if self.encoder is not None:
            yield from self.encoder.lines(self._validated_by)
        if self.pretrained_on:
            yield f"Pre-trained network of the ladder: {self.pretrained_on}."
        if self.left_out:
            skipped = (
                name if seconds is None else f"{name} ({duration(seconds)} a task)"
                for name, seconds in self.left_out.items()
            )
            yield f"Skipped for lack of time: {', '.join(skipped)}. More minutes include them."
        if self.by_default:
            yield f"With default options, for lack of time to choose: {', '.join(self.by_default)}."
        if any(row.chosen for comparison in self.comparisons for row in comparison.rows):
            yield "Options of the ladder: chosen on validation tasks, for each setting."
        policy = f"Batch normalization: {self.normalization}. " if self.normalization else ""
        yield policy + (
            "**Transductive: a prediction may depend on the other queries of its task.**"
            if own.transductive
            else "Not transductive: each query is predicted independently of the others."
        )
        yield f"Seed {self.seed}." if self.plan == "None" else f"Seed {self.seed}, plan: {self.plan}."
        if self.seconds:
            yield "Time: " + ", ".join(f"{what} {duration(seconds)}" for what, seconds in self.seconds.items()) + "."
        if self.performance:
            yield performance_line(self.performance).strip()


def load(path: Path) -> dict[str, Any]:
    """Read a report of schema 1 from its folder or file; `ArtifactError` if it is missing, broken or something else."""
    return _load(path, REPORT, {"schema", "verdict", "settings", "selection", "seed", "plan"})


def scores_of(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """The score and unit of each task of each learner, in one setting: an entry of `settings` of `load_scores`."""
    first = evaluations[0]
    return (
        _sizes(first)
        | ({"classes": list(classes)} if any(classes := first.classes) else {})
        | {
            "rows": [
                {
                    "learner": evaluation.name,
                    "metric": evaluation.metric.name,
                    "transductive": evaluation.transductive,
                    "scores": evaluation.scores.tolist(),
                    "units": evaluation.units.tolist(),
                }
                | ({"diverged": places} if (places := _places(evaluation.diverged)) else {})
                | {name: values.tolist() for name in PER_TASK if len(values := getattr(evaluation, name))}
                for evaluation in evaluations
            ]
        }
    )


def load_scores(path: Path) -> dict[str, Any]:
    """Read the per-task scores beside a report, from the folder or file; null stands for infinity if the draw diverged,
    and for NaN otherwise."""
    scores = _load(path, SCORES, {"schema", "settings"})
    for row in (row for setting in scores["settings"] for row in setting["rows"]):
        row |= {name: _numbers(row[name]) for name in ("scores", *PER_TASK) if name in row}
        for place in row.get("diverged", ()):
            if math.isnan(row["scores"][place]):
                row["scores"][place] = recorded_metric(row["metric"]).worst
    return scores


def _places(chosen: Tensor) -> list[int]:
    return chosen.nonzero().flatten().tolist()


def _numbers(value: Any) -> Any:
    """The inverse of `finite`, which maps NaN and infinities alike to null."""
    return [_numbers(item) for item in value] if isinstance(value, list) else math.nan if value is None else value


def _load(path: Path, name: str, keys: set[str]) -> dict[str, Any]:
    if path.is_dir():
        if not (path / name).exists():
            raise ArtifactError(
                f"{path} has no {name}. Create one with `handful evaluate {path}`.", code="missing-artifact"
            )
        path = path / name
    report = read_json(path)
    if not isinstance(report, dict) or "schema" not in report:
        raise ArtifactError(f"{path} is not a {name} of handful: it has no 'schema'.")
    if report["schema"] != SCHEMA:
        raise ArtifactError(
            f"{path} has schema {report['schema']!r}, but this version of handful reads {SCHEMA}. "
            "Evaluate again, or use the version that wrote it.",
            code="other-version",
        )
    missing = sorted(keys - report.keys())
    if missing:
        raise ArtifactError(f"{path} is incomplete: it lacks {', '.join(missing)}. Evaluate again.")
    return report


def _row_to_json(row: Row) -> dict[str, Any]:
    evaluation, metric = row.evaluation, row.evaluation.metric
    more: dict[str, Any] = {}
    if evaluation.by_target:
        more["targets"] = [{"name": name, **vars(score)} for name, score in evaluation.by_target.items()]
    if evaluation.log_likelihood is not None:
        more["log_likelihood"] = vars(evaluation.log_likelihood)
        more["coverage"] = [{"level": level, **vars(share)} for level, share in evaluation.coverage.items()]
    gaps = {"error_gap": evaluation.error_gap, "likelihood_gap": evaluation.likelihood_gap}
    if evaluation.error_gap is not None:
        more["oracle"] = {name: vars(gap) for name, gap in gaps.items() if gap is not None}
    over_classes = evaluation.over_classes
    wider = {} if over_classes is None else {"over_classes": vars(over_classes)}
    return {
        "learner": evaluation.name,
        "baseline": row.baseline,
        "uses_other_tasks": evaluation.uses_other_tasks,
        "score": {"metric": metric.name, **vars(evaluation.score), **({"root": True} if metric.root else {}), **wider},
        "cost": {"adapt_seconds": evaluation.adapt_seconds, "state_bytes": evaluation.state_bytes},
        "paired": {"against": row.against, **vars(row.paired)},
        **more,
    }


def _best_to_json(comparison: Comparison) -> dict[str, Any]:
    own = comparison.learner.evaluation
    best = {"over_alone": comparison.best_alone, "over_ways": comparison.best_way}
    return {
        name: {"rung": row.evaluation.name, **vars(own.gain_over(row.evaluation))}
        for name, row in best.items()
        if row is not None
    }


def _bought_to_json(comparison: Comparison) -> dict[str, Any]:
    bought = comparison.bought
    if bought is None:
        return {}
    gaps = {"tuning": (bought.frozen.learner, bought.tuning), "adapting": (bought.best.learner, bought.adapting)}
    return {name: {"rung": rung, **vars(gap)} for name, (rung, gap) in gaps.items()}


def _sizes(evaluation: Evaluation) -> dict[str, Any]:
    sizes = {name: getattr(evaluation, name) for name in ("way", "shot", "query_shot")}
    return {name: list(size) if isinstance(size, tuple) else size for name, size in sizes.items()}


def equivalence_to_json(found: Equivalence) -> dict[str, Any]:
    """The factor with its interval; infinite numbers are null, and the text names the sizes that were tried."""
    names = ("shot", "factor", "low", "high", "fewest", "most", "tasks", "score")
    curve = [{"shot": shot, **vars(score)} for shot, score in found.curve]
    return {name: getattr(found, name) for name in names} | {"words": str(found), "curve": curve}


def table_lines(comparison: Comparison) -> tuple[str, list[list[str]]]:
    """The heading of one setting and its table: the header's cells, then those of each row."""
    own = comparison.learner.evaluation
    score = own.metric.title
    repeated = len(own.scores) > own.score.tasks
    counted = "tasks (draws)" if repeated else "tasks"
    lines = [
        [
            "learner",
            "learns from",
            score,
            counted,
            f"better than {own.learner} by",
            "adaptation time",
            "state",
            "chosen",
        ]
    ]
    for row in comparison.rows:
        evaluation = row.evaluation
        lines.append(
            [
                evaluation.name + (" (transductive)" if evaluation.transductive else ""),
                OTHER_TASKS if evaluation.uses_other_tasks else ALONE,
                in_words(evaluation.score, own.metric),
                f"{evaluation.score.tasks}{f' ({len(evaluation.scores)})' if repeated else ''}",
                _paired(row) if row.baseline else "",
                duration(evaluation.adapt_seconds),
                byte_size(evaluation.state_bytes),
                ", ".join(f"{name} {value}" for name, value in row.chosen.items()),
            ]
        )
    guess = own.metric.chance
    chance = f" (chance is {100 * guess(own.way):.3g} %)" if guess and isinstance(own.way, int) else ""
    queries = "all remaining" if own.query_shot is None else size(own.query_shot)
    per = " per class" if own.way is not None else ""
    return f"{setting_name(own.way, own.shot)}{chance}, {queries} queries{per}", lines


def _table(comparison: Comparison) -> str:
    """A heading and the rows of one setting, padded to align in a terminal too."""
    setting, (header, first, *rest) = table_lines(comparison)
    lines = [header, [f"**{first[0]}**", *first[1:]], *rest]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    words = (0, 1, len(header) - 1)
    rule = ["-" * width if column in words else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    padded = [
        [cell.ljust(width) if column in words else cell.rjust(width) for column, (cell, width) in enumerate(cells)]
        for cells in (zip(line, widths, strict=True) for line in [header, rule, *lines[1:]])
    ]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in padded)
    own = comparison.learner.evaluation
    return "\n\n".join([f"### {setting}", table, *bought_lines(comparison), *by_target(own), *uncertainty(own)])


def _paired(row: Row) -> str:
    text = difference(row.gap, share=row.evaluation.metric.unit == "share")
    return text if row.paired.tasks == row.evaluation.score.tasks else f"{text} ({row.paired.tasks} tasks)"
