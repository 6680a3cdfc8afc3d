"""Faults of tasks: too few of them, or overlap of support and query or of splits."""

import hashlib
import math
from itertools import combinations

from torch import Tensor

from handful import streams
from handful.doctor.finding import DISTINCT_NUMBERS, Finding, names_are_classes
from handful.errors import UserError, count_of
from handful.notes import collecting
from handful.tasks.distribution import SPLITS, Split, TaskDistribution

POOLED_EXAMPLES = 1000
"""How many examples of each split are compared with those of the others."""
FEWEST_UNITS, FEWEST_CLASSES = 30, 20


def sizes(distribution: TaskDistribution) -> tuple[dict[Split, TaskDistribution], list[Finding]]:
    """The splits that tasks can be drawn from, and findings about their sizes."""
    splits: dict[Split, TaskDistribution] = {}
    findings: list[Finding] = []
    facts = []
    names = distribution.split_manifest()
    way = distribution.sizes.way
    largest = way[1] if isinstance(way, tuple) else way
    for on in SPLITS:
        split = distribution.split(on)
        try:
            with collecting() as notes:
                split.check()
                split.task(0)
        except UserError as error:
            findings.append(Finding("sizes", "problem", f"The {on} split: {error.message}", error.hint))
            continue
        findings += [Finding("sizes", "warning", f"The {on} split: {note.message}") for note in notes]
        splits[on] = split
        classes = names_are_classes(split) and len(names.get(on, []))
        if split.units is not None:
            facts.append(f"{on} {count_of(split.units, 'task')}")
            findings += _few_units(on, split.units)
        elif classes:
            facts.append(f"{on} {count_of(classes, 'class', 'classes')}")
            findings += _few_classes(on, classes, largest)
    if not findings:
        found = ", ".join(facts) or "tasks do not run out"
        findings.append(Finding("sizes", "ok", f"The splits are large enough: {found}."))
    return splits, findings


def _few_units(on: str, units: int) -> list[Finding]:
    if units >= FEWEST_UNITS:
        return []
    if on == "train":
        what = "so few hardly show what tasks have in common. Collect more tasks, or use the baselines"
    else:
        width = 1.96 / math.sqrt(max(1, units))
        what = (
            f"a score over {count_of(units, 'independent unit')} has a 95 % interval of about ± {width:.1f} standard "
            "deviations between tasks, however many draws are made. Collect more tasks, and heed the interval"
        )
    return [
        Finding(
            "sizes", "warning", f"The {on} split has {count_of(units, 'task')} (fewer than {FEWEST_UNITS}): {what}."
        )
    ]


def _few_classes(on: str, classes: int, way: int | None) -> list[Finding]:
    needed = max(FEWEST_CLASSES if on == "train" else 0, 2 * (way or 1))
    if classes >= needed:
        return []
    what = (
        "so few hardly represent new classes"
        if on == "train"
        else "its tasks repeat the same few classes, and the interval over tasks does not cover other classes"
    )
    message = f"The {on} split has {count_of(classes, 'class', 'classes')} (fewer than {needed}): {what}."
    return [Finding("sizes", "warning", message, "Add classes, or lower {way}.")]


def overlap(splits: dict[Split, TaskDistribution], tasks: int) -> Finding:
    """Query examples that are also in the support of their task."""
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
        few = numbers(splits) < DISTINCT_NUMBERS
        found = f"{same_content:,} of {drawn} equal a support example of the same task, value for value"
        if few:
            chance = "with so few numbers per example that may be chance"
            return Finding("overlap", "warning", f"{found} ({_listed(where)}): {chance}.", "If not, remove duplicates.")
        return Finding(
            "overlap",
            "problem",
            f"{found} ({_listed(where)}): scores are too good.",
            "Remove duplicates from the data, or keep them on one side ({group}).",
        )
    return Finding("overlap", "ok", f"None of {drawn} is in the support of its task, by id or by content.")


