"""Small files that hold huge ones are refused before they are in memory, in each format that packs."""

import gzip
import io
import json
import os
import threading
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from handful.cli import options
from handful.errors import DataError
from handful.limits import FORMATS, LOCAL, SERVICE, UNLIMITED, Limits
from handful.pipelines.arrays import ArrayPipeline
from handful.pipelines.image_decoding import decoded
from handful.pipelines.image_pixels import bytes_of
from handful.pipelines.images import ImagePipeline
from handful.pipelines.rows import TablePipeline
from handful.readers.arrays import read_arrays
from handful.tasks.opening import open_tasks
from handful.workflows import experiment
from handful.workflows.encoding import encoded_examples, encoded_inputs
from tables import read_table

SMALL = Limits(bytes=200_000, rows=1_000, pixels=10_000, images=10, formats=FORMATS)


def read_image(path, size, channels, limits=LOCAL):
    return bytes_of(decoded(path.read_bytes(), str(path), limits), size, channels, str(path))


def packed_table(path):
    path.write_bytes(gzip.compress(b"x,y\n" + b"1,a\n" * 100_000))


def packed_lines(path):
    path.write_bytes(gzip.compress(b'{"x": 1}\n' * 50_000))


def sparse_lines(path):
    """Each row has an empty cell for each of the names of the first one."""
    path.write_text(json.dumps({f"x{number}": 1 for number in range(500)}) + "\n" + '{"x0": 1}\n' * 500)


def sparse_list(path):
    path.write_text(json.dumps([{f"x{number}": 1 for number in range(500)}, *[{"x0": 1}] * 500]))


def repeated_text(path):
    parquet.write_table(pa.table({"text": ["long " * 200] * 900}), path)


def repeated_bytes(path):
    parquet.write_table(pa.table({"text": [b"long " * 200] * 900}), path)


def repeated_number(path):
    parquet.write_table(pa.table({"x": [1.0] * 1_001}), path)


def plain_rows(path):
    path.write_text("x,y\n" + "1,a\n" * 1_001)


