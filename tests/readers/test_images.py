import gzip
import json
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.csv as pyarrow_csv
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from handful.cells import class_order
from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import LOCAL
from handful.pipelines.image_decoding import decoded
from handful.pipelines.image_pixels import bytes_of
from handful.readers.arrays import read_arrays
from handful.readers.images import image_files
from handful.readers.reader import read
from handful.tasks.opening import open_tasks
from noted import noted, nothing_noted
from tables import read_table


def png_header(path, width, height):
    """A PNG file that claims a size and holds nothing."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))
    return path


def read_image(path, size, channels, limits=LOCAL):
    return bytes_of(decoded(path.read_bytes(), str(path), limits), size, channels, str(path))


def csv(tmp_path, text, name="table.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


# Paths and folders


def test_missing_path_tells_the_nearest_name(tmp_path):
    (tmp_path / "letters").mkdir()
    with pytest.raises(DataError, match=r"leters does not exist\. Did you mean .*letters\?"):
        read(tmp_path / "leters", labeled=True)
    with pytest.raises(DataError, match="Check the spelling"):
        read_table(tmp_path / "nowhere" / "table.csv")


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match="contains no images"):
        image_files(tmp_path)


# Images


def test_corrupt_empty_and_truncated_images_are_named(tmp_path):
    noise = tmp_path / "noise.png"
    noise.write_bytes(b"this is no image")
    with pytest.raises(DataError, match=r"noise\.png is not an image that can be read"):
        read_image(noise, 28, 1)
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    with pytest.raises(DataError, match=r"empty\.png is empty \(0 bytes\)"):
        read_image(empty, 28, 1)
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8)).save(whole)
    half = tmp_path / "half.png"
    half.write_bytes(whole.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"half\.png is not an image that can be read"):
        read_image(half, 28, 1)


@pytest.mark.parametrize("side", [10_001, 60_000])
def test_bomb_is_refused_by_its_header(tmp_path, side):
    bomb = png_header(tmp_path / "bomb.png", side, side)
    with pytest.raises(DataError, match=rf"bomb\.png has {side**2:,} pixels or more; at most 100,000,000"):
        read_image(bomb, 28, 1)


def test_image_keeps_its_shape_on_the_color_of_its_border(tmp_path):
    pixels = np.full((20, 40, 3), 255, np.uint8)
    pixels[5:15, 10:30] = (200, 0, 0)  # (LANCZOS rings a little)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image = read_image(tmp_path / "wide.png", 20, 3)
    assert image.shape == (3, 20, 20)
    assert (image[:, :4] == 255).all()  # padded above
    assert (image[:, -4:] == 255).all()  # and below
    assert np.abs(image[:, 10, 10] - np.array([200, 0, 0])).max() < 10


def test_transparency_is_white_and_deep_gray_is_scaled(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png", 8, 1) == 255).all()
    Image.fromarray(np.full((8, 8), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    with noted("of 16 bits are read with white as 65,535"):
        assert (read_image(tmp_path / "deep.png", 8, 1) == 100).all()
    Image.new("1", (8, 8), 1).save(tmp_path / "bits.png")
    assert (read_image(tmp_path / "bits.png", 8, 3) == 255).all()


# Tables


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('"price, in EUR, net";shop\n1;a\n', ["price, in EUR, net", "shop"]),
        ('"a;b;c",shop\n1;2;3,a\n', ["a;b;c", "shop"]),
        ('"two\nlines, and one","x"\n1,a\n', ["two\nlines, and one", "x"]),
        ("\n\nx;y\n1,5;a\n", ["x", "y"]),
        (",".join(f"{'x' * 100}{i}" for i in range(800)) + "\n" + "1," * 799 + "1\n", None),
    ],
    ids=["comma in quotes", "semicolons in quotes", "line end in quotes", "empty lines first", "header of 80 kB"],
)
def test_the_delimiter_of_a_csv_file_is_outside_of_quotes(tmp_path, text, names):
    table = read_table(csv(tmp_path, text))
    assert table.names == names if names else len(table.names) == 800
    assert all(str(field.type) == "string" for field in table.arrow.schema), "cells stay as they are written"


def test_reading_a_csv_file_starts_no_reader_thread(tmp_path, monkeypatch):
    # One that is left behind by an error aborts the process when it ends, in about half of all tries.
    monkeypatch.setattr(pyarrow_csv, "open_csv", None)
    with pytest.raises(DataError, match="Expected 3 columns, got 4"):
        read_table(csv(tmp_path, "x,y,label\n1,2,a\n1,2,3,4\n"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_with_its_delimiter_and_mark(tmp_path, delimiter):
    text = "\ufeff" + "\n".join(delimiter.join(row) for row in (["a", "b"], ["1", "x"], ["2.5", "y"]))
    table = read_table(csv(tmp_path, text))
    assert table.names == ["a", "b"]
    assert table.numbers("a").tolist() == [1, 2.5]
    assert table.texts("b") == ["x", "y"]


def test_unreadable_tables_are_named(tmp_path):
    with pytest.raises(DataError, match=r"table\.csv cannot be read as a csv table: .*Expected 2 columns, got 3"):
        read_table(csv(tmp_path, "a,b\n1,2\n1,2,3\n"))
    with pytest.raises(DataError, match=r'Row #3: Expected 2 columns, got 1: "1,2'):
        read_table(csv(tmp_path, 'a,b\n1,2\n"1,2\n'))
    with pytest.raises(DataError, match=r'Row #2: Expected 3 columns, got 2: 1,"2'):
        read_table(csv(tmp_path, 'a,b,c\n1,"2,3\n1,2,3\n'))
    for nothing in ("", "\n\n"):
        with pytest.raises(DataError, match=r"empty\.csv is empty: it needs a row of column names"):
            read_table(csv(tmp_path, nothing, "empty.csv"))
    for names in ("a,b", "a,b\n", "a\n"):
        with pytest.raises(DataError, match=r"head\.csv has columns but no rows"):
            read_table(csv(tmp_path, names, "head.csv"))
    with pytest.raises(DataError, match=r"t\.parquet cannot be read as a parquet table"):
        read_table(csv(tmp_path, "a,b\n1,2\n", "t.parquet"))
    with pytest.raises(DataError, match="more than one column 'a'"):
        read_table(csv(tmp_path, "a,a\n1,2\n"))


def test_text_that_is_not_utf8(tmp_path):
    with pytest.raises(DataError, match="is not text in UTF-8"):
        read_table(csv(tmp_path, "a,é\n1,2\n", encoding="latin-1"))
    table = read_table(csv(tmp_path, "a,b\n1,é\n", encoding="latin-1"))
    with pytest.raises(DataError, match="column 'b' is not text in UTF-8") as caught:
        table.texts("b")
    assert "{encoding}" in caught.value.hint
    assert read_table(table.name, options=DataOptions(encoding="latin-1")).texts("b") == ["é"]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1", "2", "abc", "4"], r"column 'price', row 3 below the header: 'abc' is not a finite number"),
        (["1", "", "3", ""], r"column 'price', row 2 .*: the cell is empty, NA or the like \(and in 1 more rows\)"),
        (["1", "2", "inf", "4"], "column 'price', row 3 .*: 'inf' is not a finite number"),
        (["1", "nan", "3", "4"], "column 'price', row 2 .*: the cell is empty"),
        (["1 %", "2 %", "0.5", "4 %"], r"column 'price', row 3 .*: '0.5' is not a number of %"),
        (["2024-01-31", "2024-02-01", "3"], r"column 'price', row 3 .*: '3' is not a date"),
    ],
)
def test_bad_number_names_column_row_and_value(tmp_path, cells, message):
    table = read_table(csv(tmp_path, "price,x\n" + "".join(f"{cell},1\n" for cell in cells)))
    assert table.numeric("price")
    with pytest.raises(DataError, match=message):
        table.numbers("price")


def test_nan_in_parquet(tmp_path):
    parquet.write_table(pa.table({"a": [1.0, float("nan")]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="'a', row 2: the cell is empty"):
        read_table(tmp_path / "t.parquet").numbers("a")


@pytest.mark.parametrize("cells", [["1", "", "3"], ["1", "NA", "3"], ["1", "?", "3.0"], ["1", "n/a", '"1,5"']])
def test_gaps_are_nan_where_they_may_be(tmp_path, cells):
    table = read_table(csv(tmp_path, "price,x\n" + "".join(f"{cell},1\n" for cell in cells)))
    assert table.numeric("price")
    assert np.isnan(table.numbers("price", gaps=True)).tolist() == [False, True, False]


@pytest.mark.parametrize("cell", ["abc", "inf"])
def test_where_gaps_may_be_other_cells_still_are_numbers(tmp_path, cell):
    table = read_table(csv(tmp_path, f"price,x\n1,1\n,1\n3,1\n{cell},1\n"))
    with pytest.raises(DataError, match=f"row 4 .*{cell}'? is not a finite number"):
        table.numbers("price", gaps=True)


def test_dates_are_days_and_categories_are_texts(tmp_path):
    days = pa.array(["1970-01-02", "1970-01-11"])
    columns = {
        "text": days,
        "day": days.cast(pa.date32()),
        "moment": days.cast(pa.timestamp("ms")),
        "coded": pa.array(["a", "b"]).dictionary_encode(),
        "flag": pa.array([True, False]),
        "number": pa.array([1.0, 2.0]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    for name in ("text", "day", "moment"):
        assert table.numeric(name)
        assert table.numbers(name).tolist() == [1, 10]
    assert not table.numeric("coded")
    assert not table.numeric("flag")
    assert table.texts("flag") == ["True", "False"]
    assert table.texts("number") == ["1", "2"]


def test_what_a_cell_of_a_csv_file_says_depends_on_no_other_cell(tmp_path):
    cells = ["007", "7", "7.0", "true", "FALSE", "1.50", "NA", "x"]
    for cell, text in zip(cells, ["007", "7", "7", "True", "False", "1.50", "NA", "x"], strict=True):
        for others in ("8", "true", "word"):
            table = read_table(csv(tmp_path, f"code,x\n{cell},1\n" + f"{others},1\n" * 3))
            assert table.texts("code")[0] == text
    parquet.write_table(pa.table({"code": [True, False], "n": [7.0, 1.5]}), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.texts("code") == ["True", "False"]
    assert table.texts("n") == ["7", "1.5"]


@pytest.mark.parametrize(
    ("cells", "days"),
    [
        (["1970-01-02", "", "1970-01-11"], [1, None, 10]),
        (["1970-01-02 12:00", "1970-01-11T00:00:00", "?"], [1.5, 10, None]),
        (["1970-01-02T06:00:00+06:00", "1970-01-02T00:00:00Z", ""], [1, 1, None]),
        ([" 1e3", "+5 ", "-.5"], [1000, 5, -0.5]),
    ],
)
def test_numbers_and_dates_of_a_csv_file(tmp_path, cells, days):
    table = read_table(csv(tmp_path, "when,x\n" + "".join(f"{cell},1\n" for cell in cells)))
    assert table.numeric("when")
    found = [None if np.isnan(day) else day for day in table.numbers("when", gaps=True)]
    assert found == days


def test_nested_column_is_refused(tmp_path):
    parquet.write_table(pa.table({"a": [[1], [2]]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"'a' is of type list<.*which is not supported\. Exclude it"):
        read_table(tmp_path / "t.parquet").numbers("a")


def test_bytes_of_polars_are_refused_as_other_bytes(tmp_path):
    cells = pa.array([b"a", b"b", b"a"], pa.binary_view())
    parquet.write_table(pa.table({"x": [1.0, 2.0, 3.0], "a": cells}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="'a' is of type large_binary, which is not supported"):
        open_tasks(tmp_path / "t.parquet", label="a")


def test_missing_column_tells_the_nearest(tmp_path):
    table = read_table(csv(tmp_path, "price,shop\n1,a\n"))
    with pytest.raises(DataError, match=r"no column 'prize' \(did you mean 'price'\?\).*'price', 'shop'"):
        table.require(["prize"])


def test_empty_label_is_named(tmp_path):
    with pytest.raises(DataError, match=r"'shop', row 2 .*: the cell is empty"):
        read_table(csv(tmp_path, "price,shop\n1,a\n2,\n")).names_in("shop")


# Arrays


def test_arrays_with_objects_are_never_opened(tmp_path):
    np.savez(tmp_path / "t.npz", inputs=np.zeros((2, 3)), labels=np.array(["a", None], dtype=object))
    with pytest.raises(DataError, match=r"'labels' contains Python objects.*never opened"):
        read_arrays(tmp_path / "t.npz")


def test_missing_and_unequal_arrays(tmp_path):
    np.savez(tmp_path / "x.npz", X=np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"has no array 'inputs'. It holds: 'X'"):
        read_arrays(tmp_path / "x.npz")
    np.savez(tmp_path / "u.npz", inputs=np.zeros((2, 3)), labels=np.zeros(3))
    with pytest.raises(DataError, match=r"'labels' has shape \(3,\), but 'inputs' has 2 rows"):
        read_arrays(tmp_path / "u.npz")
    for shape in ((0, 3), (20, 0), (20, 3, 0)):
        np.savez(tmp_path / "e.npz", inputs=np.zeros(shape), labels=np.zeros(shape[0]))
        with pytest.raises(DataError, match="'inputs' is empty, its shape is"):
            read_arrays(tmp_path / "e.npz")


def test_not_an_npz(tmp_path):
    (tmp_path / "t.npz").write_bytes(b"PK\x03\x04 and nothing")
    with pytest.raises(DataError, match="is damaged"):
        read_arrays(tmp_path / "t.npz")
    (tmp_path / "p.npz").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(DataError, match="is not an npz file"):
        read_arrays(tmp_path / "p.npz")
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="is not an npz file"):
        read_arrays(tmp_path / "one.npz")


# JSON, and packed files


def test_json_lines_and_lists_of_objects_are_tables(tmp_path):
    rows = [{"a": 1, "b": "x", "day": "1970-01-02"}, {"a": 2.5, "b": "y", "day": "1970-01-11"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "t.jsonl").write_text(lines)
    (tmp_path / "t.json").write_text(json.dumps(rows))
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a;b;day\n1;x;1970-01-02\n2.5;y;1970-01-11\n"))
    for name in ("t.jsonl", "t.json", "t.jsonl.gz", "t.csv.gz"):
        table = read_table(tmp_path / name)
        assert table.names == ["a", "b", "day"], name
        assert table.numbers("a").tolist() == [1, 2.5], name
        assert table.names_in("b") == ["x", "y"], name
        assert table.numbers("day").tolist() == [1, 10], name
        assert table.names_in("day") == ["1970-01-02", "1970-01-11"], name


def test_the_columns_of_json_are_those_of_all_its_rows(tmp_path):
    rows = [{"x": 1, "label": "a"}, {"x": 2, "label": "b", "extra": 3}, {"label": "c"}]
    for name in ("t.json", "t.jsonl"):
        text = json.dumps(rows) if name == "t.json" else "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name).write_text(text)
        table = read_table(tmp_path / name)
        assert table.names == ["x", "label", "extra"], name
        assert table.texts("extra") == [None, "3", None], name
        assert table.texts("x") == ["1", "2", None], name


def test_labeled_texts_by_name_become_three_columns(tmp_path):
    (tmp_path / "t.json").write_text('{"train": [["hello", "greet"]], "test": [["bye", "leave"], ["ciao", "leave"]]}')
    table = read_table(tmp_path / "t.json")
    assert [table.names_in(name) for name in ("text", "label", "part")] == [
        ["hello", "bye", "ciao"],
        ["greet", "leave", "leave"],
        ["train", "test", "test"],
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.json", b'{"a": [1, 2]}', "a list of objects"),
        ("t.json", b"{", "cannot be read as a json table"),
        ("t.jsonl", b"{", "line 1 is not JSON"),
        ("t.csv.gz", b"a,b\n1,2\n", "is not an intact .gz file"),
        ("t.json", '["é"]'.encode("latin-1"), "not text in UTF-8"),
        ("t.parquet.gz", b"", "not of a supported format"),
        ("t.json", b'{"train": []}', "a list of objects"),
        ("t.json", b'[{"a": 123456789012345678901234567890}]', "cannot be read as a json table"),
        ("t.json", b"[" + 5000 * b"1" + b"]", "cannot be read as a json table"),
        ("t.json", 100_000 * b"[", "cannot be read as a json table"),
        ("t.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)[:10] + b"\xff\xff\xff\xff", "is not an intact .gz file"),
    ],
)
def test_wrong_json_is_told(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_table(tmp_path / name)


def test_moments_finer_than_a_microsecond_are_rounded(tmp_path):
    moments = pa.array([1_700_000_000_000_000_001, 1_700_000_086_400_000_000], pa.timestamp("ns"))
    parquet.write_table(pa.table({"when": moments}), tmp_path / "t.parquet")
    assert np.diff(read_table(tmp_path / "t.parquet").numbers("when")) == pytest.approx(1e-3)


def test_an_image_of_floats_is_from_0_to_1(tmp_path):
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif", 8, 1)[0], (255 * values).round().astype(np.uint8))
    Image.fromarray(700 * values).save(tmp_path / "b.tif")
    with pytest.raises(DataError, match=r"b\.tif has values from 0 to 700 in 32 bits, without a defined white"):
        read_image(tmp_path / "b.tif", 8, 1)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "2", "1", "2"], ["1", "2", "10"]),
        (["3", "-3", "1e2", ".5", "+4"], ["-3", ".5", "3", "+4", "1e2"]),
        (["7.0", "007", "7"], ["007", "7", "7.0"]),
        (["10", "2", "b"], ["10", "2", "b"]),
        (["nan", "2", "10"], ["10", "2", "nan"]),
        (["1_0", "2"], ["1_0", "2"]),
        ([], []),
    ],
)
def test_class_names_are_in_the_order_of_numbers_where_all_are_numbers(names, order):
    assert class_order(names) == class_order(reversed(names)) == order


def test_what_is_passed_over_is_counted(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "raw" / "more").mkdir(parents=True)
        (tmp_path / name / "1.png").write_bytes(b"")
        (tmp_path / name / "raw" / "more" / "2.txt").write_bytes(b"")
        (tmp_path / name / "Thumbs.db").write_bytes(b"")
        (tmp_path / name / ".DS_Store").write_bytes(b"")
    with noted("some files are ignored, such as a/raw/more/2.txt") as notes:
        assert read(tmp_path, labeled=True).ids == ["a/1.png", "b/1.png"]
    assert [note.count for note in notes] == [2]
    (tmp_path / "readme.md").write_text("")
    (tmp_path / "3.png").write_bytes(b"")
    with noted("such as 3.png") as notes:
        read(tmp_path, labeled=True)
    assert [note.count for note in notes] == [4]
    with noted("such as a/raw/more/2.txt") as notes:
        assert read(tmp_path).ids == ["3.png", "a/1.png", "b/1.png"]
    assert [note.count for note in notes] == [3]
    with nothing_noted():
        read(tmp_path / "3.png")


def test_files_beside_tables_are_counted(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.csv").write_text("x,y\n" + "".join(f"{n},{n * number}\n" for n in range(9)))
    (tmp_path / "notes.docx").write_bytes(b"")
    (tmp_path / ".hidden.txt").write_bytes(b"")
    with noted(r"some files are ignored, such as notes\.docx") as notes:
        open_tasks(tmp_path, target="y")
    assert [note.count for note in notes] == [1]
