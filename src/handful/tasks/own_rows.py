"""The user's own tables, texts and arrays as tasks."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from handful.cells import class_order, note_case
from handful.encoders import DEFAULT, Encoder
from handful.errors import DataError, UserError, named
from handful.notes import note
from handful.pipelines.arrays import ArrayPipeline, array_names, array_targets
from handful.pipelines.own_tables import LAST, ManyTablesPipeline
from handful.pipelines.pipeline import InputPipeline, numbers
from handful.pipelines.rows import RowPipeline, TablePipeline
from handful.pipelines.texts import TextPipeline
from handful.readers.arrays import read_arrays
from handful.readers.tables import read_table
from handful.table import Table
from handful.tasks.data_options import COLUMNS, AnyPipeline, Options, checked_kind
from handful.tasks.distribution import SPLITS, Split, TaskDistribution
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.many_tables import LabeledTables, ManyTables, open_tables
from handful.tasks.splits import by_name, digests, split_names
from handful.tasks.task_collection import TaskCollection

# Tables


def many_table_tasks(path: Path, options: Options, pipeline: ManyTablesPipeline | None) -> ManyTables | LabeledTables:
    """Tasks from a folder of tables, each a task of its own; see `open_tasks`."""
    others = [name for name in COLUMNS if name not in ("target", "label", "drop")]
    options.refuse("a folder of tables, each a task of its own", *others, "image_size")
    target, label = options.target, options.label
    if pipeline:  # the model's own column, unless another one is named
        label, target = _asked_of(pipeline, options)
    if not target and not label:
        raise UserError(
            f"What to predict from the tables of {path} is not given. {LAST} stands for the last column of each.",
            hint="Name a column that all of them have with {target} (a number) or {label} (a class).",
        )
    if target and label:
        raise UserError("Tables predict a number or a class, not both.", hint="Give {target} or {label}.")
    drop = options.drop or (pipeline.drop if pipeline else ())
    return open_tables(
        path,
        target=target,
        label=label,
        drop=drop,
        seed=options.seed,
        placed=options.splits,
        pipeline=pipeline,
        limits=options.limits,
    )


def table_tasks(path: Path, options: Options, pipeline: InputPipeline | None) -> TaskDistribution:
    """Tasks from one table; see `open_tasks`."""
    options.refuse("a table", "image_size")
    table = read_table(path, options.limits)
    label, task, target, text = options.label, options.task, options.target, options.text
    model: RowPipeline | None = None
    if pipeline is not None:  # the model's own columns, unless others are named
        model = checked_kind(
            pipeline, TextPipeline if text or isinstance(pipeline, TextPipeline) else TablePipeline, path
        )
        assert model is not None
        label, target = _asked_of(model, options)
        task = task or model.task
        column = label or target
        if isinstance(model, TablePipeline) and column in model.names:
            raise UserError(f"The model reads the column {column!r} as an input, so it cannot be asked to predict it.")
    _check_roles(table, label, task, target)
    columns = (label, task, target, options.group, options.order, options.split_by, text)
    table.require(filter(None, (*columns, *options.drop)))
    labels = table.names_in(label) if label else None
    if label and labels and not task and pipeline is None:
        _check_classes(table, label, labels)
    rows = _Rows(
        f"{path}, column {label!r}," if label else str(path),
        labels=labels,
        values=table.numbers(target) if target else None,
        tasks=table.names_in(task) if task else None,
        groups=table.names_in(options.group) if options.group else None,
        wholes=table.names_in(options.split_by) if options.split_by else None,
        order=table.numbers(options.order) if options.order else None,
        dates=[name for name in table.names if name not in {*columns, *options.drop} and table.dated(name)],
    )
    roles = {"label": label, "target": target, "task": task, "group": options.group}
    if text or isinstance(model, TextPipeline):
        return _texts(table, rows, options, roles, cast(TextPipeline | None, model))

    def fit(train: np.ndarray, labels: list[str] | None) -> TablePipeline:
        dropped = (*options.drop, *filter(None, [options.split_by, options.order]))
        return TablePipeline.fit(table, train, **roles, labels=labels, drop=dropped)

    options.refuse("a table without a text column", "encoder")

    def digested(fitted: TablePipeline) -> list[str]:
        return _table_digests(table, *fitted.names, *roles.values(), options.split_by, options.order)

    return _of_rows(
        rows, fit, lambda fitted: fitted.encode(table), digested, cast(TablePipeline | None, model), options
    )


def _texts(
    table: Table, rows: "_Rows", options: Options, roles: dict[str, str | None], model: TextPipeline | None
) -> TaskDistribution:
    options.refuse("texts, whose other columns are passed over", "drop")
    if model is None:
        assert options.text, "asked before"
        if options.text in roles.values():
            raise UserError(f"The column {options.text!r} cannot be the text and something else at once.")
        text, encoder = options.text, Encoder(options.encoder or DEFAULT)

        def fit(train: np.ndarray, labels: list[str] | None) -> TextPipeline:
            return TextPipeline.fit(table, train, text=text, encoder=encoder, **roles, labels=labels)

        return _of_rows(
            rows,
            fit,
            lambda fitted: fitted.encode(table),
            lambda _: _table_digests(table, text, *roles.values(), options.split_by, options.order),
            None,
            options,
        )
    options.refuse("texts that a trained model reads with its own", "encoder")
    reader = copy.copy(model)
    reader.text = options.text or model.text
    return _of_rows(
        rows,
        lambda *_: model,
        lambda _: reader.encode(table),
        lambda _: _table_digests(table, reader.text, *roles.values(), options.split_by, options.order),
        model,
        options,
    )


def _table_digests(table: Table, *columns: str | None) -> list[str]:
    """The digests of the rows `(rows,)`, of what these columns hold."""
    return digests(zip(*(table.cells(name) for name in columns if name), strict=True))


def _asked_of(model: RowPipeline | ManyTablesPipeline, options: Options) -> tuple[str | None, str | None]:
    """The columns of the label and of the target, one of them None: the model's own unless another one is named."""
    if options.label if model.target else options.target:
        what, option = ("numbers", "target") if model.target else ("classes", "label")
        raise UserError(f"This model predicts {what}.", hint=f"Name the column with {named(option)}.")
    return (None, options.target or model.target) if model.target else (options.label or model.label, None)


