"""Uploaded files give the examples that the library reads of them."""

import io
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from handful.errors import HandfulError
from handful.http.limits import DEFAULTS, RequestLimits
from handful.http.uploaded_files import examples_of_file, inputs_of_file
from handful.learners.bayesian_heads import BayesianLastLayer
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.notes import collecting
from handful.pipelines.arrays import ArrayPipeline
from handful.pipelines.images import ImagePipeline
from handful.pipelines.own_tables import ManyTablesPipeline
from handful.pipelines.rows import TablePipeline
from handful.pipelines.texts import TextPipeline
from handful.readers.reader import read
from handful.serving.inputs import all_written, values
from handful.types import TaskSpec
from handful.workflows.encoding import encoded_examples
from small_encoders import Letters

CSV = """size;price;at;color;name
1,5 km;10 EUR;25.5.2024;red;a
2.000,25 km;20 EUR;1.6.2024;blue;b
;30 EUR;2.6.2024 13:30;red;a
"""


def model(pipeline):
    if pipeline.targets:
        spec = TaskSpec("regression", pipeline.input_shape, len(pipeline.targets), "shared")
        return MetaModel(BayesianLastLayer.build(spec, backbone="mlp", backbone_options={"hidden": [4]}), pipeline)
    spec = TaskSpec("classification", pipeline.input_shape, 2, "permuted")
    return MetaModel(PrototypicalNetwork.build(spec, backbone="linear"), pipeline)


