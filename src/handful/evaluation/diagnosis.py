"""The doctor: what may be wrong with tasks or with a learner, in plain words.

It knows the two contracts only, and draws tasks and scores them as anybody could.
"""

import hashlib
import math
import warnings
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from handful.errors import UserError
from handful.evaluation.intervals import Interval, interval
from handful.evaluation.protocol import check_fits, evaluating
from handful.learners.learner import Learner
from handful.tasks.distribution import SPLITS, Split, TaskDistribution, seeded
from handful.types import Categorical, Examples, Point, Prediction, Task

Status: TypeAlias = Literal["ok", "warning", "problem", "skipped"]

POOLED_EXAMPLES = 1000
"""How many examples of each split are compared with those of the others."""
DISTINCT_NUMBERS = 8
"""Examples of fewer numbers than this may be equal by chance, so equal ones are a warning and no problem."""
FEWEST_UNITS, FEWEST_CLASSES = 30, 20
SHUFFLES = 3
"""Shuffled supports per task: with few classes, one shuffling leaves many labels right by luck."""
MATERIAL = 0.03
"""Accuracy above chance that matters: what a shuffled support may exceed it by."""
PURE = 1e-3
"""By what a prediction may change, relative to its size, from rounding alone."""


@dataclass(frozen=True)
class Finding:
    """One result of the doctor. check: "overlap", "leakage", "sizes", "fit", "memorization" or "transduction"; message:
    what was found, on how much, and the way out."""

    check: str
    status: Status
    message: str


def diagnose(distribution: TaskDistribution, learner: Learner | None = None, *, tasks: int = 50) -> list[Finding]:
    """Look for faults in the tasks of all splits, and, given one, in a learner on tasks of the training split.

    tasks: how many to draw for each check. The learner is looked at on training tasks, which is where it could have
    memorized anything, and so that no test task is used up. It is not changed. Raises `UserError` for fewer than 2.
    """
    if tasks < 2:
        raise UserError(f"A diagnosis needs at least 2 tasks, got {tasks}.")
    splits, findings = _sizes(distribution)
    findings += [_overlap(splits, tasks), _leakage(splits, tasks)]
    if learner is None:
        return findings
    if "train" not in splits:
        reason = "No training task of this size can be drawn."
        return [*findings, *(Finding(check, "skipped", reason) for check in ("memorization", "transduction"))]
    try:
        check_fits(learner, splits["train"].spec)
    except UserError as error:
        return [*findings, Finding("fit", "problem", str(error))]
    with evaluating(learner), torch.no_grad():
        return [*findings, _memorization(splits["train"], learner, tasks), _transduction(splits["train"], learner)]


# Of the tasks


def _sizes(distribution: TaskDistribution) -> tuple[dict[Split, TaskDistribution], list[Finding]]:
    """The splits that tasks can be drawn from, and what is too small."""
    splits: dict[Split, TaskDistribution] = {}
    findings: list[Finding] = []
    facts = []
    names = distribution.split_manifest()
    way = distribution.sizes.way
    largest = way[1] if isinstance(way, tuple) else way
    for on in SPLITS:
        split = distribution.split(on)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                split.check()
                split.task(0)
            except UserError as error:
                findings.append(Finding("sizes", "problem", f"The {on} split: {error}"))
                continue
        findings += [Finding("sizes", "warning", f"The {on} split: {warning.message}") for warning in caught]
        splits[on] = split
        classes = _names_are_classes(split) and len(names.get(on, []))
        if split.units is not None:
            facts.append(f"{on} {split.units} tasks")
            findings += _few_units(on, split.units)
        elif classes:
            facts.append(f"{on} {classes} classes")
            findings += _few_classes(on, classes, largest)
    if not findings:
        found = ", ".join(facts) or "tasks do not run out"
        findings.append(Finding("sizes", "ok", f"There is enough to draw from: {found}."))
    return splits, findings


def _few_units(on: str, units: int) -> list[Finding]:
    if units >= FEWEST_UNITS:
        return []
    if on == "train":
        what = "what is common to tasks can hardly be learned from so few. Collect more tasks, or trust the baselines"
    else:
        width = 1.96 / math.sqrt(max(1, units))
        what = (
            f"a score over {units} independent units has a 95 % interval of about ± {width:.1f} standard deviations "
            "between tasks, however many draws are made. Collect more tasks, and read the interval"
        )
    return [Finding("sizes", "warning", f"The {on} split has {units} tasks (fewer than {FEWEST_UNITS}): {what}.")]