def _check_roles(table: Table, label: str | None, task: str | None, target: str | None) -> None:
    columns = f"The columns of {table.name}: {', '.join(map(repr, table.names))}."
    if label and target:
        raise UserError(
            f"A table predicts classes or a number, not both. {columns}",
            hint="Give {label} (classes) or {target} (a number).",
        )
    if not label and not target:
        raise UserError(
            f"What to predict from a table is not given. {columns}",
            hint="Name a column with {label} (tasks are drawn from its classes), one each with {task} and {label} (one "
            "task per value of the first, with classes that mean the same in all), or one each with {task} and "
            "{target} (the same, predicting a number).",
        )
    if target and not task:
        raise UserError(
            f"To predict the numbers of {target!r}, a column must tell which task a row belongs to (a customer, a "
            f"shop, a school). {columns}",
            hint="Name it with {task}.",
        )
    given = [name for name in (label, task, target) if name]
    if len(set(given)) < len(given):
        raise UserError(f"The column {given[0]!r} cannot be the task and the label or target at once. {columns}")


def _check_classes(table: Table, label: str, labels: Sequence[str]) -> None:
    """Raise a `DataError` where tasks cannot be drawn from these classes, but the rows may be meant otherwise."""
    count = len(set(labels))
    if count == 2:
        raise DataError(
            f"{table.name}, column {label!r}, has 2 classes only, too few to draw tasks of. Do they mean the same in "
            "all rows?",
            code="one-class",
            hint="Then name with {task} the column that tells the tasks apart (a customer, a shop, a school).",
        )
    repeated = sum(rows >= 3 for rows in Counter(labels).values())
    if 2 * count > len(labels) and repeated < 6 and table.numeric(label):
        raise DataError(
            f"{table.name}, column {label!r}, has {count} different numbers in {len(labels)} rows, which are no "
            "classes.",
            hint="To predict them as numbers, name this column with {target}, and with {task} the one that tells the "
            "tasks apart.",
        )


# Arrays


def array_tasks(path: Path, options: Options, pipeline: ArrayPipeline | None) -> TaskDistribution:
    """Tasks from an npz file; see `open_tasks`."""
    options.refuse("an npz file, whose keys tell", *COLUMNS, "image_size")
    arrays = read_arrays(path, options.limits)
    labeled, valued = "labels" in arrays, "targets" in arrays
    if labeled == valued:
        raise DataError(f"{path} needs either 'labels' (classes) or 'targets' (numbers) beside 'inputs'.")
    if valued and "task" not in arrays:
        raise DataError(f"{path} has 'targets' but no 'task': add an array that tells which task each row belongs to.")
    if pipeline is not None and bool(pipeline.outputs) != valued:
        raise UserError(f"The model predicts {'numbers' if pipeline.outputs else 'classes'}, but {path} does not.")
    rows = _Rows(
        f"{path}, 'labels'," if labeled else str(path),
        labels=array_names(path, arrays, "labels") if labeled else None,
        values=array_targets(path, arrays) if valued else None,
        tasks=array_names(path, arrays, "task") if "task" in arrays else None,
        groups=array_names(path, arrays, "group") if "group" in arrays else None,
        order=numbers(arrays["order"], f"{path}, 'order'") if "order" in arrays else None,
    )
    inputs = arrays["inputs"]

    def fit(train: np.ndarray, labels: list[str] | None) -> ArrayPipeline:
        group = "group" if rows.groups is not None else None
        return ArrayPipeline.fit(inputs, train, labels=labels, targets=rows.values, group=group)

    def digested(_: ArrayPipeline) -> list[str]:
        facts = [arrays[key].tolist() for key in sorted(arrays) if key != "inputs"]
        return digests(zip((row.tobytes() for row in inputs), *facts, strict=True))

    return _of_rows(rows, fit, lambda fitted: fitted.stored(inputs), digested, pipeline, options)


