import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from handful.doctor.diagnosis import diagnose
from handful.errors import DataError, UserError
from handful.pipelines.images import ImagePipeline
from handful.tasks.distribution import SPLITS, SizeRanges
from handful.tasks.glyphs import Glyphs
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.opening import open_tasks
from handful.tasks.sine import Sine
from handful.tasks.splits import own_order
from handful.tasks.task_collection import TaskCollection
from handful.workflows.encoding import encoded_inputs
from noted import noted, nothing_noted
from tables import read_table


def images(folder: Path, classes: list[str], count: int = 4, mode: str = "L") -> Path:
    generator = np.random.default_rng(len(classes))
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 255, (30, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{index}.png")
    return folder


def columns(tasks: int = 10, rows: int = 30) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shop = np.arange(tasks).repeat(rows)
    return {
        "shop": np.array([f"s{i:02}" for i in shop]),
        "price": generator.normal(100 + shop, 5),
        "kind": np.array(["tea", "milk", "rum"])[generator.integers(0, 3, len(shop))],
        "week": np.arange(len(shop)) % 10,
        "sold": generator.normal(1000, 50, len(shop)),
        "again": np.array(["yes", "no"])[generator.integers(0, 2, len(shop))],
    }


def in_order(path: Path) -> dict[str, np.ndarray]:
    """The columns of a table with these, in the order in which tasks have its rows."""
    return {name: cells[own_order(read_table(path))] for name, cells in columns().items()}


@pytest.fixture(params=["csv", "parquet"])
def table(request, tmp_path) -> Path:
    path = tmp_path / f"shops.{request.param}"
    arrow = pa.table(columns())
    (pa.csv.write_csv if request.param == "csv" else pa.parquet.write_table)(arrow, path)
    return path


@pytest.fixture
def csv(tmp_path) -> Path:
    pa.csv.write_csv(pa.table(columns()), tmp_path / "shops.csv")
    return tmp_path / "shops.csv"


def npz(tmp_path: Path, *keys: str) -> Path:
    known = columns()
    inputs = np.stack([known["price"], known["week"]], axis=1)
    arrays = {
        "labels": known["again"],
        "targets": known["sold"],
        "task": known["shop"],
        "group": known["week"],
        "classes": np.arange(300) // 15,
    }
    chosen = {"labels" if key == "classes" else key: arrays[key] for key in keys}
    np.savez(tmp_path / "t.npz", inputs=inputs, **chosen)
    return tmp_path / "t.npz"


# Registered sources


def test_registered_sources():
    glyphs, sine = open_tasks("glyphs", seed=3), open_tasks("sine")
    assert isinstance(glyphs, Glyphs)
    assert (glyphs.seed, glyphs.pipeline.size) == (3, 28)
    assert isinstance(sine, Sine)
    assert sine.pipeline is None


def test_wrong_names_and_options_of_sources(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"Unknown task source or path 'glyfs'. Did you mean 'glyphs'\?"):
        open_tasks("glyfs")
    (tmp_path / "link").symlink_to("gone")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="link is a link to gone, which does not exist"):
        open_tasks("link")
    with pytest.raises(UserError, match="The option label does not apply to the source 'sine'"):
        open_tasks("sine", label="x")
    with pytest.raises(UserError, match="write omniglot:PATH"):
        open_tasks("omniglot")
    with pytest.raises(UserError, match="does not take a path"):
        open_tasks(f"sine:{tmp_path}")
    with pytest.raises(DataError, match="is not Omniglot"):
        open_tasks(f"omniglot:{tmp_path}")
    with pytest.raises(DataError, match="does not exist"):
        open_tasks(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="Name a source of tasks"):
        open_tasks("")
    (tmp_path / "x.docx").write_text("")
    with pytest.raises(DataError, match="not of a supported format"):
        open_tasks(tmp_path / "x.docx")


# Images