TABLES = {
    "t.csv.gz": packed_table,
    "t.jsonl.gz": packed_lines,
    "t.jsonl": sparse_lines,
    "t.json": sparse_list,
    "texts.parquet": repeated_text,
    "bytes.parquet": repeated_bytes,
    "t.parquet": repeated_number,
    "t.csv": plain_rows,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_becomes_huge_is_refused(name, tmp_path):
    path = tmp_path / name
    TABLES[name](path)
    assert path.stat().st_size < SMALL.bytes
    assert read_table(path).rows == read_table(path, UNLIMITED).rows
    with pytest.raises(DataError, match=rf"{name} has .* or more; at most .* are read.*limits="):
        read_table(path, SMALL)


def test_unpacking_stops_at_the_limit(tmp_path):
    path = tmp_path / "t.csv.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(20):
            file.write(b"1,a\n" * 2**20)
    tracemalloc.start()
    with pytest.raises(DataError, match="bytes or more"):
        read_table(path, SMALL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20, "80 MiB in all, read in pieces of 16"


def test_tables_within_the_limits_are_the_same_in_all_formats(tmp_path):
    columns = {"x": [1.5, 2.0, None] * 9, "text": ["a", "b", None] * 9, "kind": pa.array(["u", "v", "u"] * 9)}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", SMALL)
    assert table.texts("text") == columns["text"]
    assert str(table.arrow.schema.field("kind").type) == "string"
    assert np.isnan(table.numbers("x", gaps=True)).sum() == 9


@pytest.mark.parametrize("rows", [1, 1_001])
def test_arrays_that_become_huge_are_refused(rows, tmp_path):
    path = tmp_path / "t.npz"
    np.savez_compressed(path, inputs=np.zeros((rows, 1 if rows > 1 else 30_000)), labels=np.zeros(rows))
    assert path.stat().st_size < SMALL.bytes
    assert len(read_arrays(path)["inputs"]) == rows
    with pytest.raises(DataError, match=r"t\.npz has .* (bytes|rows) or more"):
        read_arrays(path, SMALL)


def asking_for(path, count, content=b"", name="inputs.npy"):
    """An npz file with an array that by its header has so many numbers."""
    header = io.BytesIO()
    facts = {"descr": "<f8", "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(header, facts)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, header.getvalue() + content)
    return path


@pytest.mark.parametrize("name", ["inputs.npy", "other.npy"])
def test_what_the_header_of_an_array_asks_for_is_looked_at_before_it_is_allocated(name, tmp_path, monkeypatch):
    """NumPy would allocate first: of terabytes and of gigabytes alike."""
    monkeypatch.setattr(np, "ndarray", None)
    for count in (2**40, 2**62):
        with pytest.raises(DataError, match=rf"t\.npz has {8 * count:,} bytes or more"):
            read_arrays(asking_for(tmp_path / "t.npz", count, name=name))
    for limits in (LOCAL, UNLIMITED):
        with pytest.raises(DataError, match=r"is damaged.*asks for 800,000,000 bytes and has"):
            read_arrays(asking_for(tmp_path / "t.npz", 10**8, bytes(80), name), limits)


def test_an_npz_file_that_is_packed_in_a_way_unknown_is_told(tmp_path):
    path = asking_for(tmp_path / "t.npz", 10, bytes(80))
    content = bytearray(path.read_bytes())
    for place in (8, content.index(b"PK\1\2") + 10):  # its method, in the local header and in the directory
        content[place] = 99
    path.write_bytes(content)
    with pytest.raises(DataError, match="npz is damaged"):
        read_arrays(path)


def test_an_npz_file_whose_packed_bytes_are_damaged_is_told(tmp_path):
    np.savez_compressed(tmp_path / "t.npz", inputs=np.arange(4000.0).reshape(1000, 4), labels=np.arange(1000))
    content = bytearray((tmp_path / "t.npz").read_bytes())
    content[400:900] = b"\xff" * 500
    (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged.*decompressing"):
        read_arrays(tmp_path / "t.npz")


def test_letters_of_an_array_that_are_none_are_told(tmp_path):
    for letter in (0x110000, 0xD800):
        labels = np.array([[ord("a"), letter]] * 3, np.uint32).view("<U2")[:, 0]
        np.savez(tmp_path / "t.npz", inputs=np.zeros((3, 2)), labels=labels)
        with pytest.raises(DataError, match=r"is damaged.*'labels' contains an invalid character"):
            read_arrays(tmp_path / "t.npz")


def test_the_header_of_an_array_that_is_no_python_is_told(tmp_path):
    np.savez(tmp_path / "t.npz", inputs=np.zeros((3, 2)))
    with zipfile.ZipFile(tmp_path / "t.npz") as file:
        header = file.read("inputs.npy").replace(b"(3, 2), }", b"((((((((L")
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as file:
        file.writestr("inputs.npy", header)
    with pytest.raises(DataError, match="npz is damaged"):
        read_arrays(tmp_path / "t.npz")


def test_an_image_that_becomes_huge_is_refused(tmp_path):
    Image.new("L", (101, 100)).save(tmp_path / "t.png")
    assert read_image(tmp_path / "t.png", 8, 1).shape == (1, 8, 8)
    with pytest.raises(DataError, match=r"t\.png has 10,100 pixels or more; at most 10,000"):
        read_image(tmp_path / "t.png", 8, 1, SMALL)


@pytest.mark.parametrize("kind", sorted(set(FORMATS) - {"HEIF"}))
def test_the_bound_on_pixels_is_that_of_the_limits_and_not_the_host_s(kind, tmp_path, monkeypatch):
    """Pillow's is one of the whole process, which stays as its owner has set it."""
    Image.new("L", (101, 100), 9).save(tmp_path / "t", kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    host, done = [], threading.Event()

    def decode():
        while not done.is_set():
            try:
                Image.open(tmp_path / "t").load()
            except Image.DecompressionBombError as error:
                host.append(error)
            else:
                host.append(None)

    thread = threading.Thread(target=decode)
    thread.start()
    try:
        for _ in range(20):
            assert read_image(tmp_path / "t", 8, 1, UNLIMITED).max() <= 10
            with pytest.raises(DataError, match="has 10,100 pixels or more"):
                read_image(tmp_path / "t", 8, 1, SMALL)
    finally:
        done.set()
        thread.join()
    assert host
    assert all(host), "the host program's own threads have its bound"
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "t").load()


def test_a_folder_of_too_many_images_is_refused_before_one_is_read(tmp_path):
    for part in ("train", "test"):
        for name in "abc":
            (tmp_path / part / f"{part}-{name}").mkdir(parents=True)
            for number in range(3):
                (tmp_path / part / f"{part}-{name}" / f"{number}.png").touch()
    with pytest.raises(DataError, match="has 18 images or more; at most 10 are read"):
        open_tasks(tmp_path, limits=SMALL)  # of both parts together
    with pytest.raises(DataError, match="has 9 images or more"):
        open_tasks(tmp_path / "train", limits=replace(SMALL, images=8))
    for read in (encoded_examples, encoded_inputs):
        folder = tmp_path / "train" if read is encoded_examples else tmp_path / "train" / "train-a"
        with pytest.raises(DataError, match="images or more; at most 2 are read"):
            read(ImagePipeline(size=4), folder, limits=replace(SMALL, images=2))


def test_an_image_file_that_is_huge_is_not_read(tmp_path):
    (tmp_path / "t.png").touch()
    os.truncate(tmp_path / "t.png", 2**40)
    with pytest.raises(DataError, match=r"t\.png has 1,099,511,627,776 bytes or more"):
        encoded_inputs(ImagePipeline(size=4), tmp_path / "t.png")


def test_an_image_is_no_program(tmp_path, monkeypatch):
    """Pillow reads PostScript by another program."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *given: pytest.fail("ran"))
    (tmp_path / "t.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="is not an image that can be read"):
        read_image(tmp_path / "t.png", 8, 1)


def test_the_limits_reach_every_reader(tmp_path):
    """Pipelines of a model, and sources of tasks."""
    plain_rows(tmp_path / "t.csv")
    np.savez(tmp_path / "t.npz", inputs=np.zeros((1_001, 2)), labels=np.arange(1_001) % 10)
    for name in "abcdefghij":
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("L", (101, 100)).save(tmp_path / "images" / name / "1.png")
    table = TablePipeline.fit(read_table(tmp_path / "t.csv"), np.arange(9), label="y")
    readers = [
        lambda limits: encoded_examples(table, tmp_path / "t.csv", limits=limits),
        lambda limits: encoded_inputs(table, tmp_path / "t.csv", limits=limits),
        lambda limits: encoded_examples(ArrayPipeline(raw_shape=(2,)), tmp_path / "t.npz", limits=limits),
        lambda limits: encoded_inputs(ArrayPipeline(raw_shape=(2,)), tmp_path / "t.npz", limits=limits),
        lambda limits: encoded_examples(ImagePipeline(size=4), tmp_path / "images", limits=limits),
        lambda limits: encoded_inputs(ImagePipeline(size=4), tmp_path / "images" / "a", limits=limits),
        lambda limits: open_tasks(tmp_path / "t.npz", limits=limits),
        lambda limits: open_tasks(tmp_path / "images", limits=limits),
    ]
    for read in readers[2:]:
        read(LOCAL)
    for read in readers:
        with pytest.raises(DataError, match="or more; at most"):
            read(SMALL)
    with pytest.raises(DataError, match="or more; at most"):
        open_tasks(tmp_path / "t.csv", label="y", limits=SMALL)


def test_a_service_is_stricter_than_ones_own_machine():
    assert SERVICE.bytes < LOCAL.bytes < UNLIMITED.bytes
    assert SERVICE.rows < LOCAL.rows < UNLIMITED.rows
    assert SERVICE.pixels < LOCAL.pixels < UNLIMITED.pixels
    assert SERVICE.images < LOCAL.images < UNLIMITED.images


def test_the_option_lifts_the_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "LOCAL", SMALL)
    monkeypatch.setattr(options, "LOCAL", SMALL)
    np.savez(tmp_path / "t.npz", inputs=np.zeros((1_001, 2)), labels=np.arange(1_001) % 10)
    with pytest.raises(DataError, match="lift the limits with limits="):
        experiment.Source(str(tmp_path / "t.npz")).open()
    assert len(experiment.Source(str(tmp_path / "t.npz"), no_limits=True).open().inputs) == 1_001
    assert (options.limits_of(None), options.limits_of(True)) == (SMALL, UNLIMITED)