# What tables and arrays share


@dataclass(frozen=True)
class _Rows:
    """What a file says of each of its rows. labels or values: what is predicted. wholes: what no split may divide.
    order: what comes first. dates: the columns that hold dates and have no role."""

    origin: str
    labels: list[str] | None
    values: np.ndarray | None
    tasks: list[str] | None
    groups: list[str] | None
    wholes: list[str] | None = None
    order: np.ndarray | None = None
    dates: Sequence[str] = ()


def _of_rows(
    rows: _Rows,
    fit: Callable[[np.ndarray, list[str] | None], AnyPipeline],
    encode: Callable[[AnyPipeline], Tensor],
    digested: Callable[[AnyPipeline], list[str]],
    pipeline: AnyPipeline | None,
    options: Options,
) -> TaskDistribution:
    """Tasks from rows: split by class or by task, fit the pipeline to the training rows unless there is one, encode."""
    labels = class_order(rows.labels or [])
    if rows.labels:
        check_several(labels, rows.origin)
        note_case(labels, rows.origin)
    names = labels if rows.tasks is None else sorted(set(rows.tasks))
    units = _numbers_of((rows.labels or []) if rows.tasks is None else rows.tasks, names)
    groups = None if rows.groups is None else _numbers_of(rows.groups, sorted(set(rows.groups)))
    order = None if rows.order is None else torch.from_numpy(np.unique(rows.order, return_inverse=True)[1].reshape(-1))
    if rows.groups and order is not None:
        raise UserError(
            "Tasks are divided by groups or by an order, not by both.", hint="Leave out {group} or {order}."
        )
    if rows.dates and order is None and pipeline is None:
        warn_of_future(rows.dates)
    noun = "class" if rows.tasks is None else "task"
    seed = options.seed
    if pipeline and options.splits is None:
        splits = everywhere(len(names))
    elif rows.wholes:
        splits = _split_whole(units, names, rows.wholes, options, noun)
    else:
        splits = split_names(names, seed, options.splits, noun=noun)
    if pipeline is None:
        train = np.flatnonzero(np.isin(units.numpy(), splits["train"]))
        pipeline = fit(train, labels if rows.labels and rows.tasks else None)
    inputs = encode(pipeline)
    contents = by_name([names[unit] for unit in units.tolist()], digested(pipeline))
    if rows.tasks is None:
        pool = LabeledPool(inputs, units, names, splits=splits, groups=groups, order=order, seed=seed, copy=False)
        return completed(pool, contents, pipeline, dates=rows.dates)
    if rows.values is not None:
        targets = pipeline.scaled(rows.values)
    else:
        pipeline.check_labels(labels, rows.origin)
        targets = _numbers_of(rows.labels or [], pipeline.labels or labels)
    classes = None if rows.labels is None else len(pipeline.labels or labels)
    collection = TaskCollection(
        inputs,
        targets,
        units,
        names,
        splits=splits,
        classes=classes,
        groups=groups,
        order=order,
        pipeline=pipeline,
        seed=seed,
        copy=False,
    )
    return completed(collection, contents, pipeline, dates=rows.dates)


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
    return {on: [unit for unit in whole_of if values.index(whole_of[unit]) in parts[on]] for on in SPLITS}


def _numbers_of(values: list[str], names: list[str]) -> Tensor:
    """The place of each value among the names: `(n,)`."""
    places = {name: place for place, name in enumerate(names)}
    return torch.tensor([places[value] for value in values])


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


def warn_of_future(dates: Sequence[str]) -> None:
    """Warn of columns of dates that do not order the rows."""
    listed = ", ".join(map(repr, dates))
    note(
        "future-leaks",
        f"The column {listed} holds dates, but support and query rows are drawn without regard to them: queries lie "
        "between examples in time, and scores leak the future. Name the column by which examples precede queries.",
    )


def completed(
    tasks: TaskDistribution, digests: Mapping[str, list[str]], pipeline: InputPipeline, dates: Sequence[str] = ()
) -> TaskDistribution:
    """The tasks, which take the digests of their examples, what made their inputs, and columns of dates."""
    tasks.digests, tasks.pipeline, tasks.dates = digests, pipeline, tuple(dates)
    return tasks
