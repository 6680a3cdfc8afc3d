"""Rows of several users in one batch: each is read as if it were alone."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch

from handful.errors import DataError
from handful.notes import collecting
from handful.pipelines.rows import TablePipeline
from handful.table import Table

TABLE = {
    "size": [1.5, 2.0, None, 4.0],
    "far": ["3 mi", "4 mi", "6 mi", "9 mi"],
    "sold": ["2024-01-03", "2024-02-01", None, "2024-03-03"],
    "paid": ["2024-01-04", "2024-02-02", "2024-02-09", "2024-03-04"],
    "code": ["red", "RED", "True", "10000000000000000"],
    "fresh": [True, False, None, True],
}
CELLS = {
    "numbers": [1, 2.5, -0.0, True, "7", "7.0", " 3 ", "", "NA", "1e3", "2,5", "many", 1e31, "1e31"],
    "units": ["3 mi", "3.5 mi", 3, "12 %", None],
    "dates": ["2024-02-01", "1/1/2024", "13/2/2024", "2/13/2024", "1/2/2024", 19_000, "soon", None],
    "names": ["red", "RED", 7, "7.0", 10**16, 1e16, -0.0, True, "true", "13/2/2024"],
}
GOOD = {name: cells[0] for name, cells in TABLE.items()}


@pytest.fixture(scope="module")
def pipeline():
    return TablePipeline.fit(Table("sales", pa.table(TABLE)), np.arange(4))


def alone(pipeline, row):
    """What the row's own table gives and notes, or None where it is refused."""
    with collecting() as notes:
        try:
            return pipeline.stored([row]), {note.code for note in notes}
        except DataError:
            return None


@pytest.mark.parametrize("kind", CELLS)
def test_cells_are_read_among_others_as_alone(pipeline, kind):
    columns = {"numbers": ["size"], "units": ["far"], "dates": ["sold", "paid"], "names": ["code", "fresh"]}[kind]
    chosen = itertools.product(CELLS[kind], repeat=len(columns))
    rows = [GOOD | dict(zip(columns, cells, strict=True)) for cells in chosen]
    by_themselves = [alone(pipeline, row) for row in rows]
    accepted = [row for row, made in zip(rows, by_themselves, strict=True) if made is not None]
    with collecting() as notes:
        together = pipeline.stored_alone([GOOD, *accepted])
    expected = [alone(pipeline, GOOD), *filter(None, by_themselves)]
    assert torch.equal(together, torch.cat([made for made, _ in expected]))
    assert {note.code for note in notes} == set().union(*(codes for _, codes in expected))
    refused = [row for row, made in zip(rows, by_themselves, strict=True) if made is None]
    for row in refused:
        with pytest.raises(DataError), collecting():
            pipeline.stored_alone([*accepted[:2], row])
    assert bool(refused) == (kind != "names")


def test_the_columns_of_a_row_are_its_own(pipeline):
    lacking = {name: cell for name, cell in GOOD.items() if name != "size"}
    with pytest.raises(DataError, match="row 2, has no column 'size'") as error:
        pipeline.stored_alone([GOOD, lacking])
    assert error.value.field == ("inputs", 1)
    blank = lacking | {" size": 1.5, "more": object()}
    assert torch.equal(*pipeline.stored_alone([GOOD, blank])), "one spelling beside another, and more columns"
    with pytest.raises(DataError, match="same name"):
        pipeline.stored_alone([GOOD, GOOD | {"size ": 2}])
