import json

import numpy as np
import pytest
import torch
from PIL import Image

from handful import LEARNERS, evaluate
from handful.errors import ArtifactError, DataError, UserError
from handful.pipelines.arrays import ArrayPipeline
from handful.pipelines.encoded_images import EncodedImagePipeline
from handful.pipelines.images import ImagePipeline
from handful.pipelines.own_tables import ManyTablesPipeline
from handful.pipelines.pipeline import PIPELINES, InputPipeline
from handful.pipelines.rows import TablePipeline
from handful.pipelines.spread import DEVIATIONS
from handful.pipelines.texts import TextPipeline
from handful.readers.images import ImageFiles
from handful.table import Table
from handful.tasks.opening import open_tasks
from handful.workflows.encoding import encoded_examples, encoded_inputs
from noted import noted
from tables import read_table

SIDE = float(np.float32(DEVIATIONS / 2 / 0.98))
"""Each of two values: their width is 98 % of their distance."""


def csv(tmp_path, text, name="table.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def letters(tmp_path, classes=("a", "b"), count=2, paper=255, ink=0):
    for number, name in enumerate(classes):
        (tmp_path / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((40, 40), paper, np.uint8)
            pixels[10:30, 5 + 5 * number : 15 + 5 * number] = ink
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return tmp_path


@pytest.fixture
def table(tmp_path):
    rows = "age,city,flag,same,price\n30,Rome,true,7,1\n50,Oslo,false,7,3\n1000,Paris,true,8,100\n"
    return read_table(csv(tmp_path, rows))


@pytest.fixture
def pipeline(table):
    return TablePipeline.fit(table, np.array([0, 1]), target="price")


def test_the_rows_to_adapt_to_are_of_one_task(tmp_path):
    two = csv(tmp_path, "age,shop,price\n30,a,1\n50,b,3\n40,a,2\n", "two.csv")
    pipeline = TablePipeline.fit(read_table(two), np.arange(3), target="price", task="shop")
    with pytest.raises(DataError, match=r"column 'shop', has 2 tasks \(a, b\)"):
        encoded_examples(pipeline, two)
    assert len(encoded_examples(pipeline, csv(tmp_path, "age,shop,price\n30,a,1\n40,a,2\n", "one.csv")).ids) == 2
    assert len(encoded_examples(pipeline, csv(tmp_path, "age,price\n30,1\n40,2\n", "none.csv")).ids) == 2
    assert len(encoded_examples(pipeline, csv(tmp_path, "age,shop,price\n30,a,1\n40,,2\n", "unnamed.csv")).ids) == 2
    inputs = np.arange(8.0).reshape(4, 2)
    arrays = ArrayPipeline.fit(inputs, np.arange(4), targets=inputs[:, :1])
    np.savez(tmp_path / "two.npz", inputs=inputs, targets=inputs[:, 0], task=[1, 1, 2, 2])
    with pytest.raises(DataError, match="has 2 tasks"):
        encoded_examples(arrays, tmp_path / "two.npz")
    drawn = ArrayPipeline.fit(inputs, np.arange(4))
    np.savez(tmp_path / "drawn.npz", inputs=inputs, labels=["a", "b", "a", "b"], task=[1, 1, 2, 2])
    assert len(encoded_examples(drawn, tmp_path / "drawn.npz").ids) == 4, "a model trained without tasks knows none"


def test_a_pipeline_says_what_it_reads(pipeline, tmp_path):
    assert pipeline.described() == "age (number), city (2 categories), flag (2 categories), same (number)"
    wide = csv(tmp_path, ",".join(f"x{i}" for i in range(20)) + "\n" + ",".join(["1"] * 20) + "\n", "wide.csv")
    assert TablePipeline.fit(read_table(wide), np.arange(1)).described().endswith("x11 (number), and 8 more")
    days = csv(tmp_path, "day,kind\n2024-01-02,a\n2024-02-03,a\n", "days.csv")
    assert TablePipeline.fit(read_table(days), np.arange(2)).described() == "day (date), kind (1 category)"
    assert ImagePipeline(size=20, channels=3, invert=True).described() == "color images of 20 x 20 pixels, inverted"


def test_all_kinds_survive_json(pipeline, tmp_path):
    many = ManyTablesPipeline(width=4, target="age", drop=["id"])
    own = many.of_task(read_table(csv(tmp_path, "height,weight,age\n1,2,3\n2,5,4\n3,1,9\n", "people.csv")))
    arrays = ArrayPipeline.fit(np.arange(12.0).reshape(4, 3), np.arange(3), labels=["a", "b"])
    texts = TextPipeline(text="question", encoder="name", revision="1", width=8, scale=0.1, label="intent")
    how = {"encoder": "name", "revision": "1", "provenance": {"licence": "MIT"}}
    encoded = EncodedImagePipeline(**how, shape=[8], scale=0.1, levels=(0, 4095))
    pixels = EncodedImagePipeline(**how, shape=[3, 8, 8], layers=None)
    images = ImagePipeline(size=20, channels=3, invert=True)
    for one in (pipeline, arrays, texts, many, own, images, encoded, pixels):
        config = json.loads(json.dumps(one.config()))
        again = InputPipeline.from_config(config)
        assert type(again) is type(one)
        assert again.config() == config
        assert again.input_shape == one.input_shape
        del config["kind"]
        assert InputPipeline.of_kind(one.kind).from_config(config).config() == one.config()
    assert list(PIPELINES) == ["arrays", "encoded-images", "images", "own table", "table", "tables", "texts"]


EARLIER = {"kind": "table", "columns": [{"name": "x", "mean": 0.0, "scale": 1.0}]}


@pytest.mark.parametrize("config", [{"kind": "sounds"}, {}, {"kind": "table"}, {"kind": "images", "sice": 3}, EARLIER])
def test_broken_config(config):
    with pytest.raises(ArtifactError, match="saved input pipeline"):
        InputPipeline.from_config(config)


# Tables


UNKNOWN = "Values of the column 'city' that do not occur in the training rows \\('Paris'\\) count as empty"


def test_table_is_fitted_on_the_training_rows_alone(table, pipeline):
    with noted(UNKNOWN):
        encoded = pipeline.encode(table)
    # age by median 40 and width 19.6; cities Oslo, Rome (Paris is unknown); flags False, True; a constant
    assert encoded.tolist() == [
        [-SIDE, 0, 1, 0, 1, 0],
        [SIDE, 1, 0, 1, 0, 0],
        [pytest.approx(96 * SIDE), 0, 0, 0, 1, 1],
    ]
    assert (pipeline.target_mean.tolist(), pipeline.target_scale.tolist()) == ([2], [1])
    assert pipeline.labels_or_targets(table).tolist() == [[1], [3], [100]]
    with noted(r"Targets such as 100 are more than 50 standard deviations .* \(2 ± 1\)"):
        assert pipeline.scaled(pipeline.labels_or_targets(table)).tolist() == [[-1], [1], [98]]


def test_new_table_may_have_other_columns_and_order(pipeline, tmp_path):
    path = csv(tmp_path, "extra,same,flag,city,age\nzzz,7,true,Rome,30\nzzz,7,false,,50\n", "new.csv")
    inputs, ids = encoded_inputs(pipeline, path)
    assert inputs.tolist() == [[-SIDE, 0, 1, 0, 1, 0], [SIDE, 0, 0, 1, 0, 0]]
    assert ids == ["1", "2"]


def test_missing_columns_are_all_named(pipeline, tmp_path):
    path = csv(tmp_path, "Age,same,flag\n30,7,true\n", "new.csv")
    with pytest.raises(DataError, match=r"no column 'age' \(did you mean 'Age'\?\), 'city', which the model was"):
        encoded_inputs(pipeline, path)
    with pytest.raises(DataError, match="no column 'price', the target"):
        encoded_examples(pipeline, path)


def test_text_in_a_number_column_of_a_new_table(pipeline, tmp_path):
    path = csv(tmp_path, "age,city,flag,same\nthirty,Rome,true,7\n", "new.csv")
    with pytest.raises(DataError, match=r"column 'age', row 1 .*: 'thirty' is not a finite number"):
        encoded_inputs(pipeline, path)


def test_empty_cells_are_the_median_and_say_so_where_the_training_rows_have_some(tmp_path):
    path = csv(tmp_path, "age,size,none\n30,1,\n,2,\n50,3,\n40,,\n")
    pipeline = TablePipeline.fit(read_table(path), np.arange(3))
    assert pipeline.described() == "age (number, or empty), size (number)", "all of the last are empty"
    assert pipeline.input_shape == (3,)
    again = InputPipeline.from_config(json.loads(json.dumps(pipeline.config())))
    rows = read_table(csv(tmp_path, "age,size\n50,2\n,2\n", "new.csv"))
    assert again.encode(rows).tolist() == [[SIDE, 0, 0], [0, 1, 0]]
    assert again.encode([[50, 2], [np.nan, 2]]).tolist() == [[SIDE, 0, 0], [0, 1, 0]]
    with noted("cells of the column 'age' such as 'NA' count as empty"):
        assert again.encode(np.array([[50, 2], ["NA", 2]], dtype=object)).tolist() == [[SIDE, 0, 0], [0, 1, 0]]
    with noted("Empty cells of the column 'size' count as the median: the training rows"):
        assert again.encode(read_table(path))[3].tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="column 'size', row 1: inf is not a finite number"):
        again.encode([[50, np.inf]])


def test_table_rows_in_memory(table, pipeline):
    rows = [[30, "Rome", True, 7], [50, "Oslo", False, 7], [1000, "Paris", True, 8]]
    with noted(UNKNOWN):
        assert torch.equal(pipeline.encode(np.array(rows, dtype=object)), pipeline.encode(table))
    with pytest.raises(DataError, match=r"rows of 4 values \(columns 'age', 'city', .*got \(3, 2\)"):
        pipeline.encode(np.zeros((3, 2)))
    with pytest.raises(DataError, match="column 'age', row 1: 'old' is not a finite number"):
        pipeline.encode(np.array([["old", "Rome", True, 7]], dtype=object))


def test_too_many_categories(tmp_path):
    table = read_table(csv(tmp_path, "id,label\n" + "".join(f"x{i},a\n" for i in range(51))))
    with pytest.raises(DataError, match=r"text column 'id' has 51 different values.*Exclude it"):
        TablePipeline.fit(table, np.arange(51), label="label")
    with pytest.raises(DataError, match="no input columns"):
        TablePipeline.fit(table, np.arange(51), label="label", drop=["id"])


def test_categories_that_look_like_numbers_are_told(tmp_path):
    table = read_table(csv(tmp_path, "size,label\n10,a\nsmall,b\nlarge,a\n0077,b\n"))
    with noted(r"'size' is read as categories, although cells such as '10' look like numbers") as notes:
        TablePipeline.fit(table, np.arange(4), label="label")
    assert [note.count for note in notes] == [2]
    many = Table.of([{"price": f"{i},500", "label": "a"} for i in range(1, 52)], ["price", "label"])
    with pytest.raises(DataError, match=r"such as '1,500' \(write 1\.500, or if it separates thousands, 1500\)"):
        TablePipeline.fit(many, np.arange(51), label="label")


def test_examples_of_one_class_or_an_unknown_label(tmp_path):
    table = read_table(csv(tmp_path, "x,y\n1,a\n2,b\n"))
    one = csv(tmp_path, "x,y\n1,a\n2,a\n", "one.csv")
    with pytest.raises(DataError, match=r"one\.csv, column 'y', has only one class \('a'\)"):
        encoded_examples(TablePipeline.fit(table, np.arange(2), label="y"), one)
    shared = TablePipeline.fit(table, np.arange(2), label="y", labels=["a", "b"])
    assert encoded_examples(shared, one).labels == ("a", "a")
    with pytest.raises(DataError, match=r"label 'c', which is not one of the model's. Its labels: 'a', 'b'"):
        encoded_examples(shared, csv(tmp_path, "x,y\n1,c\n", "c.csv"))


# Images


def fitted(folder, **options):
    """The pipeline of all images in a folder or in its subfolders."""
    files = sorted(folder.rglob("*.png"))
    return ImagePipeline.fit(ImageFiles(files), np.arange(len(files)), **options)


def test_dark_ink_becomes_bright(tmp_path):
    folder = letters(tmp_path / "dark")
    pipeline = fitted(folder)
    assert pipeline.settings() == {"size": 28, "channels": 1, "invert": True}
    examples = encoded_examples(pipeline, folder)
    assert examples.labels == ("a", "a", "b", "b")
    assert examples.ids == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert examples.inputs.shape == (4, 1, 28, 28)
    assert examples.inputs[:, :, 0].max() == 0
    assert examples.inputs.max() == 1
    assert fitted(letters(tmp_path / "b", paper=0, ink=255)).invert is False


@pytest.mark.parametrize(("side", "size"), [(20, 28), (50, 50), (200, 84)])
def test_colored_images_choose_their_size(tmp_path, side, size):
    Image.new("RGB", (side, side), (200, 0, 0)).save(tmp_path / "a.png")
    pipeline = fitted(tmp_path)
    assert pipeline.settings() == {"size": size, "channels": 3, "invert": False}
    assert fitted(tmp_path, size=32).input_shape == (3, 32, 32)


def test_inputs_are_one_image_or_a_folder(tmp_path):
    pipeline = ImagePipeline(size=28, invert=True)
    folder = letters(tmp_path)
    inputs, ids = encoded_inputs(pipeline, folder / "a")
    assert inputs.shape == (2, 1, 28, 28)
    assert ids == ["0.png", "1.png"]
    assert encoded_inputs(pipeline, folder / "a" / "1.png")[1] == ["1.png"]
    (folder / "b").rename(tmp_path / ".b")
    with pytest.raises(DataError, match="only one class"):
        encoded_examples(pipeline, folder)


def test_images_in_memory_are_treated_like_files(tmp_path):
    pipeline = ImagePipeline(size=28, invert=True)
    files = sorted(letters(tmp_path).glob("*/*.png"))
    raw = np.stack([np.asarray(Image.open(file)) for file in files])
    expected = encoded_inputs(pipeline, files[0].parent)[0]
    assert torch.equal(pipeline.encode(raw)[:2], expected)
    assert torch.equal(pipeline.encode(raw[..., None])[:2], expected)
    assert torch.equal(pipeline.encode(np.repeat(raw[..., None], 3, axis=-1))[:2], expected)
    assert torch.equal(pipeline.encode(expected.numpy()), expected)
    assert torch.equal(pipeline.encode(expected.flatten(1).numpy()), expected)
    with pytest.raises(DataError, match=r"expects images as bytes.*floats.*\(n, 1, 28, 28\).*got.*\(2, 7\)"):
        pipeline.encode(np.zeros((2, 7)))


# Arrays


def test_names_in_bytes_are_texts_and_complex_inputs_are_refused(tmp_path):
    names, inputs = np.array([b"oak", b"elm", b"ash", b"fir"] * 6), np.arange(48.0).reshape(24, 2)
    np.savez(tmp_path / "t.npz", inputs=inputs, labels=names)
    with noted("4 classes, too few"):
        splits = open_tasks(tmp_path / "t.npz").split_manifest().values()
    assert {name for classes in splits for name in classes} == {"ash", "elm", "fir", "oak"}
    np.savez(tmp_path / "t.npz", inputs=inputs + 1j, labels=names)
    complex_inputs = pytest.raises(DataError, match="'inputs' should hold numbers only \\(they are complex")
    with noted("4 classes, too few"), complex_inputs:
        open_tasks(tmp_path / "t.npz")


@pytest.mark.parametrize("kind", ["tokens", "padded", "bytes"])
def test_raw_inputs_stay_as_they_are(tmp_path, kind):
    """In training and later; without it a note tells where scaling may not be meant."""
    generator = np.random.default_rng(0)
    inputs = generator.integers(1, 50, (60, 6))
    inputs[:30, 4:] = 0
    inputs = {
        "tokens": inputs,
        "padded": inputs[..., None] + 0.5 * (inputs[..., None] > 0),
        "bytes": inputs.astype(np.uint8),
    }[kind]
    np.savez(tmp_path / "t.npz", inputs=inputs, labels=np.arange(60) % 12)
    with noted("'inputs' end with zeros" if kind == "padded" else "'inputs' are whole numbers") as notes:
        scaled = open_tasks(tmp_path / "t.npz")
    assert sum(note.count for note in notes) == (30 if kind == "padded" else 1)
    assert not np.equal(scaled.inputs.numpy(), inputs).all()
    tasks = open_tasks(tmp_path / "t.npz", inputs="raw")
    assert np.equal(tasks.inputs.numpy(), inputs).all()
    again = InputPipeline.from_config(tasks.pipeline.config())
    assert np.equal(again.encode(inputs[:3]).numpy(), inputs[:3]).all()


def test_raw_is_a_kind_of_arrays_alone(tmp_path):
    (tmp_path / "t.csv").write_text("x,label\n" + "".join(f"{n},{n % 12}\n" for n in range(60)))
    with pytest.raises(UserError, match="The option inputs does not apply to a table"):
        open_tasks(tmp_path / "t.csv", label="label", inputs="raw")


def test_rows_are_scaled_by_the_training_rows():
    inputs = np.array([[0.0, 5], [2, 5], [100, 6]])
    pipeline = ArrayPipeline.fit(inputs, np.array([0, 1]))
    assert pipeline.encode(inputs).tolist() == [[-SIDE, 0], [SIDE, 0], [pytest.approx(99 * SIDE), 1]]
    with pytest.raises(DataError, match=r"inputs of shape \(n, 2\), got \(1, 3\)"):
        pipeline.encode(np.zeros((1, 3)))
    with pytest.raises(DataError, match="Input 1, column 2: nan is not a finite number"):
        pipeline.encode(np.array([[0, 0], [0, np.nan]]))


@pytest.mark.parametrize("shape", [(20, 20), (20, 20, 3), (3, 20, 20), (20, 20, 4), (4, 20, 20)])
def test_bytes_are_images(tmp_path, shape):
    inputs = np.random.default_rng(0).integers(0, 255, (4, *shape), dtype=np.uint8)
    np.savez(tmp_path / "t.npz", inputs=inputs, labels=[1, 1, 2, 2])
    pipeline = ArrayPipeline.fit(inputs, np.arange(3))
    examples = encoded_examples(pipeline, tmp_path / "t.npz")
    assert pipeline.input_shape == (min(shape) if len(shape) == 3 else 1, 20, 20)
    assert examples.inputs.shape == (4, *pipeline.input_shape)
    assert examples.labels == ("1", "1", "2", "2")
    assert torch.equal(pipeline.encode(inputs), examples.inputs)
    assert torch.equal(pipeline.encode(examples.inputs.flatten(1).numpy()), examples.inputs)


def test_several_targets_share_one_scale(tmp_path):
    targets = np.array([[0.0, 2], [4, 6]])
    np.savez(tmp_path / "t.npz", inputs=np.zeros((2, 5, 4)), targets=targets)
    pipeline = ArrayPipeline.fit(np.zeros((2, 5, 4)), np.arange(2), targets=targets)
    answers = encoded_examples(pipeline, tmp_path / "t.npz").labels
    assert pipeline.targets == ("target 1", "target 2")
    torch.testing.assert_close(answers, torch.from_numpy(targets).double())
    np.savez(tmp_path / "l.npz", inputs=np.zeros((2, 5, 4)), labels=[0, 1])
    with pytest.raises(DataError, match="no array 'targets'"):
        encoded_examples(pipeline, tmp_path / "l.npz")


@pytest.mark.parametrize("shape", [(2, 2, 1), (2, 1, 2), (2, 0)])
def test_targets_of_another_shape_are_not_reshaped(tmp_path, shape):
    pipeline = ArrayPipeline.fit(np.zeros((2, 4)), np.arange(2), targets=np.zeros((2, 2)))
    np.savez(tmp_path / "t.npz", inputs=np.zeros((2, 4)), targets=np.zeros(shape), task=[1, 1])
    with pytest.raises(DataError, match=r"t\.npz: 'targets': The targets of 2 examples have shape"):
        encoded_examples(pipeline, tmp_path / "t.npz")
    with pytest.raises(DataError, match=r"t\.npz: 'targets' has shape"):
        open_tasks(tmp_path / "t.npz")


@pytest.mark.parametrize(
    ("labels", "names"), [(np.array([0.1, 2], "f4"), ["0.1", "2"]), ([b"a", b"\xc3\xa9"], ["a", "é"])]
)
def test_labels_of_arrays_are_those_of_a_list(tmp_path, labels, names):
    np.savez(tmp_path / "t.npz", inputs=np.zeros((2, 4)), labels=labels)
    assert encoded_examples(ArrayPipeline(raw_shape=(4,)), tmp_path / "t.npz").labels == tuple(names)


@pytest.mark.parametrize("unit", [1e-13, 1e8, 1e29])
def test_units_may_be_tiny_or_huge(unit, tmp_path):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(60, 2)) * unit
    file = tmp_path / "rows.csv"
    rows = "\n".join(f"t{number // 12},{x!r},{y!r}" for number, (x, y) in enumerate(values.tolist()))
    file.write_text(f"task,x,y\n{rows}\n")
    tasks = open_tasks(str(file), task="task", target="y")
    drawn = tasks.task(0)
    assert 0.1 < drawn.query.inputs.std() < 10
    assert 0.1 < drawn.query.targets.std() < 10
    score = evaluate(LEARNERS["dummy"].build(tasks.spec), tasks, tasks=4).score.mean
    assert 0.1 * unit**2 < score < 10 * unit**2


