"""Defining a reader is all that a format takes: training, adapting and predicting read it."""

import csv
import os
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pytest
from PIL import Image

from handful.data_options import DataOptions
from handful.errors import ArtifactError, DataError, UserError
from handful.models.adapted_task import AdaptedTask
from handful.readers.json_lines import JsonLinesReader
from handful.readers.reader import READERS, read, readers
from handful.readers.tables import TableReader, content_of
from handful.tasks.opening import open_tasks
from handful.workflows.encoding import encoded_examples, encoded_inputs


@pytest.fixture(autouse=True)
def _known_for_one_test():
    """A reader that a test defines is not known to others."""
    known = set(READERS)
    yield
    for name in set(READERS) - known:
        del READERS._members[name]


def test_a_new_format_of_tables_is_read_everywhere(tmp_path):
    path = tmp_path / "t.WORDS"
    path.write_text("".join(f"k{n % 9} {n} {n * n % 7}\n" for n in range(45)))
    with pytest.raises(DataError, match="not of a supported format"):
        open_tasks(path, label="kind")

    class WordsReader(TableReader):
        name = "words"
        described = "words (.words)"
        suffixes = (".words",)

        def columns(self, path, options, limits):
            rows = [line.split() for line in content_of(path, limits).decode().splitlines()]
            kinds, *numbers = zip(*rows, strict=True)
            return pa.table(
                {"kind": list(kinds), **{f"x{n}": list(map(float, cells)) for n, cells in enumerate(numbers)}}
            )

    tasks = open_tasks(path, label="kind")
    assert sum(map(len, tasks.split_manifest().values())) == 9
    examples = encoded_examples(tasks.pipeline, path)
    assert examples.labels[:2] == ("k0", "k1")
    np.testing.assert_array_equal(encoded_inputs(tasks.pipeline, path)[0], examples.inputs)
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.words").write_text(path.read_text())
    assert len(open_tasks(folder, target="x1").names) == 5
    with pytest.raises(ArtifactError, match="not an adapted task"):
        AdaptedTask.load(path)
    path.write_text("a 1 one\n")
    with pytest.raises(DataError, match=r"t\.WORDS cannot be read as a words table: could not convert"):
        read(path)


@pytest.mark.parametrize(
    "error", [csv.Error("x"), KeyError("x"), TypeError("x"), AttributeError("x"), RecursionError("x"), zlib.error("x")]
)
def test_what_a_reader_fails_with_names_the_file(tmp_path, error):
    class FailingReader(TableReader):
        name = "failing"
        described = "nothing (.failing)"
        suffixes = (".failing",)

        def columns(self, path, options, limits):
            raise error

    path = tmp_path / "t.failing"
    path.write_text("")
    with pytest.raises(DataError, match=r"t\.failing cannot be read as a failing table: '?x"):
        read(path)
    error = UserError("a word of its own")
    with pytest.raises(UserError, match=r"^a word of its own$"):
        read(path)


def test_a_format_that_looks_into_files_is_asked_first(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a", "answer": "accept"}\n{"text": "b", "answer": "reject"}\n')
    assert read(path).inputs.names == ["text", "answer"]

    class AcceptedReader(JsonLinesReader):
        name = "accepted"
        by_content = True

        def matches(self, path):
            return super().matches(path) and b'"answer"' in path.read_bytes()

        def columns(self, path, options, limits):
            rows = super().columns(path, options, limits)
            return rows.filter(compute.equal(rows["answer"], "accept")).select(["text"])

    assert read(path).inputs.cells("text") == ["a"]
    path.write_text('{"text": "a", "more": 1}\n')
    assert read(path).inputs.names == ["text", "more"]


def test_every_format_says_what_it_reads_and_how_its_files_end():
    endings = [suffix for reader in readers() if not reader.by_content for suffix in reader.suffixes]
    assert len(endings) == len(set(endings)), "two readers by name for one ending"
    for reader in readers():
        assert reader.described
        assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in reader.suffixes)