def _few_classes(on: str, classes: int, way: int | None) -> list[Finding]:
    needed = max(FEWEST_CLASSES if on == "train" else 0, 2 * (way or 1))
    if classes >= needed:
        return []
    what = (
        "so few hardly teach what new classes are like"
        if on == "train"
        else "its tasks are made of the same few classes again and again, and the interval over tasks does not show "
        "how the score would differ for other classes"
    )
    message = f"The {on} split has {classes} classes (fewer than {needed}): {what}. Add classes, or lower --way."
    return [Finding("sizes", "warning", message)]


def _overlap(splits: dict[Split, TaskDistribution], tasks: int) -> Finding:
    """Examples that a task is scored on although it learned from them."""
    same_id = same_content = queries = 0
    where: set[str] = set()
    for on, split in splits.items():
        for index in range(tasks):
            manifest, task = split.manifest(index), split.task(index)
            seen, known = set(_hashes(task.support.inputs)), set(manifest.support)
            by_id = sum(example in known for example in manifest.query)
            by_content = sum(example in seen for example in _hashes(task.query.inputs))
            same_id, same_content = same_id + by_id, same_content + by_content
            queries += len(task.query.inputs)
            where |= {on} if by_id or by_content else set()
    if not splits:
        return Finding("overlap", "skipped", "No task of this size can be drawn.")
    drawn = f"{queries:,} query examples of {tasks} tasks per split"
    if same_id:
        return Finding(
            "overlap",
            "problem",
            f"{same_id:,} of {drawn} are in the support of the same task, by their ids ({_listed(where)}): scores are "
            "too good. Draw support and query without replacement.",
        )
    if same_content:
        few = _numbers(splits) < DISTINCT_NUMBERS
        found = f"{same_content:,} of {drawn} equal a support example of the same task, number for number"
        way_out = (
            "with so few numbers per example that may be chance; if it is not, remove duplicates."
            if few
            else "scores are too good. Remove duplicates from the data, or keep them on one side (--group)."
        )
        return Finding("overlap", "warning" if few else "problem", f"{found} ({_listed(where)}): {way_out}")
    return Finding("overlap", "ok", f"None of {drawn} is in the support of its task, by id or by content.")


def _leakage(splits: dict[Split, TaskDistribution], tasks: int) -> Finding:
    """Classes, tasks or examples that are in two splits."""
    if not splits:
        return Finding("leakage", "skipped", "No task of this size can be drawn.")
    any_split = next(iter(splits.values()))
    noun = "class" if _names_are_classes(any_split) else "task"
    names: dict[str, set[str]] = {on: set(members) for on, members in any_split.split_manifest().items()}
    contents = {on: set(_pooled(split)) for on, split in splits.items()}
    ids: dict[Split, set[int]] = {on: set() for on in splits}
    classes: dict[Split, set[int]] = {on: set() for on in splits}
    for on, split in splits.items():
        for index in range(tasks):
            manifest = split.manifest(index)
            ids[on] |= {*manifest.support, *manifest.query}
            if _names_are_classes(split):
                classes[on] |= set(manifest.classes)
    new = "classes" if noun == "class" else "tasks"
    way_out = f"Put each {noun} into one split only, else the test is no test of new {new}."
    for one, other in combinations(SPLITS, 2):
        between = f"between {one} and {other}"
        if shared := names.get(one, set()) & names.get(other, set()):
            found = f"{len(shared)} {noun} name(s) are shared {between}: {_listed(shared)}. {way_out}"
            return Finding("leakage", "problem", found)
        for what, members in (("class ids", classes), ("example ids", ids)):
            if both := members.get(one, set()) & members.get(other, set()):
                found = f"{len(both):,} {what} of {tasks} tasks per split are shared {between}. {way_out}"
                return Finding("leakage", "problem", found)
    for one, other in combinations(SPLITS, 2):
        if equal := len(contents.get(one, set()) & contents.get(other, set())):
            few = _numbers(splits) < DISTINCT_NUMBERS
            return Finding(
                "leakage",
                "warning" if few else "problem",
                f"{equal:,} of up to {POOLED_EXAMPLES:,} examples drawn from each split are equal between {one} and "
                f"{other}, number for number: "
                + ("with so few numbers per example that may be chance; else remove duplicates." if few else way_out),
            )
    if not any(names.values()) and not any(ids.values()):
        return Finding("leakage", "skipped", "The tasks are generated: there is no class or example to be shared.")
    counts = " / ".join(str(len(names.get(on, ()))) for on in SPLITS)
    compared = f"{counts} names and {sum(map(len, ids.values())):,} example ids"
    return Finding("leakage", "ok", f"Train, val and test share no {noun} and no example ({compared} compared).")