def leakage(splits: dict[Split, TaskDistribution], tasks: int) -> Finding:
    """Classes, tasks or examples that are in two splits."""
    if not splits:
        return Finding("leakage", "skipped", "No task of this size can be drawn.")
    any_split = next(iter(splits.values()))
    noun = "class" if names_are_classes(any_split) else "task"
    names: dict[str, set[str]] = {on: set(members) for on, members in any_split.split_manifest().items()}
    contents = {on: set(_pooled(split)) for on, split in splits.items()}
    ids: dict[Split, set[int]] = {on: set() for on in splits}
    classes: dict[Split, set[int]] = {on: set() for on in splits}
    for on, split in splits.items():
        for index in range(tasks):
            manifest = split.manifest(index)
            ids[on] |= {*manifest.support, *manifest.query}
            if names_are_classes(split):
                classes[on] |= set(manifest.classes)
    new = "classes" if noun == "class" else "tasks"
    way_out = f"Put each {noun} into one split only, otherwise the test does not measure new {new}."
    for one, other in combinations(SPLITS, 2):
        between = f"between {one} and {other}"
        if other in any_split.aside:
            continue
        if shared := names.get(one, set()) & names.get(other, set()):
            found = f"{count_of(len(shared), f'{noun} name')} shared {between}: {_listed(shared)}. {way_out}"
            return Finding("leakage", "problem", found)
        for what, members in (("class ids", classes), ("example ids", ids)):
            if both := members.get(one, set()) & members.get(other, set()):
                found = f"{len(both):,} {what} of {tasks} tasks per split are shared {between}. {way_out}"
                return Finding("leakage", "problem", found)
    for one, other in combinations(SPLITS, 2):
        if equal := len(contents.get(one, set()) & contents.get(other, set())):
            few = numbers(splits) < DISTINCT_NUMBERS
            return Finding(
                "leakage",
                "warning" if few else "problem",
                f"{equal:,} of up to {POOLED_EXAMPLES:,} examples drawn from each split are equal between {one} and "
                f"{other}, value for value: "
                + ("with so few numbers per example that may be chance; else remove duplicates." if few else way_out),
            )
    if not any(names.values()) and not any(ids.values()):
        return Finding("leakage", "skipped", "The tasks are generated: splits cannot share classes or examples.")
    if any_split.aside:
        return Finding(
            "leakage",
            "warning",
            f"The {new} of {' and '.join(any_split.aside)} are those of the training, with examples set aside: scores "
            f"do not show how well new {new} are learned.",
            "Add more, give other data to test on with {test}, or evaluate with {folds}.",
        )
    counts = " / ".join(str(len(names.get(on, ()))) for on in SPLITS)
    compared = f"{counts} names and {sum(map(len, ids.values())):,} example ids"
    return Finding("leakage", "ok", f"Train, val and test share no {noun} and no example ({compared} compared).")


def order(distribution: TaskDistribution) -> list[Finding]:
    """Whether rows with an order in time are divided by it; no finding without a known order."""
    if distribution.order is not None:
        return [Finding("order", "ok", "The support of each task precedes its queries in time.")]
    if not distribution.dates:
        return []
    dates = ", ".join(map(repr, distribution.dates))
    message = (
        f"The column {dates} orders the rows in time, but queries lie between the examples of their task: scores leak "
        "the future."
    )
    return [Finding("order", "warning", message, "Name it with {order}: then examples precede queries.")]


def _pooled(split: TaskDistribution) -> list[bytes]:
    pool = split.pool()
    return [] if pool is None else _hashes(pool.draw(streams.pool_sample(split.seed), POOLED_EXAMPLES).inputs)


def numbers(splits: dict[Split, TaskDistribution]) -> int:
    """The number of values of an example."""
    return math.prod(next(iter(splits.values())).spec.input_shape)


def _hashes(inputs: Tensor) -> list[bytes]:
    """A hash of the content of each example `(n, *input_shape)`; 0 and -0 are one number."""
    rows = (inputs.detach().cpu() + 0).numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def _listed(names: set[str]) -> str:
    first = sorted(names)[:5]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")