def test_a_batch_says_what_the_file_says_of_each_value(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x,shop,kind,sold,who,week\n1,a,k,2.5,p,3\n2,,l,1,q,1\n")
    options = DataOptions(label="kind", target="sold", task="shop", group="who", order="week")
    raw = read(path, options=options, labeled=True)
    assert (raw.labels, raw.tasks, raw.groups) == (["k", "l"], ["a", None], ["p", "q"])
    assert (raw.targets.tolist(), raw.order.tolist(), raw.splits) == ([2.5, 1.0], [3.0, 1.0], None)
    assert list(raw.ids) == ["1", "2"]
    assert raw.origin(1) == f"{path}, row 2 below the header"
    assert raw.called("label") == f"{path}, column 'kind',"
    bare = read(path, options=options)
    assert (bare.labels, bare.targets, bare.tasks, bare.groups, bare.order) == (None,) * 5
    np.savez(tmp_path / "t.npz", inputs=np.zeros((2, 3)), labels=["k", "l"], task=[7, 8], order=[1, 0])
    raw = read(tmp_path / "t.npz", labeled=True)
    assert (raw.labels.tolist(), raw.targets, raw.tasks.tolist()) == (["k", "l"], None, [7, 8])
    assert (raw.groups, raw.order.tolist(), raw.origin(0)) == (None, [1, 0], f"{tmp_path / 't.npz'}, row 1")
    assert read(tmp_path / "t.npz").labels is None


def test_a_batch_of_images_is_class_by_class_and_knows_given_splits(tmp_path):
    for name in ("train/10", "train/2", "valid/1", "test/3"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(2):
            Image.new("L", (2, 2)).save(tmp_path / name / f"{number}.png")
    raw = read(tmp_path, labeled=True)
    assert raw.labels == ["1", "1", "2", "2", "3", "3", "10", "10"]
    assert raw.splits == ["val", "val", "train", "train", "test", "test", "train", "train"]
    assert raw.ids[2] == "train/2/0.png"
    assert raw.origin(2) == str(tmp_path / "train" / "2" / "0.png")
    assert raw.inputs[2] == (tmp_path / "train" / "2" / "0.png").read_bytes()
    assert read(tmp_path / "train", labeled=True).splits is None
    assert read(tmp_path / "train" / "2").labels is None


def test_an_example_without_a_task_is_told_by_its_place(tmp_path):
    rows = "".join(f"{n},t{n // 4},{n % 3}\n" for n in range(40))
    (tmp_path / "t.csv").write_text("x,shop,y\n" + rows + "1,,2\n")
    with pytest.raises(DataError, match=r"t\.csv, row 41 below the header: the task is missing"):
        open_tasks(tmp_path / "t.csv", task="shop", target="y")


def locked(path, monkeypatch):
    """The system refuses to look at this path, as it does to all but root where permissions are so."""

    def refusing(function):
        def guarded(place, *arguments, **options):
            if os.fspath(place) == os.fspath(path):
                raise PermissionError(13, "Permission denied", os.fspath(place))
            return function(place, *arguments, **options)

        return guarded

    for name in ("listdir", "stat", "scandir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


@pytest.mark.parametrize("inner", ["photos", "photos/b", "photos/b/1.png"])
def test_what_may_not_be_read_is_named(inner, tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "photos" / name / f"{number}.png").write_bytes(b"")
    locked(tmp_path / inner, monkeypatch)
    for call in (lambda path: read(path, labeled=True), open_tasks):
        with pytest.raises(DataError, match=rf"{inner} cannot be read \(Permission denied\)"):
            call(tmp_path / "photos")


@pytest.mark.parametrize("name", ["x" * 300 + ".csv", "x" * 300])
def test_a_name_that_is_too_long_is_told(name, tmp_path):
    for call in (lambda path: read(path, labeled=True), open_tasks):
        with pytest.raises(DataError, match="too long"):
            call(tmp_path / name)


def test_a_link_to_nothing_says_what_it_points_to(tmp_path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"link\.csv is a link to .*gone\.csv, which does not exist\."):
        read(tmp_path / "link.csv")


def test_the_home_of_nobody_and_a_zero_are_not_there(tmp_path):
    for name in ("~no-such-user/a.csv", "a\0.csv"):
        with pytest.raises(DataError, match="does not exist"):
            open_tasks(name)