def test_image_folder_is_a_pool_of_its_classes(tmp_path):
    tasks = open_tasks(images(tmp_path, list("abcdefghij")))
    assert isinstance(tasks, LabeledPool)
    assert {on: len(names) for on, names in tasks.split_manifest().items()} == {"train": 6, "val": 2, "test": 2}
    assert tasks.pipeline.settings() == {"size": 28, "channels": 1, "invert": tasks.pipeline.invert}
    task = tasks.split("test").with_sizes(way=2, shot=1, query_shot=3).task(0)
    assert task.query.inputs.shape == (6, 1, 28, 28)
    # A task's images are those that the pipeline reads from the files.
    first = encoded_inputs(tasks.pipeline, tmp_path / tasks.names[0])[0]
    torch.testing.assert_close(tasks.prepare(tasks.inputs[tasks.members[0]], torch.Generator()), first)


def test_classes_are_in_the_order_of_numbers_wherever_they_come_from(tmp_path):
    order = [str(number) for number in range(1, 13)]
    folder = images(tmp_path / "images", order, count=2)
    (tmp_path / "t.csv").write_text("shop,size,grade\n" + "".join(f"{i % 3},{i},{i % 12 + 1}\n" for i in range(60)))
    np.savez(tmp_path / "t.npz", inputs=np.zeros((60, 2)), labels=np.arange(60) % 12 + 1)
    assert open_tasks(folder).names == order
    assert open_tasks(tmp_path / "t.csv", label="grade", drop=["shop"]).names == order
    assert open_tasks(tmp_path / "t.csv", label="grade", task="shop").pipeline.labels == order
    assert open_tasks(tmp_path / "t.npz").names == order


def test_image_size_and_colors(tmp_path):
    with noted("3 classes, too few"):
        tasks = open_tasks(images(tmp_path, list("abc"), 6, mode="RGB"), image_size=20)
    assert tasks.spec.input_shape == (3, 20, 20)


def test_a_target_that_never_changes_is_told(tmp_path):
    table = pa.table(columns() | {"sold": np.full(300, 7.5)})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    with noted("The target 'sold' is 7.5 in all training rows, so nothing can be predicted") as notes:
        tasks = open_tasks(tmp_path / "t.parquet", task="shop", target="sold")
    assert len(notes) == 1
    with nothing_noted():
        open_tasks(tmp_path / "t.parquet", task="shop", target="sold", pipeline=tasks.pipeline)


def test_a_date_to_predict_is_told(tmp_path):
    days = np.datetime64("2024-01-01") + np.arange(300)
    pyarrow.parquet.write_table(pa.table(columns() | {"sold": days}), tmp_path / "t.parquet")
    with noted(r"The target 'sold' is a date: predictions and scores are in days since 1970-01-01") as notes:
        tasks = open_tasks(tmp_path / "t.parquet", task="shop", target="sold")
    assert len(notes) == 1
    with nothing_noted():
        open_tasks(tmp_path / "t.parquet", task="shop", target="sold", pipeline=tasks.pipeline)


def test_one_class_and_two_classes(tmp_path):
    with pytest.raises(DataError, match=r"only one class \('a'\)"):
        open_tasks(images(tmp_path / "one", ["a"]))
    with noted("2 classes, too few to hold some out"):
        assert open_tasks(images(tmp_path / "two", ["a", "b"], 6)).split_manifest()["train"] == ["a", "b"]


def test_given_splits_are_kept(tmp_path):
    for name, classes in (("train", ["a", "b", "c"]), ("val", ["d", "e"]), ("test", ["f", "g"])):
        images(tmp_path / name, classes)
    assert open_tasks(tmp_path).split_manifest() == {"train": ["a", "b", "c"], "val": ["d", "e"], "test": ["f", "g"]}


def test_given_splits_without_val(tmp_path):
    images(tmp_path / "train", list("abcde"))
    images(tmp_path / "test", ["f", "g"])
    with noted("too few to hold some out for validation. Training uses all of them"):
        names = open_tasks(tmp_path).split_manifest()
    assert names == {"train": list("abcde"), "val": list("abcde"), "test": ["f", "g"]}


@pytest.mark.parametrize("lacking", ["val", "test"])
def test_a_fifth_of_the_training_classes_is_the_split_that_lacks(tmp_path, lacking):
    other = {"val": "test", "test": "val"}[lacking]
    images(tmp_path / "train", list("abcdefghij"))
    images(tmp_path / other, ["x", "y"])
    tasks = open_tasks(tmp_path)
    names = tasks.split_manifest()
    assert sorted(names["train"] + names[lacking]) == list("abcdefghij")
    assert (len(names[lacking]), names[other]) == (2, ["x", "y"])
    again = open_tasks(tmp_path, earlier=tasks.contents())
    assert again.split_manifest() == names


