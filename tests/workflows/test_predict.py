"""Predictions of many files, of folders, and of what comes line by line."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from handful.errors import DataError
from handful.limits import Limits
from handful.models.lookup import remember
from handful.models.meta_model import MetaModel
from handful.pipelines.images import ImagePipeline
from handful.pipelines.rows import TablePipeline
from handful.pipelines.spread import DEVIATIONS
from handful.registry import LEARNERS
from handful.types import TaskSpec
from handful.workflows.adapt import adapt_from_file
from handful.workflows.predict import predict_from_files
from noted import noted, nothing_noted

ROWS = [{"size": 1.5, "shop": "a"}, {"size": 12.0, "shop": "b"}, {"size": None, "shop": "a"}]


def adapted(folder: Path, pipeline, inputs, targets, learner="bayesian-last-layer") -> Path:
    """The file of a task, whose model is beside it."""
    spec = TaskSpec("regression" if pipeline.targets else "classification", tuple(inputs.shape[1:]), 1)
    model = MetaModel(LEARNERS[learner].build(spec, backbone="raw"), pipeline)
    model.save_pretrained(folder / "model")
    remember(model)
    return model.adapt(inputs, targets).save(folder / "new.task")


@pytest.fixture(scope="module")
def prices(tmp_path_factory) -> Path:
    columns = [
        {"name": "size", "median": 10.0, "width": 2 * DEVIATIONS, "clipped": True, "gaps": True},
        {"name": "shop", "categories": ["a", "b"]},
    ]
    pipeline = TablePipeline(columns=columns, target="price", target_mean=[5.0], target_scale=[2.0])
    return adapted(tmp_path_factory.mktemp("prices"), pipeline, torch.randn(6, 4), torch.linspace(3, 9, 6))


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Folders of dark and light images, and the task."""
    for name, level in (("b/dark", 20), ("a/light", 240), ("a/gray", 128)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), level, np.uint8)).save(tmp_path / f"{name}.png")
    levels = torch.tensor([0.0, 0.1, 0.9, 1.0]).view(4, 1, 1, 1).expand(4, 1, 4, 4)
    return adapted(tmp_path, ImagePipeline(size=4), levels, ["dark", "dark", "light", "light"], "protonet")


def answers(task, *inputs, **more):
    return [row for rows in predict_from_files(task, list(inputs), **more) for row in rows]


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def piped(*values) -> io.BytesIO:
    return io.BytesIO(
        "".join(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values).encode()
    )


def unnamed(rows):
    return [{name: value for name, value in row.items() if name != "id"} for row in rows]


def test_each_of_many_files_is_named(prices, tmp_path):
    first, second = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.jsonl", ROWS[:1])
    rows = answers(prices, second, first)
    assert [row["id"] for row in rows] == [f"{second}:1", *(f"{first}:{number}" for number in (1, 2, 3))]
    assert unnamed(rows[1:]) == unnamed(answers(prices, first))
    assert [row["id"] for row in answers(prices, first)] == ["1", "2", "3"]
    assert rows[0].keys() == {"id", "value", "deviation", "low", "high"}


def test_a_folder_of_tables_is_read_file_by_file(prices, tmp_path):
    (tmp_path / "inbox").mkdir()
    first, second = write(tmp_path / "inbox" / "a.jsonl", ROWS), write(tmp_path / "inbox" / "b.jsonl", ROWS[:1])
    (tmp_path / "inbox" / "readme.txt").write_text("what this is")
    with noted("some files are ignored, such as readme.txt"):
        rows = answers(prices, tmp_path / "inbox")
    assert [row["id"] for row in rows] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3", "b.jsonl:1"]
    with noted("some files are ignored"):
        several = answers(prices, tmp_path / "inbox", second)
    assert [row["id"] for row in several] == [f"{first}:1", f"{first}:2", f"{first}:3", f"{second}:1", f"{second}:1"]
    with noted("are ignored"):
        batches = predict_from_files(prices, [tmp_path / "inbox"])
        assert len(next(batches)) == 3, "before the next file is read"


def test_images_are_named_by_their_paths(pictures, tmp_path):
    dark = tmp_path / "b" / "dark.png"
    with nothing_noted():
        assert [row["id"] for row in answers(pictures, dark)] == ["dark.png"]
        rows = answers(pictures, dark, tmp_path / "a")
    assert [row["id"] for row in rows] == [
        str(dark),
        str(tmp_path / "a" / "gray.png"),
        str(tmp_path / "a" / "light.png"),
    ]
    assert [rows[0]["label"], rows[2]["label"]] == ["dark", "light"]
    with noted("ignored, such as model/README.md"):
        assert [row["id"] for row in answers(pictures, tmp_path)] == ["a/gray.png", "a/light.png", "b/dark.png"]


@pytest.mark.parametrize("given", ["a", "b/dark.png", "empty"])
def test_images_for_a_model_of_tables_are_refused_by_what_it_takes(prices, pictures, tmp_path, given):
    (tmp_path / "empty").mkdir()
    said = rf"{given} does not contain inputs for this model, .*: size \(number, or empty\), shop \(2 categories\)"
    with pytest.raises(DataError, match=said):
        answers(prices, tmp_path / given)
    with pytest.raises(DataError, match=said):
        adapt_from_file(prices, tmp_path / given)


def test_a_path_that_is_not_there_is_told_before_anything_is_predicted(prices, tmp_path):
    good = write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(DataError, match=r"does not exist\. Did you mean .*a\.jsonl"):
        next(predict_from_files(prices, [good, tmp_path / "b.jsonl"]))


def test_lines_are_predicted_as_a_file_and_as_they_come(prices, tmp_path):
    lines = piped(ROWS[0], "", *ROWS[1:])
    batches = predict_from_files(prices, [], lines=lines)
    first = next(batches)
    assert lines.tell() == len(json.dumps(ROWS[0])) + 1, "no other line is read"
    rows = [*first, *(row for rows in batches for row in rows)]
    assert [row["id"] for row in rows] == ["1", "3", "4"]
    expected = unnamed(answers(prices, write(tmp_path / "a.jsonl", ROWS)))
    for row, other in zip(unnamed(rows), expected, strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    assert [row["id"] for row in answers(prices, tmp_path / "a.jsonl", lines=piped(ROWS[0]))] == ["1", "2", "3", "1"]


def test_a_line_may_be_the_numbers_of_an_image(pictures):
    rows = answers(pictures, lines=piped([[10] * 4] * 4, [[250] * 4] * 4))
    assert [row["label"] for row in rows] == ["dark", "light"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{size: 1}", "This line is not JSON. Write one input per line"),
        ("[" * 100_000, "This line is not JSON"),
        ({"shop": "a"}, "has no column 'size'"),
        ({"size": "many", "shop": "a"}, "column 'size', row 1: 'many' is not a finite number"),
        ("7", "needs rows of 2 values"),
    ],
)
def test_a_line_that_is_no_input_is_named_after_the_others_are_answered(prices, line, said):
    batches = predict_from_files(prices, [], lines=piped(ROWS[0], line))
    assert next(batches)
    with pytest.raises(DataError, match=rf"^Standard input, line 2: .*{said}"):
        next(batches)


def test_a_line_without_end_is_refused(prices):
    endless = io.BytesIO(b"[" * 2000)
    small = Limits(bytes=1000, rows=10, pixels=10, images=10)
    with pytest.raises(DataError, match=r"line 1: .*1,001 bytes or more"):
        answers(prices, lines=endless, limits=small)
    assert endless.tell() == 1001
