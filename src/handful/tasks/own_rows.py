"""The user's own data as examples, split by class or by task."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from handful.cells import class_order
from handful.dialect import DATE
from handful.errors import DataError, UserError
from handful.notes import note
from handful.pipelines.labels import class_names, class_numbers
from handful.pipelines.pipeline import InputPipeline
from handful.raw_batch import RawBatch
from handful.tasks.alike import alike
from handful.tasks.data_options import AnyPipeline, Options
from handful.tasks.distribution import SPLITS, Split, TaskDistribution, places_in_time
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.splits import FEWEST, FRACTIONS, set_aside, split_names
from handful.tasks.task_collection import TaskCollection

LACKING: dict[tuple[Split, ...], tuple[float, float]] = {
    (): (1.0, 0.0),
    ("val", "test"): FRACTIONS,
    ("val",): (0.8, 0.2),
    ("test",): (0.8, 0.0),
}
"""The shares of train and val if the data are not already split; the rest is test."""


class Division(NamedTuple):
    """The division of the examples into splits.

    names: of the classes, or tasks.
    units: `(n,)` the class, or task, of each example.
    splits: the classes, or tasks, of each split.
    merged: whether some are in several parts of the data, which are then ignored.
    aside: the splits for which examples of training classes are set aside. They then count as separate classes of the
        same names.
    """

    names: list[str]
    units: Tensor
    splits: dict[Split, list[int]]
    merged: bool = False
    aside: tuple[Split, ...] = ()

    @property
    def trained(self) -> np.ndarray:
        """The training examples."""
        return np.flatnonzero(np.isin(self.units.numpy(), self.splits["train"]))

    def with_examples_aside(
        self, options: Options, digests: Sequence[str], *, groups: Tensor | None = None, order: Tensor | None = None
    ) -> "Division":
        """Examples set aside, see `set_aside`, or as an earlier run did, identified by their digests. Those of a group,
        or of a moment, stay together; without either, equal ones do.
        """
        keys: Sequence[Any] = next((column.tolist() for column in (order, groups) if column is not None), digests)
        rows = self.trained
        units, own = self.units[rows].tolist(), [keys[row] for row in rows]
        earlier = None
        if options.earlier and options.earlier.own:
            known = {
                (name, digest): on
                for on in ("train", *self.aside)
                for name, found in options.earlier.splits[on].items()
                for digest in found
            }
            split_of = (known.get((self.names[unit], digests[row])) for unit, row in zip(units, rows, strict=True))
            earlier = {(unit, key): on for unit, key, on in zip(units, own, split_of, strict=True) if on}
        where = set_aside(units, own, self.aside, options.seed, ordered=order is not None, earlier=earlier)
        number = {on: place for place, on in enumerate(("train", *self.aside))}
        changed = self.units.clone()
        changed[rows] += len(self.names) * torch.tensor([number[on] for on in where])
        held = set(changed.tolist())
        classes = self.splits["train"]
        splits = self.splits | {
            on: [one for unit in classes if (one := unit + len(self.names) * number[on]) in held] for on in number
        }
        if not all(splits[on] for on in self.aside):
            raise DataError(
                f"The classes or tasks are too few to hold some out, and their examples too few to set some aside: "
                f"each class needs {2 * len(number)} different "
                f"ones{', in different groups' if groups is not None else ''}.",
                code="too-few-examples",
                hint="Add examples, or give other data to test on with {test}.",
            )
        return self._replace(names=self.names * len(number), units=changed, splits=splits)

    def with_test(self, named: Sequence[str]) -> "Division":
        """With more examples, of these classes or tasks, which are the test split."""
        names = class_order(named)
        numbers = class_numbers(named, names) + len(self.names)
        splits = self.splits | {"test": sorted(set(numbers.tolist()))}
        return self._replace(names=self.names + names, units=torch.cat([self.units, numbers]), splits=splits)


def tasks_of(
    raw: RawBatch,
    fit: Callable[[np.ndarray, list[str] | None], AnyPipeline],
    digested: Callable[[RawBatch, AnyPipeline | None], list[str]],
    pipeline: AnyPipeline | None,
    options: Options,
    *,
    test: RawBatch | None = None,
    reader: AnyPipeline | None = None,
    wholes: list[str] | None = None,
    dates: Sequence[str] = (),
) -> TaskDistribution:
    """Tasks of labeled values: split them by class or by task, fit the pipeline to the training rows, and encode.

    fit: fits the pipeline to the training rows, and to the classes if all tasks share them.
    digested: computes the digests of all rows; before a pipeline is fitted, from all columns that may become inputs.
    pipeline: that of a trained model, in place of a fitted one.
    test: more values, all of the test split.
    reader: encodes in its place.
    wholes: for each row, the unit that no split may divide.
    dates: the columns that contain dates and have no role.
    """
    parts, count = [raw] if test is None else [raw, test], len(raw.ids)
    labels, tasks, groups = (_names(parts, role) for role in ("label", "task", "group"))
    classes = class_order(labels[:count] if labels else ())
    if labels:
        check_several(classes, raw.called("label"))
    if tasks and pipeline is None:
        check_several(sorted(set(tasks[:count])), raw.called("task"), "task")
    if groups and raw.order is not None:
        raise UserError("Use either groups or an order to divide tasks, not both.", hint="Remove {group} or {order}.")
    grouped = None if groups is None else class_numbers(groups, sorted(set(groups)))
    times = _given(parts, "order")
    order = places_in_time(np.concatenate(times)) if times else None
    named = (labels or ()) if tasks is None else tasks
    division = _divided(raw, named[:count], options, pipeline, wholes, "class" if tasks is None else "task")
    if division.aside and not division.merged:
        division = division.with_examples_aside(options, digested(raw, pipeline), groups=grouped, order=order)
    if pipeline is None:
        pipeline = fit(division.trained, classes if labels and tasks else None)
        if raw.targets is not None:
            _note_constant(pipeline.targets, np.asarray(raw.targets)[division.trained])
        if raw.unit == DATE:
            note(
                "date-target",
                f"The target {pipeline.targets[0]!r} is a date: predictions and scores are in days since 1970-01-01.",
            )
    stored = [(reader or pipeline).stored(part.inputs, options.limits, part.origin) for part in parts]
    inputs = stored[0] if test is None else torch.cat(stored)
    if division.merged:
        grouped = alike(stored[0], division.units, raw.ids)
        if division.aside:
            division = division.with_examples_aside(options, digested(raw, pipeline), groups=grouped)
        if grouped is not None and test is not None:
            grouped = torch.cat([grouped, int(grouped.max()) + 1 + torch.arange(len(test.ids))])
    if test is not None:
        division = division.with_test(named[count:])
    made: LabeledPool | TaskCollection
    if tasks is None:
        made = LabeledPool(
            inputs,
            division.units,
            division.names,
            splits=division.splits,
            groups=grouped,
            order=order,
            seed=options.seed,
            copy=False,
        )
    else:
        if labels:
            pipeline.check_labels(class_order(labels), parts[-1].called("label"))
            classes = pipeline.labels or classes
            targets = class_numbers(labels, classes)
        else:
            for part in parts:
                pipeline.check_unit(part)
            targets = pipeline.scaled(np.concatenate(_given(parts, "targets")))
        made = TaskCollection(
            inputs,
            targets,
            division.units,
            division.names,
            splits=division.splits,
            classes=len(classes) if labels else None,
            groups=grouped,
            order=order,
            pipeline=pipeline,
            seed=options.seed,
            copy=False,
        )
    made.pipeline, made.dates, made.aside = pipeline, tuple(dates), division.aside
    of_unit: dict[int, list[str]] = {}
    of_all = [digest for part in parts for digest in digested(part, pipeline)]
    for unit, digest in zip(division.units.tolist(), of_all, strict=True):
        of_unit.setdefault(unit, []).append(digest)
    made.digests = {
        on: {division.names[unit]: of_unit[unit] for unit in units} for on, units in division.splits.items()
    }
    if test is not None:
        seen = set(of_all[:count])
        if known := sum(digest in seen for digest in of_all[count:]):
            note("known-test-examples", f"{options.test} contains an example of the training data.", count=known)
    return made


def _given(parts: Sequence[RawBatch], what: str) -> list[Any]:
    """The labels, targets, tasks, groups or order of each part; none if the first has none."""
    found = [getattr(part, what) for part in parts]
    if found[0] is None:
        return []
    for own in found:
        if own is None:
            raise DataError(f"The test data have no {what}, unlike the training data.", field=("test",))
    return found


def _names(parts: Sequence[RawBatch], role: str) -> tuple[str, ...] | None:
    """The labels, tasks or groups of all examples; None if they have none."""
    given = _given(parts, f"{role}s")
    pairs = zip(parts, given, strict=False)
    return tuple(name for part, own in pairs for name in class_names(own, part.named(role))) if given else None


def _divided(
    raw: RawBatch,
    named: Sequence[str],
    options: Options,
    pipeline: InputPipeline | None,
    wholes: list[str] | None,
    noun: str,
) -> Division:
    """The splits of the `named` classes or tasks. If an exact cut leaves too few for a split, all are trained on, and
    examples are to be set aside.
    """
    names = class_order(named) if noun == "class" else sorted(set(named))
    units = class_numbers(named, names)
    merged = raw.splits is not None and _merged(names, units, raw)
    if pipeline and options.earlier is None:
        return Division(names, units, everywhere(len(names)), merged)
    if wholes:
        return Division(names, units, _split_whole(units, names, wholes, options, noun), merged)
    brought = {} if merged or raw.splits is None else _brought(names, units, raw, options)
    there = {*brought.values(), *(["test"] if options.test else [])}
    lacking: tuple[Split, ...] = tuple(on for on in SPLITS[1:] if on not in there)
    if options.earlier:
        aside = tuple(
            on for on in lacking if options.earlier.splits["train"].keys() & options.earlier.splits[on].keys()
        )
        # A new name goes where the data have it, or to the others that are all trained on, or where its hash says.
        others: dict[str, Split] = dict.fromkeys(names, "train") if aside else {}
        placed = others | brought | _placed(options)
        splits = split_names(names, options.seed, placed, fractions=LACKING[lacking])
        return Division(names, units, splits, merged, aside)
    train = [unit for unit, name in enumerate(names) if brought.get(name, "train") == "train"]
    if noun == "class" and len(train) < 2:
        few = "one training class only" if train else "no training classes"
        raise DataError(f"{raw.called('label')}: {few}. Add classes to train.", code="one-class")
    splits = {on: [unit for unit, name in enumerate(names) if brought.get(name) == on] for on in SPLITS}
    splits["train"] = train
    if not lacking:
        return Division(names, units, splits)
    if len(train) >= FEWEST[noun] + len(lacking):
        cut = split_names([names[unit] for unit in train], options.seed, fractions=LACKING[lacking], noun=noun)
        if all(len(cut[on]) >= FEWEST[noun] for on in lacking):
            splits |= {on: [train[place] for place in cut[on]] for on in cut if on == "train" or on in lacking}
            return Division(names, units, splits, merged)
    role, plural = ("label", "classes") if noun == "class" else ("task", "tasks")
    held_out = " and ".join({"val": "validation", "test": "test"}[on] for on in lacking)
    note(
        "nothing-held-out",
        f"{raw.called(role)} has {len(train)} {plural}, too few to hold some out for {held_out}. Training uses all of "
        f"them, with a fifth of the examples of each set aside; their scores do not show how well new {plural} are "
        f"learned." + (" For that, give other data to test on, or evaluate in folds." if "test" in lacking else ""),
    )
    return Division(names, units, splits, merged, lacking)


def _brought(names: Sequence[str], units: Tensor, raw: RawBatch, options: Options) -> dict[str, Split]:
    """The split of each class in data with parts; their test part trains, too, if other data are the test."""
    found: dict[str, Split] = {}
    for unit, on in zip(units.tolist(), raw.splits or (), strict=True):
        found[names[unit]] = "train" if on == "test" and options.test else cast(Split, on)
    return found


def _placed(options: Options) -> dict[str, Split]:
    """The split of each class or task in an earlier run, without those of other test data."""
    if options.earlier is None:
        return {}
    own: tuple[Split, ...] = ("train", "val") if options.test else SPLITS
    return {name: on for on in reversed(own) for name in options.earlier.splits[on]}


def _merged(names: Sequence[str], units: Tensor, raw: RawBatch) -> bool:
    """Whether some class is in more than one part of the data, which are then ignored, with a note."""
    placed = {*zip(units.tolist(), raw.splits or (), strict=True)}
    shared = [unit for unit, parts in Counter(unit for unit, _ in placed).items() if parts > 1]
    if shared:
        note(
            "merged",
            f"{raw.called('label')}: some classes are in more than one of train, val and test, such as "
            f"{names[min(shared)]!r}. Tests need classes that are not trained on, so the parts are merged, and the "
            f"classes are split again.",
            count=len(shared),
        )
    return bool(shared)


def _split_whole(
    units: Tensor, names: list[str], wholes: list[str], options: Options, noun: str
) -> dict[Split, list[int]]:
    """The classes or tasks of each split, keeping those of one unit (`wholes`) together."""
    whole_of: dict[int, str] = {}
    for unit, whole in zip(units.tolist(), wholes, strict=True):
        if whole_of.setdefault(unit, whole) != whole:
            raise DataError(
                f"The {noun} {names[unit]!r} has two values of the column to split by, {whole_of[unit]!r} and "
                f"{whole!r}, so these cannot be separated. Split by another column."
            )
    values = sorted(set(wholes))
    earlier, placed_names = None, _placed(options)
    if options.earlier:  # a whole is where those of it are that there were
        earlier = {whole_of[unit]: on for unit in whole_of if (on := placed_names.get(names[unit]))}
    shares = LACKING[("val",) if options.test else ("val", "test")]
    parts = split_names(values, options.seed, earlier, fractions=shares, noun="value to split by")
    placed = {values[place]: on for on, places in parts.items() for place in places}
    return {on: [unit for unit, whole in whole_of.items() if placed[whole] == on] for on in SPLITS}


def _note_constant(names: Sequence[str], targets: np.ndarray) -> None:
    """Make a note of targets `(n,)` or `(n, outputs)` that never change."""
    for name, column in zip(names, targets.reshape(len(targets), -1).T, strict=True):
        if np.ptp(column) == 0:
            note(
                "constant-target",
                f"The target {name!r} is {column[0]:g} in all training rows, so nothing can be predicted.",
            )


def check_several(names: Sequence[str], origin: object, noun: str = "class") -> None:
    """Raise `DataError` for a single class or task."""
    if len(names) < 2:
        more = "distinguish. Add classes" if noun == "class" else "learn that tasks have in common. Add tasks"
        raise DataError(f"{origin} has only one {noun} ({names[0]!r}): nothing to {more}.", code="one-class")


def everywhere(count: int) -> dict[Split, list[int]]:
    """All classes or tasks in each split, for a source without training."""
    return {on: list(range(count)) for on in SPLITS}
