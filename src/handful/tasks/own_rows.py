"""What all of the user's own data become: examples, split by class or by task."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from handful.cells import class_order
from handful.errors import DataError, UserError
from handful.notes import note
from handful.pipelines.labels import class_names, class_numbers
from handful.pipelines.pipeline import InputPipeline
from handful.raw_batch import RawBatch
from handful.tasks.alike import alike
from handful.tasks.data_options import AnyPipeline, Options
from handful.tasks.distribution import SPLITS, Split, TaskDistribution, places_in_time
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.splits import by_name, split_names
from handful.tasks.task_collection import TaskCollection


def tasks_of(
    raw: RawBatch,
    fit: Callable[[np.ndarray, list[str] | None], AnyPipeline],
    digested: Callable[[AnyPipeline], list[str]],
    pipeline: AnyPipeline | None,
    options: Options,
    *,
    reader: AnyPipeline | None = None,
    wholes: list[str] | None = None,
    dates: Sequence[str] = (),
) -> TaskDistribution:
    """Tasks of labeled values: split them by class or by task, fit the pipeline to the training rows, and encode.

    fit: makes the pipeline of the training rows, and of the classes where these mean the same in all tasks.
    digested: the digests of all rows.
    pipeline: that of a trained model, in place of a fitted one.
    reader: what encodes in its place.
    wholes: of each row, what no split may divide.
    dates: the columns that hold dates and have no role.
    """
    labels = None if raw.labels is None else class_names(raw.labels, raw.named("label"))
    tasks = None if raw.tasks is None else class_names(raw.tasks, raw.named("task"))
    groups = None if raw.groups is None else class_names(raw.groups, raw.named("group"))
    classes = class_order(labels or ())
    if labels:
        check_several(classes, raw.called("label"))
    names = classes if tasks is None else sorted(set(tasks))
    units = class_numbers((labels or ()) if tasks is None else tasks, names)
    if groups and raw.order is not None:
        raise UserError(
            "Tasks are divided by groups or by an order, not by both.", hint="Leave out {group} or {order}."
        )
    grouped = None if groups is None else class_numbers(groups, sorted(set(groups)))
    order = None if raw.order is None else places_in_time(raw.order)
    noun = "class" if tasks is None else "task"
    merged = raw.splits is not None and _merged(names, units, raw)
    if pipeline and options.splits is None:
        splits = everywhere(len(names))
    elif raw.splits and not merged:
        splits = _as_given(names, units, raw, options)
    elif wholes:
        splits = _split_whole(units, names, wholes, options, noun)
    else:
        splits = split_names(names, options.seed, options.splits, noun=noun)
    if pipeline is None:
        train = np.flatnonzero(np.isin(units.numpy(), splits["train"]))
        pipeline = fit(train, classes if labels and tasks else None)
        if raw.targets is not None:
            _note_constant(pipeline.targets, np.asarray(raw.targets)[train])
    inputs = (reader or pipeline).stored(raw.inputs, options.limits, raw.origin)
    if merged:
        grouped = alike(inputs, units, raw.ids)
    contents = by_name([names[unit] for unit in units.tolist()], digested(pipeline))
    if tasks is None:
        pool = LabeledPool(
            inputs, units, names, splits=splits, groups=grouped, order=order, seed=options.seed, copy=False
        )
        return _completed(pool, contents, pipeline, dates)
    if labels:
        pipeline.check_labels(classes, raw.called("label"))
        classes = pipeline.labels or classes
        targets = class_numbers(labels, classes)
    else:
        pipeline.check_unit(raw)
        targets = pipeline.scaled(raw.targets)
    collection = TaskCollection(
        inputs,
        targets,
        units,
        names,
        splits=splits,
        classes=len(classes) if labels else None,
        groups=grouped,
        order=order,
        pipeline=pipeline,
        seed=options.seed,
        copy=False,
    )
    return _completed(collection, contents, pipeline, dates)


def _merged(names: Sequence[str], units: Tensor, raw: RawBatch) -> bool:
    """Whether some class is in more than one of the splits that the data have, which then do not count, with a note."""
    placed = {*zip(units.tolist(), raw.splits or (), strict=True)}
    shared = [unit for unit, parts in Counter(unit for unit, _ in placed).items() if parts > 1]
    if shared:
        note(
            "merged",
            f"{raw.called('label')}: some classes are in more than one of train, val and test, such as "
            f"{names[min(shared)]!r}. Tasks are tested on classes never trained on, so the parts are read as one, and "
            "the classes are split anew.",
            count=len(shared),
        )
    return bool(shared)


def _as_given(names: Sequence[str], units: Tensor, raw: RawBatch, options: Options) -> dict[Split, list[int]]:
    """The splits that the data have; a fifth of the training classes is what they lack, val or test."""
    source = raw.called("label")
    on_of = dict(zip(units.tolist(), raw.splits or (), strict=True))
    splits: dict[Split, list[int]] = {on: [unit for unit in range(len(names)) if on_of[unit] == on] for on in SPLITS}
    lacking: list[tuple[Split, tuple[float, float]]] = [("val", (0.8, 0.2)), ("test", (0.8, 0.0))]
    for on, fractions in lacking:
        if splits[on] and splits["train"]:
            continue
        train = splits["train"]
        if len(train) < 2:
            few = "one training class only" if train else "no training classes"
            raise DataError(
                f"{source}: {few}. Add classes to train{'' if splits[on] else f', or a folder {on}'}.", code="one-class"
            )
        parts = split_names([names[unit] for unit in train], options.seed, options.splits, fractions=fractions)
        splits["train"], splits[on] = ([train[place] for place in parts[part]] for part in ("train", on))
    return splits


def _split_whole(
    units: Tensor, names: list[str], wholes: list[str], options: Options, noun: str
) -> dict[Split, list[int]]:
    """The classes or tasks of each split, where all those of one whole are in the same one."""
    whole_of: dict[int, str] = {}
    for unit, whole in zip(units.tolist(), wholes, strict=True):
        if whole_of.setdefault(unit, whole) != whole:
            raise DataError(
                f"The {noun} {names[unit]!r} is in two values of the column to split by, {whole_of[unit]!r} and "
                f"{whole!r}, so that no split can hold one of them alone. Split by another column."
            )
    values = sorted(set(wholes))
    earlier = options.splits
    if earlier is not None:  # a whole is where those of it are that there were
        earlier = {whole_of[unit]: on for unit in whole_of if (on := earlier.get(names[unit]))}
    parts = split_names(values, options.seed, earlier, noun="value to split by")
    placed = {values[place]: on for on, places in parts.items() for place in places}
    return {on: [unit for unit, whole in whole_of.items() if placed[whole] == on] for on in SPLITS}


def _note_constant(names: Sequence[str], targets: np.ndarray) -> None:
    """Make a note of targets `(n,)` or `(n, outputs)` that never change."""
    for name, column in zip(names, targets.reshape(len(targets), -1).T, strict=True):
        if np.ptp(column) == 0:
            note(
                "constant-target",
                f"The target {name!r} is {column[0]:g} in all rows that are trained on: there is nothing to predict.",
            )


def check_several(names: Sequence[str], origin: object) -> None:
    """Raise a `DataError` where there is one class only."""
    if len(names) < 2:
        raise DataError(
            f"{origin} has one class only ({names[0]!r}): there is nothing to tell apart. Add classes.",
            code="one-class",
        )


def everywhere(count: int) -> dict[Split, list[int]]:
    """All classes or tasks in each split: of a source that nothing is trained on."""
    return {on: list(range(count)) for on in SPLITS}


def _completed(
    tasks: TaskDistribution, digests: Mapping[str, list[str]], pipeline: InputPipeline, dates: Sequence[str]
) -> TaskDistribution:
    """The tasks, which take the digests of their examples, what made their inputs, and columns of dates."""
    tasks.digests, tasks.pipeline, tasks.dates = digests, pipeline, tuple(dates)
    return tasks