def test_of_a_few_classes_examples_are_set_aside_and_stay_so_when_data_grow(tmp_path):
    """Each split has the same classes and no example of another, of tables, images and arrays."""
    csv = tmp_path / "t.csv"
    rows = [f"{number},{number % 7},{'abcd'[number % 4]}" for number in range(80)]
    csv.write_text("x,y,kind\n" + "\n".join(rows) + "\n")
    with noted("4 classes, too few to hold some out for validation and test"):
        first = open_tasks(csv, label="kind")
    contents = first.contents()
    assert first.split_manifest() == {on: list("abcd") for on in SPLITS}
    assert [len(contents.splits[on]["a"]) for on in SPLITS] == [12, 4, 4]
    assert len({row for on in SPLITS for row in contents.splits[on]["a"]}) == 20
    assert first.split("test").sizes == SizeRanges(4, 1, 3), "what fits by default"
    first.split("test").with_sizes().task(0)
    csv.write_text("x,y,kind\n" + "\n".join([f"{number},9,e" for number in range(9)] + rows[::-1]) + "\n")
    again = open_tasks(csv, label="kind", earlier=contents, pipeline=first.pipeline)
    now = again.contents()
    assert now.changed_since(contents) == ""
    assert again.aside == ("val", "test")
    assert all(sorted(now.splits[on]["b"]) == sorted(contents.splits[on]["b"]) for on in SPLITS)
    assert "e" in now.splits["train"]


def test_rows_of_two_tasks_are_set_aside_by_groups_or_in_order(tmp_path):
    csv = tmp_path / "t.csv"
    rows = [f"{n % 2},{n},{(n // 2) % 10},{n * 0.5}" for n in range(80)]
    csv.write_text("shop,week,who,sold\n" + "\n".join(rows) + "\n")
    for given in ({"group": "who"}, {"order": "week"}):
        with noted("2 tasks, too few"):
            tasks = open_tasks(csv, task="shop", target="sold", **given)
        column = tasks.groups if tasks.order is None else tasks.order
        parts = [column[torch.cat([tasks.members[unit] for unit in tasks.splits[on]])] for on in SPLITS]
        assert all(set(one.tolist()).isdisjoint(other.tolist()) for one, other in combinations(parts, 2))
        if tasks.order is not None:
            assert parts[0].max() < parts[1].min() < parts[1].max() < parts[2].min()


def test_other_data_are_the_test_split(tmp_path):
    """Of all kinds: their names may be those of the training, and mean something else."""
    own, other = columns(), columns()
    own["shop"] = np.array([f"own{name}" for name in own["shop"]])
    for name, table in (("own", own), ("other", other)):
        pyarrow.parquet.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    for given in ({"target": "sold"}, {"label": "again"}):
        tasks = open_tasks(tmp_path / "own.parquet", task="shop", test=str(tmp_path / "other.parquet"), **given)
        names = tasks.split_manifest()
        assert set(names["test"]) == set(other["shop"])
        assert {*names["train"], *names["val"]} == set(own["shop"])
        assert tasks.split("test").task(0).query.inputs.isfinite().all()
    images(tmp_path / "one", list("abcdefghij"))
    images(tmp_path / "two", ["a", "b", "x"])
    tasks = open_tasks(tmp_path / "one", test=str(tmp_path / "two"))
    names = tasks.split_manifest()
    assert [len(names[on]) for on in SPLITS] == [8, 2, 3]
    assert names["test"] == ["a", "b", "x"]
    assert tasks.aside == ()
    again = open_tasks(tmp_path / "one", test=str(tmp_path / "two"), earlier=tasks.contents(), pipeline=tasks.pipeline)
    assert again.contents() == tasks.contents()
    with pytest.raises(UserError, match="is of another kind"):
        open_tasks(tmp_path / "one", test=str(tmp_path / "own.parquet"))
    with noted("more contains an example of the training data") as notes:
        open_tasks(images(tmp_path / "more", list("abcdefghij") + ["x"]), test=str(tmp_path / "more"))
    assert [note.count for note in notes] == [44]


