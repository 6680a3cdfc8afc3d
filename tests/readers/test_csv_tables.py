"""Csv files as other programs write them: encodings, titles, delimiters, columns without a name."""

import codecs
import random

import numpy as np
import pytest
from tests.readers.locales import check

from handful.data_options import DataOptions
from handful.errors import DataError, UserError
from noted import noted
from tables import read_table

TEXT = "size;label\n1,5;é\n2,5;b\n"


def written(path, content, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + TEXT.encode(),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        ("sep=;\n" + TEXT).encode(),
        ("sep=;\r\n" + TEXT.replace("\n", "\r\n")).encode("utf-16"),
        TEXT.replace(";", "\t").encode("utf-16"),
        ("sep=|\n" + TEXT.replace(";", "|")).encode(),
    ],
)
def test_what_excel_writes_is_read_as_it_is(tmp_path, content):
    table = read_table(written(tmp_path / "t.csv", content))
    assert table.numbers("size").tolist() == [1.5, 2.5]
    assert table.names_in("label") == ["é", "b"]


def test_other_encodings_are_named(tmp_path):
    path = written(tmp_path / "t.csv", TEXT, "cp1252")
    assert read_table(path, options=DataOptions(encoding="cp1252")).names_in("label") == ["é", "b"]
    with pytest.raises(UserError, match="encoding 'cp999' is unknown"):
        read_table(path, options=DataOptions(encoding="cp999"))
    with pytest.raises(DataError, match="is not text in UTF-8"):
        read_table(path, options=DataOptions(encoding="utf-8"))
    with pytest.raises(DataError, match="zero bytes, as UTF-16 has") as caught:
        read_table(written(tmp_path / "t.csv", TEXT, "utf-16-le"))
    assert "{encoding}" in caught.value.hint
    assert read_table(path, options=DataOptions(encoding="utf-16-le")).names_in("label") == ["é", "b"]


@pytest.mark.parametrize(
    "title", ["Sales of 2024\n", "Sales of 2024;;\nall shops;;\n", "Sales of 2024;;\n;;\n", '"Sales, and\nmore"\n\n']
)
def test_titles_above_the_names_are_passed_over(tmp_path, title):
    path = written(tmp_path / "t.csv", title + "size;label;n\n1,5;a;1\n2,5;b;2\nx;c;3\n")
    with noted("above the column names"):
        table = read_table(path)
    assert table.names == ["size", "label", "n"]
    with pytest.raises(DataError, match="row 3 below the header: 'x'"):
        table.numbers("size")


@pytest.mark.parametrize(
    "content",
    [",size,label\n0,1.5,a\n1,2.5,b\n", "Unnamed: 0,size,label\n0,1.5,a\n1,2.5,b\n", "size,label\n1,1.5,a\n2,2.5,b\n"],
)
def test_a_column_without_a_name_is_left_out(tmp_path, content):
    path = written(tmp_path / "t.csv", content)
    with noted("a column without a name is ignored"):
        table = read_table(path)
    assert table.names == ["size", "label"]
    np.testing.assert_array_equal(table.numbers("size"), [1.5, 2.5])


@pytest.mark.parametrize(
    "content",
    ["x,y,label\n1,2,a,\n3,4,b,\n", "x,y\n1,5,2\n1,7,3\n", "x,y\n2,5,2\n1,7,3\n", "x;y\na;1;2\na;3;4\n"],
)
def test_rows_that_are_longer_than_the_names_are_numbered_only_as_r_does(tmp_path, content):
    with noted(), pytest.raises(DataError, match=r"t\.csv cannot be read as a csv table: .*Expected [23] columns, got"):
        read_table(written(tmp_path / "t.csv", content))
    for rows in ('"ann",1,a\n"bob",2,\n', '"1",1,a\n"2",2,\n'):
        with noted("a column without a name is ignored"):
            assert read_table(written(tmp_path / "t.csv", f"x,label\n{rows}")).numbers("x").tolist() == [1, 2]


def test_blanks_around_names_do_not_count(tmp_path):
    table = read_table(written(tmp_path / "t.csv", "size, color ,\u200bkind\n1, red,a\n2, blue,b\n"))
    assert (table.names, table.texts("color")) == (["size", "color", "kind"], ["red", "blue"])
    with pytest.raises(DataError, match="more than one column 'size'"):
        read_table(written(tmp_path / "t.csv", "size, size\n1,2\n"))


def test_names_that_differ_only_in_case_are_refused(tmp_path):
    with pytest.raises(DataError, match="the columns 'Size' and 'size' differ only in case"):
        read_table(written(tmp_path / "t.csv", "Size,size\n1,2\n"))


def test_one_column_of_single_cells_has_no_titles(tmp_path):
    assert read_table(written(tmp_path / "t.csv", "text\nfirst\nsecond\n")).names == ["text"]
    assert read_table(written(tmp_path / "t.csv", "text;more\nfirst;\nsecond;\n")).names == ["text", "more"]


def test_no_locale_is_read_to_other_numbers(tmp_path):
    draw = random.Random(7)
    outcomes = [check(tmp_path / "t.csv", draw) for _ in range(150)]
    assert outcomes.count("read") > 100


@pytest.mark.parametrize(
    "content",
    [
        "5.1,3.5,setosa\n4.9,3.0,setosa\n6.3,3.3,virginica\n",
        '1,"how do I pay"\n1,"my card, is gone"\n2,"close it"\n',
        "0.5,1.25,0.75\n0.25,1.5,0.5\n",
        "5,0,0,3\n4,0,0,1\n",
        "0.5,1.25\n0.75,1.5\n",
        "7,3\n8,1\n",
        "0.5,1.25,1.5\n0.75,1.5,0.25\n",
        "2024-02-01,7,north\n2024-02-02,7,north\n",
    ],
)
def test_a_file_without_names_of_columns_is_told(tmp_path, content):
    with pytest.raises(DataError, match=r"t\.csv has no column names: its first row looks like data \('.*\)\."):
        read_table(written(tmp_path / "t.csv", content))


@pytest.mark.parametrize(
    "names",
    [
        "shop,2019,2020",
        "0,1,2",
        "400.5,402.25,404",
        "9,6,3",
        "shop,10,30",
        "2024-01-01,2024-02-01,2024-03-01",
        "x,1,1.5",
    ],
)
def test_names_that_are_numbers_are_names_nevertheless(tmp_path, names):
    cells = ["a" if name in ("shop", "x") else "7" for name in names.split(",")]
    table = read_table(written(tmp_path / "t.csv", f"{names}\n" + 3 * f"{','.join(cells)}\n"))
    assert (table.names, table.rows) == (names.split(","), 3)


def test_lines_of_a_txt_file_with_equally_many_tabs_are_a_table(tmp_path):
    path = written(tmp_path / "t.txt", "size\tlabel\n1.5\ta\n2.5\tb\n")
    assert read_table(path).numbers("size").tolist() == [1.5, 2.5]
    for text in ("a text\nwith a\ttab\n", "one line\twith a tab\n"):
        assert read_table(written(path, text)) == text.splitlines()
