"""Formats of other programs: each file is written as they write it, and read with its labels."""

import datetime
import gzip
import json

import numpy as np
import openpyxl
import pytest

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.readers.reader import read
from noted import noted

LABELED = DataOptions(text="text", label="label")
TEXTS = ["how do I pay", "where is my card", "close it"]


def labeled(path, options=LABELED):
    return read(path, options=options, labeled=True)


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# Excel


def workbook(path, rows, merged=()):
    book = openpyxl.Workbook()
    book.active.title = "first"
    second = book.create_sheet("sales")
    for row in rows:
        second.append(row)
    for cells in merged:
        second.merge_cells(cells)
    for row in [("x", "label"), (1, "a"), (2, "b")]:
        book["first"].append(row)
    book.save(path)
    return path


def test_the_first_sheet_or_a_named_one_is_read(tmp_path):
    path = workbook(
        tmp_path / "t.xlsx",
        [
            ("Sales of the year", None, None, None),
            (None, None, None, None),
            ("shop", "when", "price", "kind"),
            ("north", datetime.datetime(2024, 2, 1), 20.123, "0077"),
            (None, datetime.datetime(2024, 2, 2), 285, "A1"),
            ("south", None, "#N/A", "B2"),
        ],
        merged=["A4:A5"],
    )
    assert read(path).inputs.names == ["x", "label"]
    with noted("skipped 1 row above the column names"):
        table = read(f"{path}:sales").inputs
    assert table.names_in("shop") == ["north", "north", "south"]
    assert table.numbers("when", gaps=True).tolist()[:2] == [19754, 19755]
    assert table.numbers("price", gaps=True).tolist()[:2] == [20.123, 285]
    assert not table.numeric("kind")
    with pytest.raises(DataError, match=r"has no sheet 'x'\. Sheets: 'first', 'sales'"):
        read(f"{path}:x")
    with pytest.raises(DataError, match=r"t\.xlsy does not exist"):
        read(tmp_path / "t.xlsy")


def test_a_workbook_without_rows_or_that_is_none_is_told(tmp_path):
    with pytest.raises(DataError, match="columns but no rows"):
        read(f"{workbook(tmp_path / 't.xlsx', [('a', 'b')])}:sales")
    (tmp_path / "t.xlsx").write_bytes(b"PK not a workbook")
    with pytest.raises(DataError, match=r"t\.xlsx cannot be read as a excel table: it is not a workbook"):
        read(tmp_path / "t.xlsx")