def test_with_other_data_to_test_on_all_of_these_train(tmp_path):
    """Also what they have for test, what a split by values would hold out, and names that the other data have."""
    for name, classes in (("train", list("abcdefgh")), ("test", ["i", "j"])):
        images(tmp_path / "parts" / name, classes)
    other = str(images(tmp_path / "other", ["a", "x", "y"]))
    names = open_tasks(tmp_path / "parts", test=other).split_manifest()
    assert sorted(names["train"] + names["val"]) == list("abcdefghij")
    own = columns() | {"region": np.array([f"r{number // 60}" for number in range(300)])}
    pyarrow.parquet.write_table(pa.table(own), tmp_path / "own.parquet")
    given = {"task": "shop", "target": "sold", "split_by": "region"}
    pyarrow.parquet.write_table(pa.table(columns(tasks=2) | {"region": ["r9"] * 60}), tmp_path / "other.parquet")
    tasks = open_tasks(tmp_path / "own.parquet", test=str(tmp_path / "other.parquet"), **given)
    names = tasks.split_manifest()
    assert sorted(names["train"] + names["val"]) == sorted(set(own["shop"]))
    tasks = open_tasks(tmp_path / "parts", test=other)
    images(tmp_path / "parts" / "train" / "more", ["x"])
    (tmp_path / "parts" / "train" / "more" / "x").rename(tmp_path / "parts" / "train" / "x")
    (tmp_path / "parts" / "train" / "more").rmdir()
    again = open_tasks(tmp_path / "parts", test=other, earlier=tasks.contents(), pipeline=tasks.pipeline)
    assert "x" in [*again.split_manifest()["train"], *again.split_manifest()["val"]]


def test_parts_without_training_classes(tmp_path):
    images(tmp_path / "val", ["a", "b"])
    images(tmp_path / "test", ["c", "d"])
    with pytest.raises(DataError, match="no training classes"):
        open_tasks(tmp_path)


def test_parts_of_the_same_classes_are_one(tmp_path):
    """The classes are split anew, and of copies in two parts no task has one on each side."""
    names = list("abcdefghij")
    images(tmp_path / "train", names, count=6)
    images(tmp_path / "test", names[:5], count=1)
    for name in names[:5]:
        os.replace(tmp_path / "test" / name / "0.png", tmp_path / "test" / name / "new.png")
        Image.open(tmp_path / "train" / name / "0.png").save(tmp_path / "test" / name / "0.jpg", quality=98)
    with noted("some classes are in more than one of train, val and test, such as 'a'") as notes:
        tasks = open_tasks(tmp_path)
    assert [note.count for note in notes] == [5]
    assert {on: len(own) for on, own in tasks.split_manifest().items()} == {"train": 6, "val": 2, "test": 2}
    assert tasks.counts.tolist() == [8] * 5 + [6] * 5
    copies = {frozenset(one) for one in pairs_of(tasks.groups)}
    assert len(copies) == 5
    tasks = tasks.with_sizes(way=5, shot=2, query_shot=4)
    seen = set()
    for index in range(100):
        manifest = tasks.manifest(index)
        seen |= {*manifest.support, *manifest.query}
        assert not any(pair & {*manifest.support} and pair & {*manifest.query} for pair in copies)
    assert any(pair <= seen for pair in copies)


def pairs_of(groups):
    return [own for group in groups.unique() if len(own := torch.nonzero(groups == group).flatten().tolist()) == 2]


def test_table_options_do_not_apply_to_images(tmp_path):
    with pytest.raises(UserError, match="group does not apply to a folder of images"):
        open_tasks(images(tmp_path, list("abc")), group="writer")


# Tables


def test_label_without_task_is_a_pool(table):
    tasks = open_tasks(table, label="shop")
    assert isinstance(tasks, LabeledPool)
    assert (tasks.spec.labels, tasks.pipeline.labels) == ("permuted", None)
    assert tasks.spec.input_shape == (1 + 3 + 1 + 1 + 2,)
    # Fitted on the training classes alone.
    rows = np.isin(columns()["shop"], tasks.split_manifest()["train"])
    median = next(column["median"] for column in tasks.pipeline.columns if column["name"] == "price")
    assert median == pytest.approx(np.median(columns()["price"][rows]))
    assert median != pytest.approx(np.median(columns()["price"]))