def test_a_large_mean_leaves_predictions_all_their_digits(tmp_path):
    rows = "".join(f"{x},{100_000_000 + x}\n" for x in (-1.25, 0, 1.25))
    table = read_table(csv(tmp_path, "x,y\n" + rows))
    pipeline = TablePipeline.fit(table, np.arange(3), label=None, target="y")
    assert pipeline.unscaled(pipeline.scaled([1e8 + 0.375])).item() == pytest.approx(1e8 + 0.375, abs=1e-4)


def test_each_target_has_a_mean_and_a_scale_of_its_own():
    around = np.array([[1.0], [-1], [1], [-1]])
    targets = np.hstack([20 + 2 * around, 101300 + 200 * around])
    fitted = ArrayPipeline.fit(np.zeros((4, 1)), np.arange(4), targets=targets)
    for pipeline in (fitted, ArrayPipeline.from_config(json.loads(json.dumps(fitted.config())))):
        assert (pipeline.target_mean.tolist(), pipeline.target_scale.tolist()) == ([20, 101300], [2, 200])
        np.testing.assert_array_equal(pipeline.scaled(targets), np.hstack([around, around]))
        np.testing.assert_array_equal(pipeline.unscaled(pipeline.scaled(targets)), targets)
    with pytest.raises(DataError, match="predicts 2 target values, but these have 1"):
        fitted.scaled(targets[:, 0])


def test_whole_numbers_stand_for_the_bytes_of_images_in_arrays():
    pipeline = ArrayPipeline(raw_shape=(2, 2), images=True)
    wanted = pipeline.encode(np.array([[[0, 255], [51, 102]]], np.uint8))
    assert torch.equal(pipeline.encode([[[0, 255], [51, 102]]]), wanted)
    assert torch.equal(pipeline.encode(wanted.numpy()), wanted)
    for wrong in (-1, 256):
        with pytest.raises(DataError, match=f"0 to 255, but these range from .*{wrong}"):
            pipeline.encode([[[0, 255], [51, wrong]]] if wrong > 0 else [[[0, 0], [wrong, 0]]])
