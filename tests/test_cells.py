"""Cells by one rule, wherever they come from."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from handful.cells import written
from handful.errors import DataError
from handful.estimators import FewShotClassifier
from handful.pipelines.labels import class_names
from handful.readers.reader import read
from handful.tasks.opening import open_tasks
from noted import noted, nothing_noted
from tables import read_table

SPELLINGS = {
    "two words": ["two words ", "\ttwo  words", "two\u00a0words", "two\u200b words", "\ufefftwo words"],
    "two\nlines": ["two\nlines", " two \r\nlines", "two\rlines\n"],
    "caf\u00e9": ["cafe\u0301", " caf\u00e9", "ca\u2060f\u00e9"],
    "None": ["None", " None"],
    "NA": ["NA"],
    "7": ["7.0", " 7"],
    "True": ["true", "TRUE "],
}
"""A name, and what else is written for it."""


def labels_of(cells, way, folder):
    """Labels as they are read from a file of one column, or in Python."""
    if way == "python":
        return list(class_names(cells))
    if way == "array":
        return list(class_names(np.array(cells, object)))
    path = folder / f"t.{way}"
    if way == "parquet":
        parquet.write_table(pa.table({"y": cells}), path)
    elif way == "jsonl":
        path.write_text("".join(json.dumps({"y": cell}) + "\n" for cell in cells))
    else:
        path.write_text("y,x\n" + "".join(f'"{cell}",1\n' for cell in cells), encoding="utf-8")
    return read_table(path).names_in("y")


@pytest.mark.parametrize("way", ["python", "array", "parquet", "jsonl", "csv"])
def test_a_name_is_the_same_in_each_spelling_from_all_sides(way, tmp_path):
    names = [name for name, others in SPELLINGS.items() for _ in others]
    assert labels_of([one for others in SPELLINGS.values() for one in others], way, tmp_path) == names


@pytest.mark.parametrize("way", ["python", "array", "parquet", "jsonl", "csv"])
@pytest.mark.parametrize("missing", ["", " \t", "\u200b", "\u00a0"])
def test_what_shows_nothing_is_a_missing_label(way, missing, tmp_path):
    with pytest.raises(DataError, match=r"missing|empty|is not a name"):
        labels_of(["a", missing], way, tmp_path)


def test_markers_of_empty_cells_are_labels_also_among_numbers(tmp_path):
    assert labels_of(["1", "2", "None", "?"], "csv", tmp_path) == ["1", "2", "None", "?"]
    table = read_table(tmp_path / "t.csv")
    assert np.isnan(table.numbers("y", gaps=True)).tolist() == [False, False, True, True]


def test_folders_are_named_by_the_same_rule(tmp_path):
    for folder in ("cafe\u0301", "two  words"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").touch()
    assert read(tmp_path, labeled=True).labels == ["caf\u00e9", "two words"]


def test_estimators_take_spellings_for_one_class():
    y = ["a b", "a  b ", "c", "c\u200b", "true"]
    assert FewShotClassifier().fit(np.eye(5), y).classes_.tolist() == ["a b", "c", "true"]


def test_labels_that_differ_only_in_case_are_told(tmp_path):
    with noted("The labels may have one label in two spellings: 'Paris' and 'paris' are read"):
        assert class_names(["paris", "Rome", "Paris"]) == ("paris", "Rome", "Paris")
    path = tmp_path / "t.csv"
    labels = [name for name in ("paris", "Paris", *"abcdefgh") for _ in range(4)]
    path.write_text("x,y\n" + "".join(f"{row},{label}\n" for row, label in enumerate(labels)))
    with noted(r"t\.csv, column 'y', may have one label in two spellings: 'Paris'"):
        open_tasks(path, label="y")
    with nothing_noted():
        class_names(["a", "b"])


def test_texts_are_written_as_they_are_seen():
    assert written(b" caf\xc3\xa9 ") == "caf\u00e9"
    assert written(7.0) == written("7.0") == "7"
    assert written("1.50") == "1.50"