def test_task_and_label_is_classification_with_shared_labels(table):
    tasks = open_tasks(table, task="shop", label="again")
    assert isinstance(tasks, TaskCollection)
    assert (tasks.spec.kind, tasks.spec.labels, tasks.spec.outputs) == ("classification", "shared", 2)
    assert tasks.pipeline.labels == ["no", "yes"]
    manifest, task = tasks.manifest(0), tasks.task(0)
    names = in_order(table)["again"][list(manifest.query)]
    assert [tasks.pipeline.labels[target] for target in task.query.targets] == names.tolist()


def test_task_and_target_is_regression_in_the_users_units(table):
    tasks = open_tasks(table, task="shop", target="sold")
    assert tasks.spec.kind == "regression"
    manifest, task = tasks.manifest(0), tasks.task(0)
    sold = task.query.targets * tasks.target_scale + tasks.pipeline.target_mean
    np.testing.assert_allclose(sold.flatten(), in_order(table)["sold"][list(manifest.query)], rtol=1e-4)
    assert tasks.target_scale.item() == pytest.approx(50, rel=0.2)


def test_what_a_model_reads_it_is_not_asked_to_predict(csv):
    model = open_tasks(csv, task="shop", target="sold").pipeline
    with pytest.raises(UserError, match="The model reads the column 'price' as an input"):
        open_tasks(csv, target="price", pipeline=model)
    with pytest.raises(UserError, match=r"This model predicts numbers\. Name the column with target="):
        open_tasks(csv, label="again", pipeline=model)


def test_group_keeps_to_one_side_and_is_no_input(table):
    tasks = open_tasks(table, task="shop", target="sold", group="week", drop=["kind"])
    assert tasks.pipeline.names == ["price", "again"]
    for index in range(10):
        weeks = [set(in_order(table)["week"][list(side)]) for side in tasks.manifest(index)[1:]]
        assert not weeks[0] & weeks[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "The column to predict is not named.*'shop', 'price'.*label= "),
        ({"target": "sold"}, "numbers of 'sold', a column.*'shop', 'price'.*task="),
        ({"task": "shop"}, "The column to predict is not named"),
        ({"task": "shop", "label": "kind", "target": "sold"}, "not both"),
        ({"task": "shop", "label": "shop"}, "'shop' can have only one role of task, order, label and target"),
        ({"task": "shop", "target": "sold", "order": "sold"}, "'sold' can have only one role of"),
        ({"label": "shopp"}, r"no column 'shopp' \(did you mean 'shop'\?\)"),
        ({"label": "kind", "drop": ["prize"]}, r"no column 'prize' \(did you mean 'price'\?\)"),
        ({"task": "shop", "target": "again"}, r"'again', row 1 below the header: '(yes|no)' is not a finite number"),
        ({"label": "kind", "image_size": 28}, "image_size does not apply to a table"),
    ],
)
def test_wrong_options_for_a_table(csv, options, message):
    with pytest.raises(UserError, match=message):
        open_tasks(csv, **options)


def test_a_column_that_is_no_set_of_classes_is_told_what_it_may_be(csv):
    with pytest.raises(DataError, match=r"'again', has only 2 classes.*task="):
        open_tasks(csv, label="again")
    with pytest.raises(DataError, match=r"different numbers in 300 rows.*target=.*task="):
        open_tasks(csv, label="price")


def test_numbers_may_be_names_of_classes_though_most_are_rare(tmp_path):
    rows = [f"{number},{number}" for number in range(300)] + [f"{900 + number % 20},{number}" for number in range(200)]
    path = tmp_path / "ids.csv"
    path.write_text("id,x\n" + "\n".join(rows) + "\n")
    with noted("too few|left out"):
        assert open_tasks(path, label="id").with_sizes(way=2, shot=1, query_shot=2).spec.outputs == 2


