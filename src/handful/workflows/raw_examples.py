"""Raw inputs and labels from the user's files, for a server that has the model."""

import datetime
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from handful.data_options import DataOptions
from handful.dialect import DATE
from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.raw_batch import RawBatch
from handful.readers.archives import unpacked
from handful.readers.paths import reading
from handful.readers.reader import read
from handful.readers.table_folders import single_table
from handful.table import Table
from handful.workflows.encoding import id_with

LABEL = "label"
"""The default column of labels."""


class RawExamples(NamedTuple):
    """Raw labeled examples of a file.

    inputs: texts, the bytes of images, rows as dicts of columns, or arrays.
    labels: class names, or values `(n,)` or `(n, outputs)`.
    """

    inputs: list[Any]
    labels: list[Any]


class RawInputs(NamedTuple):
    """Raw inputs of a file.

    ids: file names, or row numbers from 1.
    """

    inputs: list[Any]
    ids: list[str]


def raw_examples(
    paths: Sequence[str | Path], options: DataOptions | None = None, limits: Limits = LOCAL
) -> RawExamples:
    """The labeled examples in files and folders, one after another; `DataError` names their fault.

    options: the roles of columns and the format of files; without a label or target, the column "label" is the label.
    limits: on each file's size.
    """
    found = RawExamples([], [])
    for path in paths:
        given = options or DataOptions()
        with unpacked(path, limits) as content, reading(content):
            content = single_table(content)
            raw = read(content, options=given, labeled=True, limits=limits)
            if raw.labels is None and raw.targets is None and isinstance(raw.inputs, Table):
                given = replace(given, label=LABEL)
                _check_label(path, raw.inputs)
                raw = read(content, options=given, labeled=True, limits=limits)
            labels = raw.targets if given.target else raw.labels if raw.labels is not None else raw.targets
            if labels is None:
                raise DataError(f"{path} does not contain labeled examples.", code="missing-label")
            found.inputs.extend(_inputs(raw, given))
            found.labels.extend(labels.tolist() if hasattr(labels, "tolist") else labels)
    return found


def raw_inputs(paths: Sequence[str | Path], options: DataOptions | None = None, limits: Limits = LOCAL) -> RawInputs:
    """The inputs in files and folders, one after another; see `raw_examples`."""
    found, given = RawInputs([], []), options or DataOptions()
    for path in paths:
        with unpacked(path, limits) as content, reading(content):
            content = single_table(content)
            raw = read(content, options=given, limits=limits)
            found.inputs.extend(_inputs(raw, given))
            named = (id_with(str(path), content, id_) if len(paths) > 1 else id_ for id_ in raw.ids)
            found.ids.extend(named)
    return found


def _check_label(path: str | Path, table: Table) -> None:
    if LABEL not in table.names:
        raise DataError(
            f"{path} has no column {LABEL!r}. Its columns: {', '.join(map(repr, table.names))}.",
            code="missing-label",
            hint="Name the column with the class by {label}, or with the number to predict by {target}.",
        )


def _inputs(raw: RawBatch, options: DataOptions) -> list[Any]:
    if not isinstance(raw.inputs, Table):
        return list(raw.inputs)
    table = raw.inputs
    if options.text:
        table.require([options.text], ", the text")
        return table.sentences(options.text)
    roles = dict.fromkeys(filter(None, (options.label, options.target, *options.drop)))
    columns = {name: _cells(table, name) for name in table.names if name not in roles}
    if not columns:
        raise DataError(f"{table.name} has no columns beside {', '.join(map(repr, roles))}.")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _cells(table: Table, name: str) -> list[Any]:
    """A column as JSON values. Dates, and numbers with a decimal comma, are converted to standard form, since a single
    row does not show the format of its file."""
    if table.numeric(name) and (table.unit(name) == DATE or (table.unit(name) == "" and table.dialect.decimal == ",")):
        numbers = table.numbers(name, gaps=True).tolist()
        as_dates = table.unit(name) == DATE
        return [None if number != number else _moment(number) if as_dates else number for number in numbers]
    cells = table.cells(name)
    if all(cell is None or isinstance(cell, str | bool | int | float) for cell in cells):
        return cells
    if all(cell is None or isinstance(cell, Decimal) for cell in cells):
        return [None if cell is None else float(cell) for cell in cells]
    return table.texts(name)


def _moment(days: float) -> str:
    """Days since 1970 as a date, or as a date and time if they are not whole."""
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(days=days)
    return moment.date().isoformat() if days == int(days) else moment.isoformat(" ", "seconds")
