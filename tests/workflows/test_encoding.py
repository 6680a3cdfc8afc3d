"""An image, a row and a text give the same digits through files, estimators and models."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from handful.encoders.texts import TextEncoder
from handful.errors import DataError
from handful.estimators import FewShotClassifier
from handful.models.meta_model import MetaModel
from handful.notes import collecting
from handful.pipelines.images import ImagePipeline
from handful.pipelines.pipeline import InputPipeline
from handful.pipelines.rows import TablePipeline
from handful.pipelines.texts import TextPipeline
from handful.readers.reader import read
from handful.registry import LEARNERS
from handful.tasks.opening import open_tasks
from handful.types import TaskSpec
from handful.workflows.adapt import adapt_from_file
from handful.workflows.encoding import encoded_examples, encoded_inputs
from handful.workflows.predict import predict_from_files
from small_encoders import Letters, tiny_encoder
from tables import read_table

NOISE = np.random.default_rng(0).integers(0, 256, (6, 30, 20, 3), np.uint8)


def model_of(pipeline, folder):
    spec = TaskSpec("classification", pipeline.input_shape, 2)
    MetaModel(LEARNERS["protonet"].build(spec, backbone="linear"), pipeline).save_pretrained(folder)
    return MetaModel.from_pretrained(folder)


def check_faces(folder, examples, inputs, support, labels, query):
    """Files through the workflows of the commands; values through an estimator and through the model."""
    model = MetaModel.from_pretrained(folder)
    adapt_from_file(folder, examples).save(folder / "a.task")
    told = [
        [row["probabilities"][name] for name in ("a", "b")]
        for row in next(predict_from_files(folder / "a.task", [inputs]))
    ]
    estimated = FewShotClassifier(model).fit(support, labels).predict_proba(query)
    task = model.adapt(model.pipeline.encode(support), labels)
    logits = model.predict(task, model.pipeline.encode(query)).logits
    assert told == logits.softmax(-1).tolist()
    np.testing.assert_array_equal(estimated, logits.double().softmax(-1).numpy())
    np.testing.assert_allclose(told, estimated, atol=1e-6)


def saved(pixels, mode):
    """A file of such an image: on its side if it is turned, and where it has floats or 32 bits in their unit."""
    exif = Image.Exif()
    exif[0x0112] = 6
    gray = pixels[..., 0]
    image, options = {
        "turned": lambda: (Image.fromarray(pixels), {"format": "JPEG", "exif": exif}),
        "16 bits": lambda: (Image.fromarray(gray.astype(np.uint16) * 257), {"format": "PNG"}),
        "12 bits in 16": lambda: (Image.fromarray(gray.astype(np.uint16) * 16), {"format": "TIFF"}),
        "32 bits": lambda: (Image.fromarray(gray.astype(np.int32) * 99 - 777), {"format": "TIFF"}),
        "floats": lambda: (Image.fromarray(gray / np.float32(3)), {"format": "TIFF"}),
    }.get(mode, lambda: (Image.fromarray(pixels).convert(mode), {"format": "TIFF"}))()
    content = io.BytesIO()
    image.save(content, **options)
    return content.getvalue()


@pytest.mark.parametrize(
    "modes",
    [
        ("RGB", "P", "CMYK", "L", "RGBA", "turned"),
        ("16 bits",) * 6,
        ("12 bits in 16",) * 6,
        ("32 bits",) * 6,
        ("floats",) * 6,
    ],
    ids=lambda modes: modes[0],
)
def test_an_image_through_all_faces(modes, tmp_path):
    contents = [saved(pixels, mode) for pixels, mode in zip(NOISE, modes, strict=True)]
    places = ["examples/a/0.tif", "examples/a/1.tif", "examples/b/0.tif", "examples/b/1.tif", "in/0.tif", "in/1.jpg"]
    for place, content in zip(places, contents, strict=True):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(content)
    with collecting():
        pipeline = ImagePipeline.fit(contents, np.arange(6), size=8)
    assert (pipeline.levels is None) == (modes[0] == "RGB")
    model_of(pipeline, tmp_path / "model")
    opened = [Image.open(io.BytesIO(content)) for content in contents]
    for values in (contents, opened):
        check_faces(
            tmp_path / "model", tmp_path / "examples", tmp_path / "in", values[:4], ["a", "a", "b", "b"], values[4:]
        )


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("encoder", ["letters", "tiny"])
def test_a_text_through_all_faces(encoder, tmp_path, monkeypatch):
    folder = tmp_path / "encoder"
    if encoder == "tiny":
        folder = tiny_encoder(folder)
    else:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        monkeypatch.setattr(TextEncoder, "model", Letters())
    support, query = ["apple bank", "dog, dog", " eagle ", "fish jam"], ["bank dog", "jam \u00e9"]
    rows = zip(support, ["a", "a", "b", "b"], strict=True)
    (tmp_path / "e.csv").write_text("text,y\n" + "".join(f'"{text}",{label}\n' for text, label in rows))
    (tmp_path / "q.txt").write_text("\n".join(query), encoding="utf-8")
    (tmp_path / "q.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in query))
    pipeline = TextPipeline.fit(
        read_table(tmp_path / "e.csv"), np.arange(4), text="text", encoder=TextEncoder(str(folder)), label="y"
    )
    model_of(pipeline, tmp_path / "model")
    for form in (list, np.array, lambda texts: [{"text": text} for text in texts], lambda texts: [[t] for t in texts]):
        for inputs in ("q.txt", "q.jsonl"):
            check_faces(
                tmp_path / "model",
                tmp_path / "e.csv",
                tmp_path / inputs,
                form(support),
                ["a", "a", "b", "b"],
                form(query),
            )


def test_a_row_through_all_faces(tmp_path):
    (tmp_path / "e.csv").write_text("x,city,y\n1.5,Rome,a\n2, Oslo,a\n,Rome,b\n9,Oslo,b \n")
    (tmp_path / "q.csv").write_text("city,x\nRome,3.25\nOslo,0.1\n")
    pipeline = TablePipeline.fit(read_table(tmp_path / "e.csv"), np.arange(4), label="y")
    model_of(pipeline, tmp_path / "model")
    support = [[1.5, "Rome"], [2, "Oslo"], [None, "Rome"], [9, "Oslo"]]
    query = [[3.25, "Rome"], [0.1, "Oslo "]]
    for form in (list, lambda rows: [dict(zip(("x", "city"), row, strict=True)) for row in rows]):
        check_faces(
            tmp_path / "model", tmp_path / "e.csv", tmp_path / "q.csv", form(support), ["a", "a", "b", "b"], form(query)
        )


def test_labels_are_encoded_as_they_are_read(tmp_path):
    (tmp_path / "e.csv").write_text("x,y,v\n1,a,0.1\n2,b ,7\n")
    raw = read(tmp_path / "e.csv")
    assert raw.labels is None
    pipeline = TablePipeline.fit(raw.inputs, np.arange(2), label="y", drop=["v"])
    assert encoded_examples(pipeline, tmp_path / "e.csv").labels == pipeline.encode_labels(["a", " b"]) == ("a", "b")
    valued = TablePipeline.fit(raw.inputs, np.arange(2), target="v", drop=["y"])
    assert torch.equal(encoded_examples(valued, tmp_path / "e.csv").labels, valued.encode_labels([0.1, 7]))
    with pytest.raises(DataError, match="only one class"):
        pipeline.encode_labels(["a", "a"])
    with pytest.raises(DataError, match="nan is not a finite number"):
        valued.encode_labels([1.0, float("nan")])


def test_what_a_model_does_not_take_is_told(tmp_path):
    (tmp_path / "e.csv").write_text("x,y\n1,a\n2,b\n")
    (tmp_path / "a.xyz").write_text("?")
    with pytest.raises(DataError, match="does not contain labeled examples for this model, which takes: color images"):
        encoded_examples(ImagePipeline(channels=3), tmp_path / "e.csv")
    with pytest.raises(DataError, match=r"e\.csv, row 1 .* is not an image"):
        encoded_inputs(ImagePipeline(), tmp_path / "e.csv")
    with pytest.raises(DataError, match=r"a\.xyz is not of a supported format: .*an image"):
        read(tmp_path / "a.xyz")


def test_targets_are_in_the_unit_of_the_training(tmp_path):
    rows = "".join(f"s{n % 5};{n};{n},5 \u20ac\n" for n in range(40))
    (tmp_path / "t.csv").write_text("shop;x;price\n" + rows, encoding="utf-8")
    pipeline = open_tasks(tmp_path / "t.csv", task="shop", target="price").pipeline
    assert InputPipeline.from_config(pipeline.config()).unit == "\u20ac"
    new = tmp_path / "new.csv"
    for cell in ("7,5 $", "7,5"):
        new.write_text(f"x;price\n1;{cell}\n2;{cell}\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"'price', is in .*, but the model was trained on \u20ac"):
            encoded_examples(pipeline, new)
        (tmp_path / "other.csv").write_text(f"shop;x;price\n{rows}".replace(",5 \u20ac", cell[1:]), encoding="utf-8")
        with pytest.raises(DataError, match="but the model was trained on \u20ac"):
            open_tasks(tmp_path / "other.csv", task="shop", target="price", pipeline=pipeline)
    new.write_text("x;price\n1;7,5 \u20ac\n2;8 \u20ac\n", encoding="utf-8")
    assert encoded_examples(pipeline, new).labels.tolist() == [[7.5], [8]]
