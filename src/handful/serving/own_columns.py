"""Tasks whose tables have columns of their own: only rows are kept of their examples, which are encoded together."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from handful.errors import DataError, nearest_of
from handful.models.meta_model import MetaModel
from handful.pipelines.own_tables import ManyTablesPipeline
from handful.serving.inputs import Given
from handful.serving.records import Example

MOST_COLUMNS = 1_000
"""So many columns the rows of a task have at most: every version of it keeps a layout of them."""

NOTHING = b""
"""What is kept as the encoding of such an example: it depends on all others of its version."""


def own_columns(model: MetaModel) -> bool:
    """Whether each task of a model has columns of its own."""
    return model.pipeline is not None and model.pipeline.per_task


def of_task(model: MetaModel, examples: Sequence[Example]) -> MetaModel:
    """A model with the pipeline for the inputs of the task with these examples, whatever their order.

    Raises `DataError` for rows that make no table; its field is ("inputs", place among the examples, column).
    """
    pipeline = model.pipeline
    if not isinstance(pipeline, ManyTablesPipeline):
        return model
    rows = [row_of(example) for example in examples]
    columns = set().union(*rows)
    if len(columns) > MOST_COLUMNS:
        raise DataError(
            f"The rows of the task have {len(columns):,} columns; at most {MOST_COLUMNS:,} are allowed.",
            code="input-too-large",
            field=("inputs",),
        )
    labels = [json.loads(one.label)[0] if pipeline.targets else one.label for one in examples]
    places = sorted(range(len(examples)), key=lambda place: (examples[place].content, examples[place].label))
    try:
        return model.with_pipeline(pipeline.of_rows(rows, labels, places))
    except DataError as error:
        if "{drop}" in error.hint:  # which is an option of training
            error.hint = "Leave this column out of all rows."
        raise


def row_of(example: Example) -> Mapping[str, Any]:
    """An example's cells by the names of their columns."""
    row: Mapping[str, Any] = json.loads(example.content)
    return row


def check_rows(given: Given) -> None:
    """Raise `DataError` about the first input that is no row: nothing says which column a number would be of."""
    for place, one in enumerate(given):
        if isinstance(one, np.ndarray) or one.media != "row":
            raise DataError(
                "The tasks of this model are tables, each with columns of its own. Give an input as an object of "
                "columns.",
                code="wrong-shape",
                field=("inputs", place),
            )


def check_added(support: Sequence[Example], new: Sequence[Example]) -> None:
    """Raise `DataError` about the first of new examples with a column that none of the support has.

    Else a slip in a name would be a new column, which all later inputs would have to have.
    """
    known = set[str]().union(*map(row_of, support))
    for place, example in enumerate(new):
        for name in row_of(example):
            if name not in known:
                nearest = nearest_of(name, sorted(known))
                guess = "" if nearest is None else f" Did you mean {nearest!r}?"
                raise DataError(
                    f"Example {place} has a column {name!r}, which the task's examples do not have.{guess} Leave it "
                    "out, or create a task with it.",
                    code="wrong-shape",
                    field=("inputs", place, name),
                )


@contextlib.contextmanager
def placed(examples: Sequence[Example], new: Sequence[Example]) -> Iterator[None]:
    """Errors about a place among examples name the place among the new ones; none where the example is not new."""
    try:
        yield
    except DataError as error:
        match error.field:
            case ("inputs", int(place), *rest):
                ids, id_ = [example.id for example in new], examples[place].id
                error.field = ("inputs", ids.index(id_), *rest) if id_ in ids else ()
        raise
