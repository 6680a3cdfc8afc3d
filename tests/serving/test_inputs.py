"""Inputs are kept as they came: texts, images, rows and arrays, and each pipeline reads them as the library does."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from handful import Service
from handful.errors import DataError
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.pipelines.images import ImagePipeline
from handful.pipelines.rows import TablePipeline
from handful.serving.inputs import encoded_bytes, encoded_tensor, value, written
from handful.serving.names import checked_name
from handful.table import Table
from handful.types import TaskSpec
from noted import noted

COLUMNS = {"size": [1.0, 2.0, 3.0, 4.0], "color": ["red", "blue", "red", "blue"]}


def png(seed, mode="L"):
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 20) if mode == "L" else (20, 20, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def model(pipeline):
    spec = TaskSpec("classification", pipeline.input_shape, 2, "permuted")
    return MetaModel(PrototypicalNetwork.build(spec, backbone="linear"), pipeline)


@pytest.mark.parametrize(
    ("given", "media"),
    [
        ("caf\u00e9 \U0001f600", "text"),
        (b"\x89PNG\x00", "image"),
        ({"b": 1, "a": "x", "c": None, "d": True, "e": 0.1}, "row"),
        ([0.1, 1e300], "array float64 2"),
        ([[1, 2], [3, 4]], "array int64 2 2"),
        (np.array([[7, 255]], np.uint8), "array uint8 1 2"),
        (np.float32([0.5]), "array float64 1"),
        (torch.tensor([0.5]), "array float64 1"),
    ],
)
def test_an_input_comes_back_as_it_was(given, media):
    kept = written(given)
    assert kept.media == media
    back = value(kept)
    assert back == given if not media.startswith("array") else np.array_equal(back, np.asarray(given))
    assert written(back) == kept


def test_equal_rows_are_kept_alike_and_missing_cells_are_none():
    assert written({"a": np.float64("nan"), "b": np.int64(2)}) == written({"b": 2, "a": None})
    for wrong in (float("inf"), [1], b"x", 1j):
        with pytest.raises(DataError, match="Input 3: A cell is") as error:
            written({"a": wrong}, 3)
        assert error.value.field == ("inputs", 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64])
def test_what_pipelines_make_comes_back_bit_for_bit(dtype):
    inputs = torch.randn(3, 2, 2).mul(50).abs().to(dtype)
    back = torch.stack([encoded_tensor(content) for content in encoded_bytes(inputs)])
    assert back.dtype == dtype
    assert torch.equal(back, inputs)


def test_images_are_read_as_the_library_reads_them(tmp_path):
    meta = model(ImagePipeline(size=8, channels=1))
    images, queries, labels = [png(seed) for seed in range(4)], [png(9), png(10, "RGB")], ["a", "a", "b", "b"]
    library = meta.adapt(meta.pipeline.encode(images), labels)
    wanted = meta.predict(library, meta.pipeline.encode(queries)).logits.softmax(-1)
    with Service(meta, tmp_path / "store") as service:
        task = service.create("shelf", images, labels)
        made = service.predict(task.id, queries).predictions
        assert np.allclose([list(one.probabilities.values()) for one in made], wanted, atol=1e-6)
        assert [one.input for one in service.examples(task.id)] == images
        assert service.correct(task.id, images[:1], ["b"]).head.examples == 4
        imported = service.import_task("came in", service.export(task.id))
        assert imported.head.digest == service.get(task.id).head.digest
        with pytest.raises(DataError, match="Input 1"):
            service.predict(task.id, [images[0], b"no image"])
        file = io.BytesIO()
        Image.new("L", (5001, 5000)).save(file, "PNG")
        with pytest.raises(DataError, match="pixels"):
            service.predict(task.id, [file.getvalue()])


def test_rows_are_read_as_the_library_reads_them(tmp_path):
    meta = model(TablePipeline.fit(Table("rows", pa.table(COLUMNS)), np.arange(4)))
    rows = [{"size": 1.0, "color": "red"}, {"size": 9.0, "color": "blue"}, {"color": "red", "size": None}]
    labels = ["a", "b", "a"]
    with noted("Empty cells"):
        library = meta.adapt(meta.pipeline.encode(rows), labels)
    with Service(meta, tmp_path / "store") as service:
        task = service.create("shelf", rows, labels)
        assert [note.code for note in task.notes] == ["empty-cells"]
        with noted("green"):
            wanted = meta.predict(library, meta.pipeline.encode([{"size": 2, "color": "green"}])).logits.softmax(-1)
        made = service.predict(task.id, [{"size": 2, "color": "green"}])
        assert np.allclose(list(made.predictions[0].probabilities.values()), wanted[0], atol=1e-6)
        assert ["green" in note.message for note in made.notes] == [True]
        assert [one.input for one in service.examples(task.id)] == rows
        with pytest.raises(DataError, match="color"):
            service.predict(task.id, [{"size": 2}])


def test_names_are_composed_and_have_no_characters_that_hide():
    assert checked_name("e\u0301") == "\u00e9"
    assert checked_name("\U0001f469\u200d\U0001f52c") == "\U0001f469\u200d\U0001f52c"
    for wrong in ("", "  ", "a\x00", "a\u202eb", "\ud800", "a\u2028", "x" * 129):
        with pytest.raises(ValueError, match="A label"):
            checked_name(wrong, "label")
