"""Lines of a report beside its verdict and tables."""

import math
import textwrap
from collections.abc import Iterable
from typing import Any

from handful.errors import count_of
from handful.evaluation.comparison import Comparison
from handful.evaluation.data_equivalence import Equivalence
from handful.evaluation.formatting import (
    difference,
    duration,
    estimate,
    examples,
    heading,
    in_words,
    nats,
    one_score,
    percent,
    rate_text,
    rooted,
    rooted_gap,
)
from handful.evaluation.intervals import Interval, interval, tasks_needed
from handful.evaluation.scoring import Evaluation
from handful.metrics import recorded_metric

TOLD_LEVELS = (0.5, 0.8, 0.9, 0.95)
"""The levels of central intervals whose coverage the page states; the picture shows all."""


def needed(own: Evaluation, half_width: float) -> dict[str, Any]:
    """How many tasks an interval of this half-width needs, and how many more than were scored; null if unknown."""
    score = rooted(own.score, own.metric)
    count = tasks_needed(score, half_width) if math.isfinite(score.half_width) else None
    more = None if count is None else max(0, count - score.tasks)
    return {"half_width": half_width, "tasks": count, "more": more}


def needed_line(own: Evaluation, half_width: float) -> str:
    """The same in a sentence.

    half_width: in the unit of the metric, a fraction for shares.
    """
    found = needed(own, half_width)
    share = own.metric.unit == "share"
    wanted = f"± {100 * half_width:g} points" if share else f"± {half_width:g} of {own.metric.title}"
    if found["tasks"] is None:
        reasons = ("where no score is finite", "from a single one", "where all scores are equal")
        why = reasons[min(own.score.tasks, 2)]
        return f"How many tasks an interval of {wanted} needs cannot be estimated {why}."
    score = own.score
    if not found["more"]:
        return f"For an interval of {wanted}, the {count_of(score.tasks, 'task')} scored are enough."
    text = f"An interval of {wanted} needs about {count_of(found['tasks'], 'task')}, {found['more']:,} more"
    repeated = len(own.scores) > score.tasks  # all tasks of the split were drawn several times
    return f"{text}, which the data does not have." if repeated else f"{text}."


def equivalence_line(found: Equivalence, own: Evaluation) -> str:
    """The meaning of the factor, in a sentence."""
    per = " of each class" if own.way is not None else ""
    text = (
        f"**Data equivalence:** to score like {own.learner} with {examples(found.shot)}{per}, the best baseline that "
        f"learns from each task alone needs {found} times as many examples (95 % interval over the first "
        f"{count_of(found.tasks, 'task')}; tried with {found.fewest} to {found.most})."
    )
    return textwrap.fill(text, 120)


def performance_line(performance: dict[str, float]) -> str:
    """The speed of the meta-training, in a line; empty if unknown."""
    if not performance:
        return ""
    parts = [
        f"{duration(performance['seconds_per_step'])} per meta-step",
        f"{rate_text(performance['tasks_per_second'])} tasks a second",
    ]
    if performance["peak_bytes"]:
        predicted = performance.get("predicted_bytes")
        beside = f" ({predicted / 2**20:.0f} predicted)" if predicted else ""
        parts.append(f"{performance['peak_bytes'] / 2**20:.0f} MiB at most{beside}")
    if "share_of_limit" in performance:
        share = 100 * performance["share_of_limit"]
        parts.append(f"{share:.2g} % of the machine's measured peak on large matrix products and convolutions")
    return f"Speed: {', '.join(parts)}.\n"


def encoder_line(facts: dict[str, Any]) -> str:
    """The gain from tuning the encoder on validation tasks, in a line; empty if none was tuned."""
    found = facts.get("encoder")
    if not found:
        return ""
    metric = recorded_metric(facts["metric"])
    names = {"frozen": "the frozen encoder", "map": "a linear map of its vectors", "tuned": "tuned"}
    scores = ", ".join(f"{names[name]} {one_score(found[name], metric)}" for name in names)
    return f"On the same validation tasks: {scores}; kept: {names[found['kept']]}.\n"


def uncertainty(own: Evaluation) -> Iterable[str]:
    """The calibration of the learner's variances, and its distance from the oracle, in words."""
    likelihood, error_gap, gap = own.log_likelihood, own.error_gap, own.likelihood_gap
    if likelihood is not None:
        coverage = own.coverage
        held = ", ".join(f"{percent(coverage[level])} in the {100 * level:.0f} % interval" for level in TOLD_LEVELS)
        yield textwrap.fill(
            f"Log-likelihood of {own.learner}: {nats(likelihood)} for each value. True values: {held}.", 120
        )
    if error_gap is not None:
        best = interval(own.oracle_scores, own.units).mean
        gap_shown = rooted_gap(error_gap, own.metric, best, own.score.mean)
        text = f"The oracle (Bayes-optimal) prediction has {one_score(best, own.metric)}: {estimate(gap_shown)} better"
        if gap is not None:
            best = interval(own.oracle_log_likelihoods, own.units).mean
            text += f". Its log-likelihood is {best:.3f}: {nats(gap)} higher"
        yield textwrap.fill(f"{text}, on the same tasks.", 120)


def bought_lines(comparison: Comparison) -> Iterable[str]:
    """The gain from tuning the encoder, and the further gain from the learner's adaptation, in words."""
    bought = comparison.bought
    if bought is None:
        return
    own, metric = bought.learner, bought.learner.metric
    share = metric.unit == "share"

    def gap(found: Interval, one: Evaluation, other: Evaluation) -> str:
        shown = difference(rooted_gap(found, metric, *one.means_with(other)), share=share)
        return f"{shown} {'points' if share else f'of {metric.title}'}"

    yield textwrap.fill(
        f"**Tuning the encoder:** {gap(bought.tuning, bought.tuned, bought.frozen)} for {bought.frozen.learner} on its "
        f"vectors, on {count_of(bought.tuning.tasks, 'task')}.",
        120,
    )
    yield textwrap.fill(
        f"**Adapting:** {gap(bought.adapting, own, bought.best)} for {own.learner} over {bought.best.learner}, the "
        f"best baseline on the tuned encoder, on {count_of(bought.adapting.tasks, 'task')}.",
        120,
    )


def by_target(own: Evaluation) -> Iterable[str]:
    """The scores of several targets, each in its own unit."""
    if own.by_target:
        told = "; ".join(f"{name} {in_words(score, own.metric)}" for name, score in own.by_target.items())
        unit = " Scores in the table are of standardized targets." if own.metric.unit == "target" else ""
        yield textwrap.fill(f"{heading(own.metric)} of {own.learner} by target: {told}.{unit}", 120)


def legend(own: Evaluation) -> str:
    """The meaning of the tables' columns."""
    share = own.metric.unit == "share"
    unit = "in points" if share else f"in {own.metric.title}, with the sign such that above 0 is better"
    text = (
        "*Learns from*: whether a method learns from other tasks than the given one; a published encoder does not "
        "count. "
        f"± is half of the 95 % interval over tasks. *Better than {own.learner} by*: the mean difference on the common "
        f"tasks, {unit}; if the interval contains 0, the difference is not significant. Costly baselines are scored on "
        f"the first tasks (or draws) only. *Adaptation time*: median time to adapt to a new task. *State*: size of the "
        f"adapted state."
    )
    return textwrap.fill(text, 120)
