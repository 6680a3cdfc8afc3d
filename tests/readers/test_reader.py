"""Defining a reader is all that a format takes: training, adapting and predicting read it."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pytest

from handful.errors import ArtifactError, DataError
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
    with pytest.raises(DataError, match="is not a source of tasks"):
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