def _pooled(split: TaskDistribution) -> list[bytes]:
    pool = split.pool()
    return [] if pool is None else _hashes(pool.draw(seeded(split.seed, 7), POOLED_EXAMPLES).inputs)


def _names_are_classes(split: TaskDistribution) -> bool:
    """Whether a split is by class: where class numbers are drawn anew, else it is by task."""
    return split.spec.classification and split.spec.labels == "permuted"


def _numbers(splits: dict[Split, TaskDistribution]) -> int:
    return math.prod(next(iter(splits.values())).spec.input_shape)


def _hashes(inputs: Tensor) -> list[bytes]:
    """A hash of the content of each example `(n, *input_shape)`; 0 and -0 are one number."""
    rows = (inputs.detach().cpu() + 0).numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def _listed(names: set[str]) -> str:
    first = sorted(names)[:5]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")


# Of the learner, in evaluation mode


def _memorization(split: TaskDistribution, learner: Learner, tasks: int) -> Finding:
    """Whether answers come from the support of the task, or from what was learned of other tasks."""
    if not learner.uses_support:
        return Finding("memorization", "skipped", f"{learner.key} declares that it does not use the support.")
    return (_shuffled if _names_are_classes(split) else _exchanged)(split, learner, tasks)


def _shuffled(split: TaskDistribution, learner: Learner, tasks: int) -> Finding:
    """Where class numbers are drawn anew for each task, shuffled support labels leave nothing to know."""
    chances = []

    def shuffle(index: int, repeat: int) -> Examples:
        support = split.task(index).support
        order = torch.randperm(len(support.targets), generator=seeded(split.seed, 8, index, repeat))
        return Examples(support.inputs, support.targets[order])

    right, guessed = [], []
    for index in range(tasks):
        task = split.task(index)
        chances.append(_chance(task))
        right.append(_score(split, learner, index, task.support))
        wrong = [_score(split, learner, index, shuffle(index, repeat)) for repeat in range(SHUFFLES)]
        guessed.append(sum(wrong) / SHUFFLES)
    units = torch.tensor([split.unit(index) for index in range(tasks)])
    chance = sum(chances) / tasks
    true, shuffled = torch.tensor(right), torch.tensor(guessed)
    excess, gain = interval(shuffled - torch.tensor(chances), units), interval(true - shuffled, units)
    numbers = (
        f"accuracy {_points(interval(true, units))} % with true support labels, {_points(interval(shuffled, units))} % "
        f"with shuffled ones, chance {100 * chance:.1f} % ({gain.tasks} training tasks)"
    )
    if excess.low > 0 and excess.mean > MATERIAL:
        return Finding(
            "memorization",
            "problem",
            f"{learner.key} knows answers that its support does not tell: {numbers}. It has memorized what class "
            "numbers mean in the training tasks. Draw class numbers anew for each task.",
        )
    if gain.low <= 0:
        return Finding(
            "memorization",
            "problem",
            f"{learner.key} does not use its support: {numbers}. Train it (longer), or look for an error in adapt.",
        )
    return Finding("memorization", "ok", f"{learner.key} answers from its support: {numbers}.")