def test_one_label_and_one_task(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x,label,shop\n1,a,s\n2,a,t\n3,a,u\n")
    with pytest.raises(DataError, match=r"column 'label', has only one class \('a'\)"):
        open_tasks(path, label="label")
    path.write_text("x,label,shop\n1,a,s\n2,b,s\n3,a,s\n")
    with pytest.raises(DataError, match=r"column 'shop', has only one task \('s'\)"):
        open_tasks(path, label="label", task="shop")
    pyarrow.parquet.write_table(pa.table(columns()), tmp_path / "shops.parquet")
    trained = open_tasks(tmp_path / "shops.parquet", task="shop", target="sold")
    pyarrow.parquet.write_table(pa.table(columns(tasks=1)), path.with_suffix(".parquet"))
    one = open_tasks(path.with_suffix(".parquet"), task="shop", target="sold", pipeline=trained.pipeline)
    assert one.split("test").units == 1, "a model may be tested on one task"


# Arrays


def test_arrays_tell_by_their_keys(tmp_path):
    tasks = open_tasks(npz(tmp_path, "classes"))
    assert (type(tasks), tasks.spec.labels) == (LabeledPool, "permuted")
    tasks = open_tasks(npz(tmp_path, "labels", "task", "group"))
    assert (tasks.spec.labels, tasks.pipeline.labels) == ("shared", ["no", "yes"])
    assert tasks.groups is not None
    tasks = open_tasks(npz(tmp_path, "targets", "task"))
    assert (tasks.spec.kind, tasks.spec.outputs) == ("regression", 1)
    assert tasks.target_scale.item() == pytest.approx(50, rel=0.2)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ((), "either 'labels' .* or 'targets'"),
        (("labels", "targets"), "either 'labels' .* or 'targets'"),
        (("targets",), "has 'targets' but no 'task'"),
    ],
)
def test_wrong_keys(tmp_path, keys, message):
    with pytest.raises(DataError, match=message):
        open_tasks(npz(tmp_path, *keys))


def test_options_do_not_apply_to_arrays(tmp_path):
    with pytest.raises(UserError, match="label does not apply to an npz file"):
        open_tasks(npz(tmp_path, "labels"), label="labels")


# Another source for a trained model's pipeline


def test_another_table_is_read_as_the_model_would_and_is_not_divided(csv, tmp_path):
    own = open_tasks(csv, task="shop", target="sold")
    known = columns(tasks=4, rows=20)
    known["sold"] = known["sold"] * 3
    known = {"extra": known["week"], **known}
    pa.csv.write_csv(pa.table(known), tmp_path / "other.csv")
    order = own_order(read_table(tmp_path / "other.csv"))
    other = open_tasks(tmp_path / "other.csv", pipeline=own.pipeline)
    assert other.pipeline is own.pipeline
    assert (other.target_scale.tolist(), other.spec) == (own.target_scale.tolist(), own.spec)
    assert other.split_manifest()["test"] == other.split_manifest()["train"] == ["s00", "s01", "s02", "s03"]
    task, manifest = other.split("test").task(0), other.split("test").manifest(0)
    sold = own.pipeline.unscaled(task.query.targets).flatten()
    np.testing.assert_allclose(sold, known["sold"][order[list(manifest.query)]], rtol=1e-4)


def test_another_table_with_unknown_labels_or_missing_columns(csv, tmp_path):
    own = open_tasks(csv, task="shop", label="again")
    known = columns(tasks=4, rows=20)
    known["again"][3] = "no!"
    known["again"][:3] = "no"
    pa.csv.write_csv(pa.table(known), tmp_path / "other.csv")
    with pytest.raises(DataError, match="label 'no!', which is not one of the model's"):
        open_tasks(tmp_path / "other.csv", pipeline=own.pipeline)
    pa.csv.write_csv(pa.table({k: v for k, v in known.items() if k != "price"}), tmp_path / "less.csv")
    with pytest.raises(DataError, match="no column 'price'"):
        open_tasks(tmp_path / "less.csv", pipeline=own.pipeline)


def test_another_folder_for_an_image_model(tmp_path, csv):
    pipeline = ImagePipeline(size=16, channels=3)
    other = open_tasks(images(tmp_path / "other", ["a", "b"]), pipeline=pipeline)
    assert other.spec.input_shape == (3, 16, 16)
    assert other.split_manifest() == {"train": ["a", "b"], "val": ["a", "b"], "test": ["a", "b"]}
    with pytest.raises(UserError, match=r"inputs of the kind 'images', but .*shops\.csv is of the kind 'table'"):
        open_tasks(csv, label="shop", pipeline=pipeline)


def test_other_arrays_of_the_other_kind(tmp_path):
    pipeline = open_tasks(npz(tmp_path, "targets", "task")).pipeline
    assert open_tasks(npz(tmp_path, "targets", "task"), pipeline=pipeline).units == 10
    with pytest.raises(UserError, match="The model predicts numbers"):
        open_tasks(npz(tmp_path, "classes"), pipeline=pipeline)