def one_sheet(path, *rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def test_cells_that_hold_numbers_are_not_read_by_the_marks_of_texts(tmp_path):
    rows = [(1.234, "0,5"), (20.123, "1,5"), (285, "2,5"), ("NA", "3,5")]
    path = one_sheet(tmp_path / "t.xlsx", ("price", "text"), *rows)
    with noted("cells of the column 'price' such as 'NA' count as empty"):
        table = read(path).inputs
    assert table.numbers("text").tolist() == [0.5, 1.5, 2.5, 3.5]
    assert table.numbers("price", gaps=True).tolist()[:3] == [1.234, 20.123, 285]
    mixed = read(one_sheet(tmp_path / "t.xlsx", ("price", "n"), (1.234, 1), ("1.234,5", 2), (20, 3))).inputs
    with pytest.raises(DataError, match=r"row 1 below the header: '1\.2340' is not a finite number|row 2 .*'1\.234,5'"):
        mixed.numbers("price")
    assert read(one_sheet(tmp_path / "t.xlsx", ("code",), (1.234,), ("A",), ("B",))).inputs.texts("code")[1:] == [
        "A",
        "B",
    ]


def test_numbers_of_a_workbook_do_not_decide_how_its_texts_are_read(tmp_path):
    path = one_sheet(tmp_path / "t.xlsx", ("n",), (2000.0,), (7,), ("1.234",))
    with pytest.raises(DataError, match=r"'1\.234' \(column 'n', row 3 below the header\) can mean 1\.234 or 1234"):
        read(path).inputs.numbers("n")
    with noted("no cell determines the decimal mark; '1.234'"):
        assert read(path, options=DataOptions(decimal=",")).inputs.numbers("n").tolist() == [2000, 7, 1234]
    for rows in ([(1.5, 1), ("1.234", 2)], [(1.5, "1.234"), ("?!", "2")]):
        path = one_sheet(tmp_path / "t.xlsx", ("a", "b"), *rows)
        with pytest.raises(DataError, match=r"t\.xlsx: the text '1\.234' of .* has numbers beside texts"):
            read(path)
    assert read(one_sheet(tmp_path / "t.xlsx", ("a",), (1.5,), ("2,5 €",))).inputs.texts("a") == ["1.5", "2,5 €"]


@pytest.mark.parametrize("far", ["XFD1048576", "A1:XFD1048576"])
def test_far_cells_of_a_workbook_are_refused_before_those_between_are_made(tmp_path, far):
    book = openpyxl.Workbook()
    if ":" in far:
        book.active.append(("a", "b"))
        book.active.merged_cells.add(far)
    else:
        book.active[far] = 1
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(DataError, match=r"t\.xlsx (with its merged cells|up to its last cell XFD1048576) has .* bytes"):
        read(tmp_path / "t.xlsx")


@pytest.mark.parametrize("merged", [["A1:C1"], ["A1:D2"], ["A1:B2"]])
def test_a_merged_title_is_a_title(tmp_path, merged):
    rows = [("Sales",), (), ("shop", "kind", "n"), ("north", "a", 1), ("south", None, 2)]
    path = workbook(tmp_path / "t.xlsx", rows, merged=[*merged, "A5:B5"])
    with noted("skipped 1 row above the column names"):
        table = read(f"{path}:sales").inputs
    assert (table.names, table.texts("kind")) == (["shop", "kind", "n"], ["a", "south"])


def test_a_workbook_with_two_columns_of_one_name_is_told(tmp_path):
    with pytest.raises(DataError, match="has more than one column 'a'"):
        read(one_sheet(tmp_path / "t.xlsx", ("a", "a"), (1, 2)))


# ARFF


ARFF = """% cars
@relation cars
@attribute 'the year' numeric
@ATTRIBUTE transmission {Manual,Automatic}
@attribute model string
@data
2016,Manual,"audi, A1"
% two more
?,Automatic,'seat'
2013,Manual,ford
"""


def test_arff(tmp_path):
    path = tmp_path / "t.arff"
    path.write_text(ARFF)
    table = read(path).inputs
    assert table.names == ["the year", "transmission", "model"]
    assert table.texts("model") == ["audi, A1", "seat", "ford"]
    assert table.texts("the year") == ["2016", None, "2013"]
    for wrong, said in (("@data", "no line @data"), ("2013,", "line 10: 4 cells for 3 attributes")):
        path.write_text(ARFF.replace(wrong, "2013,x," if wrong[0] == "2" else ""))
        with pytest.raises(DataError, match=said):
            read(path)


def test_escapes_in_quotes_of_arff_are_what_they_stand_for(tmp_path):
    path = tmp_path / "t.arff"
    lines = [
        r"@attribute 'driver\'s age' string",
        "@attribute b string",
        "@data",
        r"'it\'s, \\x', C:\\d",
        r"'a \"b\"', 'c,d'",
    ]
    path.write_text("\n".join([*lines, r'"it\'s, \"so\"", y', "it's, z"]))
    table = read(path).inputs
    assert table.names == ["driver's age", "b"]
    assert table.texts("driver's age") == ["it's, \\x", 'a "b"', 'it\'s, "so"', "it's"]


# Texts


def test_fasttext(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("".join(f"__label__k{n % 2} {text}\n" for n, text in enumerate(TEXTS)))
    raw = labeled(path)
    assert raw.labels == ["k0", "k1", "k0"]
    assert raw.inputs.sentences("text") == TEXTS
    path.write_text("__label__a one\n__label__a __label__b two\n")
    with pytest.raises(DataError, match=r"line 2 has 2 labels\. Each text has one class"):
        read(path)


def test_fasttext_divides_words_at_any_white_space(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("\n__label__pay\thow  do I\tpay \n\n__label__card where is it\r\nclose it\n")
    with noted("rows without 'label' are left out"):
        raw = labeled(path)
    assert (raw.labels, raw.inputs.sentences("text")) == (["pay", "card"], ["how do I pay", "where is it"])
    assert read(path).inputs.rows == 3


ACCENTED = {
    "t.csv": "text,label\ncafé,a\nthé,b\n",
    "t.arff": "@attribute text string\n@attribute label string\n@data\ncafé,a\nthé,b\n",
    "t.jsonl": '{"text": "café", "label": "a"}\n{"text": "thé", "label": "b"}\n',
    "t.json": '[{"text": "café", "label": "a"}, {"text": "thé", "label": "b"}]',
    "labeled.txt": "__label__a café\n__label__b thé\n",
    "t.txt": "café\nthé\n",
}


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize("name", ACCENTED)
def test_every_format_of_texts_takes_an_encoding(tmp_path, name, encoding):
    path = tmp_path / name
    path.write_bytes(ACCENTED[name].replace("\n", "\r\n").encode(encoding))
    inputs = read(path, options=DataOptions(encoding="cp1252" if encoding == "cp1252" else None)).inputs
    assert (inputs if name == "t.txt" else inputs.texts("text")) == ["café", "thé"]
    if encoding == "cp1252" and name != "t.csv":  # which looks at columns that are used alone
        with pytest.raises(DataError, match=rf"{name} is not text in UTF-8") as caught:
            read(path)
        assert "{encoding}" in caught.value.hint


def test_what_was_rejected_in_prodigy_is_no_example(tmp_path):
    answers = ["accept", "reject", "ignore", "accept"]
    rows = [{"text": f"t{n}", "label": "pay", "answer": answer} for n, answer in enumerate(answers)]
    with noted("rejected or ignored examples have no label", "rows without 'label' are left out"):
        raw = labeled(lines(tmp_path / "t.jsonl", rows))
    assert (raw.labels, raw.inputs.sentences("text"), raw.ids) == (["pay", "pay"], ["t0", "t3"], ["1", "4"])
    assert raw.origin(1).endswith("row 4")


def test_prodigys_choices(tmp_path):
    rows = [{"text": f"t{n}", "accept": ["a" if n else "b"], "answer": "accept"} for n in range(3)]
    assert labeled(lines(tmp_path / "t.jsonl", rows)).labels == ["b", "a", "a"]
    rows[1]["accept"] = ["a", "b"]
    with pytest.raises(DataError, match=r"column 'label', row 2: \['a', 'b'\] are several names"):
        labeled(lines(tmp_path / "t.jsonl", rows))


def test_doccano_has_lists_of_one_label(tmp_path):
    rows = [{"id": n, "text": f"t{n}", "label": ["a"] if n else []} for n in range(3)]
    with noted("rows without 'label' are left out") as notes:
        raw = labeled(lines(tmp_path / "t.jsonl", rows))
    assert [note.count for note in notes] == [1]
    assert raw.labels == ["a", "a"]


def annotated(number, *choices, cancelled=False):
    result = [{"value": {"choices": [choice]}, "from_name": "label", "type": "choices"} for choice in choices]
    return {
        "id": number,
        "data": {"text": f"t{number}"},
        "annotations": [{"result": result, "was_cancelled": cancelled}],
    }


def test_label_studio(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps([annotated(1, "a"), annotated(2, "b", cancelled=True), annotated(3, "b"), annotated(4)]))
    with noted("rows without 'label' are left out"):
        raw = labeled(path)
    assert (raw.labels, raw.ids) == (["a", "b"], ["1", "3"])
    path.write_text(json.dumps([annotated(7, "a", "b")]))
    with pytest.raises(DataError, match="task 7 has several choices of 'label'"):
        read(path)


def test_results_of_label_studio_that_are_no_choices_are_passed_over(tmp_path):
    task = annotated(1, "a")
    task["annotations"][0]["result"] += [{"type": "relation", "from_id": "x", "to_id": "y"}]
    (tmp_path / "t.json").write_text(json.dumps([task, annotated(2, "b")]))
    assert labeled(tmp_path / "t.json").labels == ["a", "b"]


ANNOTATED = {
    "t.txt": "__label__a one\n__label__b two\n",
    "t.jsonl": '{"text": "one", "label": "a", "answer": "accept"}\n{"text": "two", "label": "b", "answer": "reject"}\n',
    "t.json": json.dumps([annotated(1, "a"), annotated(2, "b")]),
}


@pytest.mark.parametrize("name", ANNOTATED)
def test_files_of_annotation_programs_are_known_when_packed_too(tmp_path, name):
    (tmp_path / name).write_text(ANNOTATED[name])
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(ANNOTATED[name].encode()))
    with noted():
        assert labeled(tmp_path / f"{name}.gz").labels == labeled(tmp_path / name).labels
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(ANNOTATED[name].encode())[:-20])
    with pytest.raises(DataError, match=rf"{name}\.gz is not an intact \.gz file"):
        labeled(tmp_path / f"{name}.gz")


# Rows without a label


def test_rows_without_a_label_or_target_are_left_out_with_a_note(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x,label,price\n1,a,5\n2,,6\n3,b,NA\n4,a,7\n")
    with noted("rows without 'label' are left out"):
        raw = labeled(path, DataOptions(label="label"))
    assert (raw.ids, raw.origin(1)) == (["1", "3", "4"], f"{path}, row 3 below the header")
    with noted("rows without 'price' are left out"):
        raw = labeled(path, DataOptions(target="price"))
    assert (raw.targets.tolist(), raw.ids) == ([5, 6, 7], ["1", "2", "4"])
    assert read(path, options=DataOptions(label="label")).inputs.rows == 4
    path.write_text("x;label\n1;\n2;a\n1.234;b\n")
    with noted("left out"), pytest.raises(DataError, match=r"'1\.234' \(column 'x', row 3 below the header\) can mean"):
        labeled(path, DataOptions(label="label")).inputs.numbers("x")


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_numbers_beside_markers_of_empty_cells_are_numbers_in_json_too(tmp_path, ending):
    rows = [{"size": 1, "day": "2024-01-05"}, {"size": "NA"}, {"size": 2.5}]
    path = tmp_path / f"t.{ending}"
    path.write_text(json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows)))
    table = read(path).inputs
    assert np.array_equal(table.numbers("size", gaps=True), [1, np.nan, 2.5], equal_nan=True)
    assert table.cells("day") == ["2024-01-05", None, None]
    with pytest.raises(DataError, match=r"column 'size', row 2.*: the cell is empty"):
        table.numbers("size")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"a": 1}\n{"a":\n', "line 2 is not JSON"),
        ('{"a": 1}\n[1]\n', "line 2 is not a JSON object"),
        ('{"a": [1]}\n{"a": 1}\n', "cannot mix list and non-list"),
    ],
)
def test_lines_that_are_no_objects_are_named(tmp_path, lines, message):
    (tmp_path / "t.jsonl").write_text(lines)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "t.jsonl").inputs.numbers("a")