def _exchanged(split: TaskDistribution, learner: Learner, tasks: int) -> Finding:
    """Where outputs mean the same in all tasks: what the own support is worth against that of another task."""
    own, foreign, units = [], [], []
    for index in range(tasks):
        other = _another(split, index, tasks)
        if other is None:
            continue
        own.append(_score(split, learner, index, split.task(index).support))
        foreign.append(_score(split, learner, index, split.task(other).support))
        units.append(split.unit(index))
    if len(set(units)) < 2:
        return Finding("memorization", "skipped", "There are fewer than two tasks to exchange supports between.")
    scores = [interval(torch.tensor(values), torch.tensor(units)) for values in (own, foreign)]
    gain = interval(torch.tensor(own) - torch.tensor(foreign), torch.tensor(units))
    if split.spec.classification:
        numbers = f"accuracy {_points(scores[0])} % with the task's own support, {_points(scores[1])} % with another's"
        numbers += f"; gain {100 * gain.mean:+.1f} ± {100 * gain.half_width:.1f} points"
    else:
        numbers = (
            f"squared error {-scores[0].mean:.3g} with the task's own support, {-scores[1].mean:.3g} with another's"
        )
        numbers += f"; gain {gain.mean:+.3g} ± {gain.half_width:.2g}"
    numbers += f" ({gain.tasks} training tasks)"
    if gain.low <= 0:
        return Finding(
            "memorization",
            "warning",
            f"Adapting {learner.key} to a task is not seen to help: {numbers}. The tasks may be too alike for "
            "adapting to pay; one model for all of them (the rung 'pooled') may do as well.",
        )
    return Finding("memorization", "ok", f"Adapting {learner.key} to a task helps: {numbers}.")


def _another(split: TaskDistribution, index: int, tasks: int) -> int | None:
    """A task of another unit and the same spec, half of the tasks away."""
    for step in range(tasks):
        other = (index + tasks // 2 + step) % tasks
        if split.unit(other) != split.unit(index) and split.spec_of(other) == split.spec_of(index):
            return other
    return None


def _score(split: TaskDistribution, learner: Learner, index: int, support: Examples) -> float:
    """Of the queries of task `index` after adapting to this support; more is better."""
    query = split.task(index).query
    prediction = learner.predict(learner.adapt(support, split.spec_of(index)), query.inputs)
    if isinstance(prediction, Categorical):
        return float((prediction.logits.argmax(-1) == query.targets).double().mean())
    return -float(Point(prediction.mean).loss(query.targets).mean()) * split.target_scale**2


def _chance(task: Task) -> float:
    """The accuracy of answering any class of the support at random."""
    return 1 / len(set(task.support.targets.tolist()))


def _transduction(split: TaskDistribution, learner: Learner, tasks: int = 5) -> Finding:
    """Whether a query is answered the same alone and among others."""
    largest = 0.0
    for index in range(tasks):
        task, spec = split.task(index), split.spec_of(index)
        among = _values(learner.predict(learner.adapt(task.support, spec), task.query.inputs))
        for query in range(min(3, len(among))):
            state = learner.adapt(task.support, spec)
            alone = _values(learner.predict(state, task.query.inputs[query : query + 1]))
            size = float(among[query].abs().max()) + 1e-6
            largest = max(largest, float((alone[0] - among[query]).abs().max()) / size)
    seen = f"alone or among others, the answer to a query differs by up to {100 * largest:.2g} % ({tasks} tasks)"
    if largest <= PURE and learner.pointwise:
        return Finding("transduction", "ok", f"{learner.key} answers each query by itself: {seen}.")
    if largest <= PURE:
        return Finding("transduction", "ok", f"{learner.key} declares to use the other queries of a task, but {seen}.")
    if learner.pointwise:
        return Finding(
            "transduction",
            "problem",
            f"{learner.key} declares to answer each query by itself, but {seen}: its scores are not those that single "
            "queries get. Look for statistics of the query batch, such as batch normalization in training mode.",
        )
    return Finding(
        "transduction",
        "warning",
        f"{learner.key} uses the other queries of a task, as it declares: {seen}. Do not compare its scores with those "
        "of learners that answer one query at a time; with --normalization frozen it would be one.",
    )


def _values(prediction: Prediction) -> Tensor:
    return prediction.logits if isinstance(prediction, Categorical) else prediction.mean


def _points(score: Interval) -> str:
    return f"{100 * score.mean:.1f} ± {100 * score.half_width:.1f}"