# Real data


@pytest.fixture
def data() -> Path:
    if not os.environ.get("HANDFUL_DATA"):
        pytest.skip("set HANDFUL_DATA to a folder that holds schools/exam.parquet and avocado/avocado.parquet")
    return Path(os.environ["HANDFUL_DATA"])


def test_real_schools(data):
    tasks = open_tasks(data / "schools" / "exam.parquet", task="school", target="normexam")
    assert {on: len(names) for on, names in tasks.split_manifest().items()} == {"train": 39, "val": 13, "test": 13}
    assert tasks.split("test").task(0).query.targets.shape[1] == 1


def test_real_avocado(data):
    with noted("'Date' contains dates"):
        tasks = open_tasks(data / "avocado" / "avocado.parquet", task="region", target="AveragePrice")
    assert sum(len(names) for names in tasks.split_manifest().values()) == 54
    assert "Date" in tasks.pipeline.names


def meters(path, **columns):
    """A table of 6 meters with 8 days each, whose rows are not in order."""
    lines = [f"m{n // 8},2024-01-{n * 3 % 8 + 1:02},{n % 5},{n}" for n in range(48)]
    path.write_text("\n".join(["meter,day,warm,load", *lines]) + "\n")
    return open_tasks(path, task="meter", target="load", **columns)


def test_the_order_is_no_input_and_divides_the_rows(tmp_path):
    tasks = meters(tmp_path / "meters.csv", order="day").with_sizes(shot=3, query_shot=2)
    days = own_order(read_table(tmp_path / "meters.csv")) * 3 % 8
    assert tasks.pipeline.names == ["warm"]
    for on in ("train", "test"):
        for index in range(6):
            manifest = tasks.split(on).manifest(index)
            assert max(days[list(manifest.support)]) < min(days[list(manifest.query)])
    again = meters(tmp_path / "meters.csv", order="day", pipeline=tasks.pipeline)
    assert again.order is not None
    (order,) = [finding for finding in diagnose(tasks, tasks=2) if finding.check == "order"]
    assert order.status == "ok"


def test_a_column_of_dates_that_is_not_the_order_leaks_the_future(tmp_path):
    with noted(r"'day' contains dates.*leak the future") as notes:
        tasks = meters(tmp_path / "meters.csv")
    assert any("{order}" in note.hint for note in notes)
    (order,) = [
        finding for finding in diagnose(tasks.with_sizes(shot=3, query_shot=2), tasks=2) if finding.check == "order"
    ]
    assert order.status == "warning"
    assert "'day'" in order.message
    meters(tmp_path / "meters.csv", drop=["day"])


def test_other_data_without_the_order_of_the_model_leak_the_future(tmp_path):
    pipeline = meters(tmp_path / "meters.csv", order="day").pipeline
    with noted(r"trained on examples that precede their queries by 'day', but these do not.*leak the future"):
        meters(tmp_path / "meters.csv", pipeline=pipeline, drop=["day"])


def test_an_order_and_groups_are_not_both_taken(tmp_path):
    with pytest.raises(UserError, match="either groups or an order"):
        meters(tmp_path / "meters.csv", order="day", group="warm")


def test_arrays_have_an_order_too(tmp_path):
    order = np.arange(48) * 5 % 8
    facts = {"targets": np.arange(48.0), "task": np.arange(48) // 8, "order": order}
    np.savez(tmp_path / "meters.npz", inputs=np.arange(48.0).reshape(48, 1), **facts)
    manifest = open_tasks(tmp_path / "meters.npz").with_sizes(shot=3, query_shot=2).manifest(0)
    assert order[list(manifest.support)].max() < order[list(manifest.query)].min()


def test_a_folder_of_one_table_is_that_table(tmp_path):
    (tmp_path / "t.csv").write_text("x,kind\n" + "".join(f"{n},k{n % 10}\n" for n in range(40)))
    (tmp_path / "readme.md").write_text("")
    with noted("some files are ignored, such as readme.md"):
        tasks = open_tasks(tmp_path, label="kind")
    assert tasks.names == [f"k{n}" for n in range(10)]
