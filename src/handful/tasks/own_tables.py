"""The user's own tables and texts as tasks."""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from handful.encoders.texts import CUT, DEFAULT, MEAN, TextEncoder
from handful.errors import DataError, UserError, named
from handful.pipelines.own_tables import LAST, ManyTablesPipeline
from handful.pipelines.pipeline import InputPipeline
from handful.pipelines.rows import RowPipeline, TablePipeline
from handful.pipelines.texts import TextPipeline
from handful.raw_batch import RawBatch
from handful.table import Table
from handful.tasks.data_options import COLUMNS, Options, checked_kind
from handful.tasks.distribution import TaskDistribution
from handful.tasks.many_tables import LabeledTables, ManyTables, open_tables
from handful.tasks.own_rows import tasks_of
from handful.tasks.splits import digests, own_order

Fit: TypeAlias = Callable[[np.ndarray, list[str] | None], InputPipeline]


def many_table_tasks(path: Path, options: Options, pipeline: ManyTablesPipeline | None) -> ManyTables | LabeledTables:
    """Tasks from a folder of tables, each of them a task; see `open_tasks`."""
    others = [name for name in COLUMNS if name not in ("target", "label", "order", "drop")]
    options.refuse("a folder of tables, each a task of its own", *others, "image_size", "inputs", "test")
    target, label = options.target, options.label
    if pipeline:  # the model's own column, unless another one is named
        label, target = _asked_of(pipeline, options)
    if not target and not label:
        raise UserError(
            f"The column to predict in the tables of {path} is not named. {LAST} stands for the last column of each.",
            hint="Name a column that all of them have with {target} (a number) or {label} (a class).",
        )
    if target and label:
        raise UserError("The column to predict is a number or a class, not both.", hint="Give {target} or {label}.")
    drop = options.drop or (pipeline.drop if pipeline else ())
    return open_tables(
        path,
        target=target,
        label=label,
        order=options.order,
        drop=drop,
        seed=options.seed,
        earlier=options.earlier,
        pipeline=pipeline,
        limits=options.limits,
        written=options,
    )


def with_own_columns(options: Options, pipeline: InputPipeline | None) -> Options:
    """The options, completed by the columns of a trained model."""
    if not isinstance(pipeline, RowPipeline):
        return options
    label, target = _asked_of(pipeline, options)
    text = options.text or (pipeline.text if isinstance(pipeline, TextPipeline) else None)
    return replace(options, label=label, target=target, task=options.task or pipeline.task, text=text)


def table_tasks(
    raw: RawBatch, test: RawBatch | None, options: Options, pipeline: InputPipeline | None
) -> TaskDistribution:
    """Tasks from one table; see `open_tasks`.

    test: of the table to test on.
    options: those of `with_own_columns`.
    """
    options.refuse("a table", "image_size", "inputs")
    raw, test = raw.taken(own_order(raw.inputs)), test and test.taken(own_order(test.inputs))
    table: Table = raw.inputs
    label, task, target, text = options.label, options.task, options.target, options.text
    model: InputPipeline | None = checked_kind(pipeline, TextPipeline if text else TablePipeline, Path(table.name))
    if isinstance(model, TablePipeline) and (label or target) in model.names:
        raise UserError(f"The model reads the column {label or target!r} as an input, so it cannot predict it.")
    _check_roles(table, label, task, target, options.order)
    columns = (label, task, target, options.group, options.order, options.split_by, text)
    table.require(filter(None, (*columns, *options.drop)))
    if label and not task and pipeline is None:
        _check_classes(table, label, raw.labels)
    wholes = table.names_in(options.split_by) if options.split_by else None
    dates = table.dates({*columns, *options.drop})
    roles = {"label": label, "target": target, "task": task, "group": options.group, "order": options.order}

    fit, reader = (_texts if text else _columns)(table, options, roles, model)

    def digested(part: RawBatch, fitted: Any) -> list[str]:
        unused = {*roles.values(), *options.drop, options.split_by}
        named = fitted.names if isinstance(fitted, TablePipeline) else table.names
        inputs = [text] if text else sorted(name for name in named if name not in unused)
        facts = filter(None, (*inputs, *roles.values(), options.split_by))
        return digests(zip(*map(part.inputs.cells, facts), strict=True))

    return tasks_of(raw, fit, digested, model, options, test=test, reader=reader, wholes=wholes, dates=dates)