def image(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def packed(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def same(path, meta):
    """The examples and inputs of a file are those of the library, also by themselves and in another order."""
    with collecting():
        wanted = encoded_examples(meta.pipeline, path, added=True)
        inputs, labels = examples_of_file(path, meta)
        kept = all_written(inputs)
        assert torch.equal(meta.pipeline.stored(values(kept)), meta.pipeline.stored(values(kept[::-1])).flip(0))
        alone = torch.cat([meta.pipeline.encode(values([one])) for one in kept])
    assert torch.equal(alone, wanted.inputs)
    assert labels == (wanted.labels.tolist() if meta.pipeline.targets else list(wanted.labels))
    return inputs, labels


def refused(path, meta, code, limits=DEFAULTS):
    for take in (examples_of_file, inputs_of_file):
        with pytest.raises(HandfulError) as error, collecting():
            take(path, meta, limits)
        assert (error.value.code, error.value.field[0]) == (code, "file")
        assert str(path.parent) not in str(error.value)


def test_an_archive_of_class_folders(tmp_path):
    files = {f"{label}/{number}.png": image(number) for number, label in enumerate("abab")}
    path = packed(tmp_path / "file.zip", files)
    inputs, labels = same(path, model(ImagePipeline(size=4)))
    assert (inputs[0], labels) == (files["a/0.png"], ["a", "a", "b", "b"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.zip"]
    assert inputs_of_file(packed(path, {"1.png": image(1)}), model(ImagePipeline(size=4))) == [image(1)]


@pytest.mark.parametrize("role", [{"label": "name", "drop": ["price"]}, {"target": "price", "drop": ["name"]}])
def test_a_table_whose_cells_are_written_in_its_own_way(tmp_path, role):
    path = tmp_path / "file.csv"
    path.write_text(CSV)
    with collecting():
        pipeline = TablePipeline.fit(read(path).inputs, np.arange(3), **role)
        inputs, _ = same(path, model(pipeline))
        assert len(inputs_of_file(path, model(pipeline))) == 3
    assert inputs[0] == {"at": "2024-05-25", "color": "red", "size": 1.5}
    assert inputs[2] == {"at": "2024-06-02 13:30:00", "color": "red", "size": None}


@pytest.mark.parametrize("role", [{"label": "last"}, {"target": "price"}])
def test_a_table_with_columns_of_its_own(tmp_path, role):
    path = tmp_path / "file.csv"
    path.write_text(CSV)
    meta = model(ManyTablesPipeline(width=3, **role))
    with collecting():
        wanted = encoded_examples(meta.pipeline, path)
        inputs, labels = examples_of_file(path, meta)
        assert inputs[0]["size"] == "1.5 km"
        own = meta.pipeline.of_rows(inputs, [one[0] for one in labels], range(3))
        torch.testing.assert_close(own.encode(inputs), wanted.inputs)
        assert ("name" in inputs[0], "price" in inputs[0]) == ("target" in role, "label" in role)
        assert labels == (["a", "b", "a"] if "label" in role else [[10.0], [20.0], [30.0]])
        queries = inputs_of_file(path, meta.with_pipeline(own))
        torch.testing.assert_close(own.encode(queries), wanted.inputs)


def test_a_table_with_types(tmp_path):
    columns = {"size": [1.5, None, 3.0], "on": [True, False, True], "label": ["a", "b", "a"]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "file.parquet")
    with collecting():
        pipeline = TablePipeline.fit(read(tmp_path / "file.parquet").inputs, np.arange(3), label="label")
    same(tmp_path / "file.parquet", model(pipeline))


class Reader:
    """In place of an encoder: counts letters."""

    def embed(self, texts):
        return torch.from_numpy(Letters().encode(texts))


def test_texts_of_a_table_or_of_class_folders(tmp_path):
    pipeline = TextPipeline(text="text", encoder="letters", revision="1", width=26, label="label")
    pipeline._loaded = Reader()
    (tmp_path / "file.csv").write_text("text,label,other\nan apple,a,1\na  bee,b,2\nan ant,a,3\n")
    assert same(tmp_path / "file.csv", model(pipeline)) == (["an apple", "a  bee", "an ant"], ["a", "b", "a"])
    path = packed(tmp_path / "file.zip", {"a/1.txt": "an apple", "b/1.txt": "a bee\n", "a/2.txt": "an ant"})
    assert sorted(same(path, model(pipeline))[0])[0].strip() == "a bee"
    refused(path, model(pipeline), "input-too-large", RequestLimits(text_bytes=5))
    (tmp_path / "file.csv").write_text("text,label\nan apple,a\na\0bee,b\n")
    with pytest.raises(HandfulError):
        examples_of_file(tmp_path / "file.csv", model(pipeline))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int16])
def test_arrays(tmp_path, dtype):
    inputs = np.arange(12).reshape(4, 3).astype(dtype)
    np.savez(tmp_path / "file.npz", inputs=inputs, labels=np.array(["a", "b", "b", "a"]))
    given, labels = same(tmp_path / "file.npz", model(ArrayPipeline(raw_shape=(3,))))
    assert np.array_equal(np.stack(given), inputs)
    assert labels == ["a", "b", "b", "a"]
    np.savez(tmp_path / "file.npz", inputs=inputs, targets=np.arange(4) / 3)
    assert same(tmp_path / "file.npz", model(ArrayPipeline(raw_shape=(3,), outputs=1)))[1][3] == [1.0]


def test_what_does_not_fit_is_named_without_its_place_on_the_server(tmp_path):
    images, arrays = model(ImagePipeline(size=4)), model(ArrayPipeline(raw_shape=(3,)))
    refused(packed(tmp_path / "a.zip", {"../a": b""}), images, "archive-unsafe")
    refused(packed(tmp_path / "b.zip", {"a/1.png": image(0), "a/note.exe": b""}), arrays, "unsupported-media")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    refused(tmp_path / "a.csv", images, "unsupported-media")
    (tmp_path / "a.npz").write_bytes(b"x")
    refused(tmp_path / "a.npz", arrays, "invalid-data")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    refused(tmp_path / "a.parquet", images, "unsupported-media")
    np.savez(tmp_path / "b.npz", inputs=np.zeros((4, 3)), labels=list("abab"))
    refused(tmp_path / "b.npz", arrays, "payload-too-large", RequestLimits(inputs=3))
    refused(tmp_path / "b.npz", arrays, "payload-too-large", RequestLimits(numbers=11))
    refused(packed(tmp_path / "c.zip", {"a/1.png": image(0)}), images, "input-too-large", RequestLimits(image_bytes=9))
    spec = TaskSpec("classification", (3,), 2, "permuted")
    generated = MetaModel(PrototypicalNetwork.build(spec, backbone="linear"))
    refused(tmp_path / "b.npz", generated, "unsupported-media")
