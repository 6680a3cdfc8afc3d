"""What files hold, as it is sent to a server that has the model."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import own_data
from handful.data_options import DataOptions
from handful.errors import DataError
from handful.workflows.raw_examples import raw_examples, raw_inputs


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_images_are_the_bytes_of_their_files(tmp_path):
    folder = own_data.photos(tmp_path / "photos", 2, 2)
    found = raw_examples([folder])
    assert found.labels == ["class00", "class00", "class01", "class01"]
    assert found.inputs[0] == (folder / "class00" / "0.png").read_bytes()
    given = raw_inputs([folder / "class01", folder / "class00" / "0.png"])
    assert given.inputs[-1] == found.inputs[0]
    assert given.ids == [
        f"{folder / 'class01'}/0.png",
        f"{folder / 'class01'}/1.png",
        str(folder / "class00" / "0.png"),
    ]


def test_rows_are_as_they_are_written_without_the_label(tmp_path):
    path = written(tmp_path / "a.csv", "size,code,label,color\n0.5,007,a,red\n1.5,008,b,blue\n")
    found = raw_examples([path, path])
    assert found.labels == ["a", "b", "a", "b"]
    assert found.inputs[0] == {"size": "0.5", "code": "007", "color": "red"}
    assert raw_examples([path], DataOptions(label="color", drop=["code", "label"])).inputs == [
        {"size": "0.5"},
        {"size": "1.5"},
    ]
    values = raw_examples([path], DataOptions(target="size"))
    assert values.labels == [0.5, 1.5]
    assert raw_inputs([path]).ids == ["1", "2"]


def test_numbers_and_dates_are_written_as_programs_write_them(tmp_path):
    path = written(tmp_path / "a.csv", "price;day;label\n1.234,5;24.12.2020;a\n0,25;01.02.2021;b\n")
    assert raw_examples([path]).inputs == [
        {"price": 1234.5, "day": "2020-12-24"},
        {"price": 0.25, "day": "2021-02-01"},
    ]
    typed = {"day": pa.array([18000, None], pa.date32()), "n": [1, 2], "open": [True, None], "label": ["a", "b"]}
    pa.parquet.write_table(pa.table(typed), tmp_path / "a.parquet")
    assert raw_examples([tmp_path / "a.parquet"]).inputs == [
        {"day": "2019-04-14", "n": 1, "open": True},
        {"day": None, "n": 2, "open": None},
    ]


def test_texts_are_texts(tmp_path):
    path = written(tmp_path / "a.csv", "question,label\nWhere is it?,lost\nHow much?,price\n")
    assert raw_examples([path], DataOptions(text="question")).inputs == ["Where is it?", "How much?"]
    for name in ("lost", "price"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        written(tmp_path / "texts" / name / "a.txt", f"a {name} text")
    assert raw_examples([tmp_path / "texts"]).labels == ["lost", "price"]


def test_arrays_are_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", inputs=np.eye(2), targets=np.arange(4.0).reshape(2, 2))
    found = raw_examples([tmp_path / "a.npz"])
    assert np.array_equal(found.inputs, np.eye(2))
    assert found.labels == [[0.0, 1.0], [2.0, 3.0]]


def test_what_has_no_labels_is_refused_with_a_way_out(tmp_path):
    path = written(tmp_path / "a.csv", "size,kind\n1,a\n")
    with pytest.raises(DataError, match=r"no column 'label'.*'size', 'kind'") as caught:
        raw_examples([path])
    assert "{label}" in caught.value.hint
    np.savez(tmp_path / "a.npz", inputs=np.eye(2))
    with pytest.raises(DataError, match="does not contain labeled examples"):
        raw_examples([tmp_path / "a.npz"])
    with pytest.raises(DataError, match="no columns beside 'kind', 'size'"):
        raw_examples([path], DataOptions(label="kind", drop=["size"]))