def _columns(
    table: Table, options: Options, roles: dict[str, str | None], model: InputPipeline | None
) -> tuple[Fit, None]:
    """The function that fits a pipeline to a table."""
    options.refuse("a table without a text column", "encoder", "tune_encoder", "long_texts")

    def fit(train: np.ndarray, labels: list[str] | None) -> InputPipeline:
        dropped = (*options.drop, *filter(None, [options.split_by]))
        return TablePipeline.fit(table, train, **roles, labels=labels, drop=dropped)

    return fit, None


def _texts(
    table: Table, options: Options, roles: dict[str, str | None], model: InputPipeline | None
) -> tuple[Fit, TextPipeline | None]:
    """The function that fits a pipeline to texts, and the one that reads them for a trained model, perhaps from another
    column."""
    options.refuse("texts, whose other columns are passed over", "drop")
    text = options.text
    assert text, "asked before"
    if isinstance(model, TextPipeline):
        options.refuse("texts that a trained model reads with its own", "encoder", "tune_encoder", "long_texts")
        reader = copy.copy(model)
        reader.text = text
        return lambda *_: model, reader
    if text in roles.values():
        raise UserError(f"The column {text!r} cannot be the text and something else at once.")
    layers = options.tuned_layers()
    if layers != 0 and options.long_texts == MEAN:
        raise UserError(
            "A tuned encoder reads only the beginning of long texts; it does not average their parts.",
            hint="Remove {long_texts} or {tune_encoder}.",
        )
    encoder = TextEncoder(options.encoder or DEFAULT, long_texts=options.long_texts or CUT)
    encoder.device = options.device

    def fit(train: np.ndarray, labels: list[str] | None) -> InputPipeline:
        return TextPipeline.fit(table, train, text=text, encoder=encoder, layers=layers, **roles, labels=labels)

    return fit, None


def _asked_of(model: RowPipeline | ManyTablesPipeline, options: Options) -> tuple[str | None, str | None]:
    """The columns of the label and of the target, one of them None: the model's own unless another one is named."""
    if options.label if model.target else options.target:
        what, option = ("numbers", "target") if model.target else ("classes", "label")
        raise UserError(f"This model predicts {what}.", hint=f"Name the column with {named(option)}.")
    return (None, options.target or model.target) if model.target else (options.label or model.label, None)


def _check_roles(table: Table, label: str | None, task: str | None, target: str | None, order: str | None) -> None:
    columns = f"The columns of {table.name}: {', '.join(map(repr, table.names))}."
    if label and target:
        raise UserError(
            f"The column to predict is a class or a number, not both. {columns}",
            hint="Give {label} (classes) or {target} (a number).",
        )
    if not label and not target:
        raise UserError(
            f"The column to predict is not named. {columns}",
            hint=(
                "Use {label} (tasks are drawn from its classes), {task} and {label} (one task per value of {task}, "
                "with the same classes in all), or {task} and {target} (likewise, predicting a number)."
            ),
        )
    if target and not task:
        raise UserError(
            f"To predict the numbers of {target!r}, a column must name the task of each row (a customer, a shop, a "
            f"school). {columns}",
            hint="Name it with {task}.",
        )
    given = [name for name in (label or target, task, order) if name]
    if len(set(given)) < len(given):
        twice = max(given, key=given.count)
        raise UserError(f"The column {twice!r} can have only one role of task, order, label and target. {columns}")


def _check_classes(table: Table, label: str, labels: Sequence[str]) -> None:
    """Raise `DataError` if tasks cannot be drawn from these classes, but the rows may have another meaning."""
    count = len(set(labels))
    if count == 2:
        raise DataError(
            f"{table.name}, column {label!r}, has only 2 classes, too few to draw tasks from. Do all rows share these "
            f"classes?",
            code="one-class",
            hint="If so, name the column of tasks with {task} (a customer, a shop, a school).",
        )
    repeated = sum(rows >= 3 for rows in Counter(labels).values())
    if 2 * count > len(labels) and repeated < 6 and table.numeric(label):
        raise DataError(
            f"{table.name}, column {label!r}, has {count} different numbers in {len(labels)} rows, so these are not "
            f"classes.",
            hint="To predict them as numbers, name this column with {target}, and the column of tasks with {task}.",
        )
