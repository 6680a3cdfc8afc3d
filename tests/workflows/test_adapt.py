"""From files to an adapted task and to predictions, as the command line and a server would ask for them."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import own_data
from handful.cli.main import app
from handful.errors import ArtifactError, DataError, UserError
from handful.learners.maml import MAML
from handful.models.lookup import model_of
from handful.models.meta_model import MetaModel
from handful.pipelines.pipeline import InputPipeline
from handful.registry import LEARNERS
from handful.tasks.sine import Sine
from handful.workflows.adapt import adapt_from_file, pipeline_of
from handful.workflows.encoding import encoded_examples
from handful.workflows.experiment import Experiment, Source
from handful.workflows.predict import predict_from_files
from handful.workflows.train import train
from noted import noted, nothing_noted

TINY = {"steps": 2, "meta_batch_size": 1, "validation_tasks": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prediction")
    own_data.shops(folder / "shops.csv")
    own_data.photos(folder / "photos")
    return folder


@pytest.fixture(scope="module")
def shops(folder) -> Path:
    source = Source(str(folder / "shops.csv"), task="shop", target="sold", drop=("good",))
    train(Experiment(source, learner="maml", query_shot=5, settings=TINY), folder / "shops")
    return folder / "shops"


@pytest.fixture(scope="module")
def photos(folder) -> Path:
    sizes = {"way": 2, "shot": 2, "query_shot": 2}
    backbone = {"backbone": "conv4", "backbone_options": {"widths": [4, 4, 4, 4]}}
    source = Source(str(folder / "photos"), image_size=16)
    train(Experiment(source, "protonet", **backbone, **sizes, settings=TINY), folder / "run")
    return folder / "run"


def test_a_regression_answers_in_the_target_s_own_units(shops, folder, tmp_path):
    """The examples have targets around 10, and the model was trained on scaled ones."""
    lines = (folder / "shops.csv").read_text().splitlines()
    (tmp_path / "new.csv").write_text("\n".join([lines[0], *lines[1:13]]))
    adapted = adapt_from_file(shops, tmp_path / "new.csv", estimate=True)
    adapted.save(tmp_path / "task")
    (tmp_path / "inputs.csv").write_text("price,week\n0.0,0.0\n0.1,0.2\n")
    rows = next(predict_from_files(tmp_path / "task", [tmp_path / "inputs.csv"]))
    assert [row["id"] for row in rows] == ["1", "2"]
    assert all(5 < row["value"] < 15 for row in rows)
    assert adapted.estimate.metric == "rmse"
    read = encoded_examples(pipeline_of(model_of(adapted, tmp_path / "task")), tmp_path / "new.csv")
    assert sorted(adapted.support.targets.flatten().tolist()) == sorted(read.labels.flatten().tolist())


def test_the_estimate_of_a_regression_is_in_squared_units_of_the_target(folder, tmp_path):
    """The constant's leave-one-out error is known: each value less the mean of the others."""
    tasks = Source(str(folder / "shops.csv"), task="shop", target="sold", drop=("good",)).open()
    model = MetaModel(LEARNERS["dummy"].build(tasks.spec), tasks.pipeline)
    values = [1.0, 2.0, 6.0, 11.0]
    inputs = torch.arange(4.0).unsqueeze(1).expand(4, *tasks.spec.input_shape)
    adapted = model.adapt(inputs, values, estimate=True)
    expected = sum((value - (20 - value) / 3) ** 2 for value in values) / 4
    assert adapted.estimate.mean == pytest.approx(expected, rel=1e-4)


def grouped_table(path, *, patient=True):
    """Rows of patients of eight hospitals."""
    rows = ["hospital,patient,dose,state" if patient else "hospital,dose,state"]
    for number in range(64):
        who = f"p{number // 2}," if patient else ""
        rows.append(f"h{number // 8},{who}{number % 5 + number / 100},{'ill' if number % 4 < 2 else 'well'}")
    path.write_text("\n".join(rows) + "\n")
    return path


def test_the_groups_of_a_file_are_those_that_the_model_was_trained_with(tmp_path):
    source = Source(str(grouped_table(tmp_path / "a.csv")), task="hospital", label="state", group="patient")
    tasks = source.open().with_sizes(shot=4, query_shot=2)
    model = MetaModel(LEARNERS["centroid"].build(tasks.spec), tasks.pipeline)
    model.save_pretrained(tmp_path / "model")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    (tmp_path / "new.csv").write_text("\n".join(lines[:9]))
    adapted = adapt_from_file(tmp_path / "model", tmp_path / "new.csv", estimate=True)
    assert sorted(adapted.groups) == ["p0", "p0", "p1", "p1", "p2", "p2", "p3", "p3"]
    assert adapted.estimate.by == "leave-one-group-out"
    assert (adapted.estimate.examples, adapted.estimate.groups) == (8, 4), "as few facts as groups"
    line = ["adapt", str(tmp_path / "model"), str(tmp_path / "new.csv"), "-o", str(tmp_path / "new.task")]
    assert "score on these examples (4 groups):" in CliRunner().invoke(app, line).output
    assert adapt_from_file(tmp_path / "model", tmp_path / "new.csv").estimate is None
    lines = grouped_table(tmp_path / "b.csv", patient=False).read_text().splitlines()
    (tmp_path / "new.csv").write_text("\n".join(lines[:9]))
    with noted(r"No estimate .*groups \('patient'\)"):
        assert adapt_from_file(tmp_path / "model", tmp_path / "new.csv", estimate=True).estimate is None


def parts_of(folder: Path, tmp_path: Path, *parts: slice) -> list[Path]:
    """Rows of the shops in files of their own."""
    header, *rows = (folder / "shops.csv").read_text().splitlines()
    files = [tmp_path / f"part{number}.csv" for number in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        file.write_text("\n".join([header, *rows[part]]) + "\n")
    return files


def test_examples_that_are_added_are_as_if_given_at_once(shops, folder, tmp_path):
    first, more, both = parts_of(folder, tmp_path, slice(0, 6), slice(6, 9), slice(0, 9))
    adapt_from_file(shops, first).save(tmp_path / "one.task")
    before = (tmp_path / "one.task").read_bytes()
    adapted = adapt_from_file(tmp_path / "one.task", more, estimate=True)
    assert adapted == adapt_from_file(shops, both)
    assert adapted.examples == adapted.estimate.examples == 9
    assert sorted(adapted.manifest) == sorted([*"123456", *(f"part1.csv:{number}" for number in (1, 2, 3))])
    assert (tmp_path / "one.task").read_bytes() == before
    adapted.save(tmp_path / "one.task")
    with noted(r"part1\.csv: some inputs are already among the task's examples, and count twice") as notes:
        again = adapt_from_file(tmp_path / "one.task", more)
        assert not adapt_from_file(tmp_path / "one.task", more, keep_support=False).holds_examples
    assert [note.count for note in notes] == [6], "three of them each time"
    assert {f"part1.csv:{number} (2)" for number in (1, 2, 3)} < set(again.manifest)


def test_a_class_is_added_to_an_adapted_task(photos, tmp_path):
    """By a folder that holds no other class, whose files are called as those of the task."""
    own_data.photos(tmp_path / "all", 3, 2)
    for part, names in (("old", ["class00", "class01"]), ("more", ["class02"])):
        for name in names:
            shutil.copytree(tmp_path / "all" / name, tmp_path / part / name)
    with pytest.raises(DataError, match="only one class"):
        adapt_from_file(photos, tmp_path / "more")
    task = adapt_from_file(photos, tmp_path / "old").save(tmp_path / "task")
    adapted = adapt_from_file(task, tmp_path / "more")
    assert adapted == adapt_from_file(photos, tmp_path / "all")
    assert adapted.labels == ("class00", "class01", "class02")
    shutil.copytree(tmp_path / "more" / "class02", tmp_path / "more" / "class00")
    added = adapt_from_file(task, tmp_path / "more")
    assert {"class00/0.png", "more/class00/0.png", "class02/0.png"} < set(added.manifest)


def test_what_examples_cannot_be_added_to_is_told(photos, shops, folder, tmp_path):
    new = own_data.photos(tmp_path / "new", 2, 2)
    forgotten = adapt_from_file(photos, new, keep_support=False).save(tmp_path / "forgotten.task")
    with pytest.raises(UserError, match=r"forgotten its examples.* Adapt again with all of them"):
        adapt_from_file(forgotten, new)
    kept = adapt_from_file(photos, new).save(tmp_path / "kept.task")
    with pytest.raises(DataError, match=r"shops\.csv"):
        adapt_from_file(kept, folder / "shops.csv")
    with pytest.raises(ArtifactError, match="another meta-model"):
        adapt_from_file(kept, new, model=shops)


def test_where_examples_precede_queries_no_estimate_is_made_by_later_ones(tmp_path):
    lines = ["meter,day,warm,load", *(f"m{n // 8},2024-01-{n * 3 % 8 + 1:02},{n % 5},{n}" for n in range(48))]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "new.csv").write_text("\n".join(lines[:9]) + "\n")
    arrays = {"inputs": np.random.default_rng(0).normal(size=(64, 3)), "targets": np.arange(64.0)}
    np.savez(tmp_path / "arrays.npz", **arrays, task=np.arange(64) // 8, order=np.arange(64) % 8)
    np.savez(tmp_path / "new.npz", **{name: array[:8] for name, array in arrays.items()})
    (tmp_path / "tables").mkdir()
    for number in range(3):
        (tmp_path / "tables" / f"{number}.csv").write_text("\n".join(lines) + "\n")
    columns = {"target": "load", "order": "day"}
    for source, new in (
        (Source(str(tmp_path / "table.csv"), task="meter", **columns), "new.csv"),
        (Source(str(tmp_path / "tables"), drop=("meter",), **columns), "new.csv"),
        (Source(str(tmp_path / "arrays.npz")), "new.npz"),
    ):
        tasks = source.open().with_sizes(shot=3, query_shot=2)
        MetaModel(LEARNERS["ridge-probe"].build(tasks.spec), tasks.pipeline).save_pretrained(tmp_path / "model")
        with noted(r"No estimate .* precede their queries by '(day|order)'.* scored by later ones"):
            assert adapt_from_file(tmp_path / "model", tmp_path / new, estimate=True).estimate is None
        with nothing_noted():
            adapt_from_file(tmp_path / "model", tmp_path / new)


def test_the_groups_of_arrays_are_kept_too(tmp_path):
    groups = np.array([f"g{number // 2}" for number in range(64)])
    arrays = {"inputs": np.random.default_rng(0).normal(size=(64, 3)), "labels": np.arange(64) // 4}
    for name, more in (("grouped", {"group": groups}), ("plain", {})):
        np.savez(tmp_path / f"{name}.npz", **arrays, **more)
        tasks = Source(str(tmp_path / f"{name}.npz")).open()
        assert tasks.pipeline.group == ("group" if more else None)
        assert ("group" in tasks.pipeline.config()) == bool(more), "the others stay as they were saved"
        assert InputPipeline.from_config(tasks.pipeline.config()).group == tasks.pipeline.group
        read = encoded_examples(tasks.pipeline, tmp_path / f"{name}.npz").groups
        assert read == (groups.tolist() if more else None)


def test_every_class_has_a_probability_and_the_label_is_the_likeliest(photos, folder, tmp_path):
    adapt_from_file(photos, own_data.photos(tmp_path / "new", 3, 2)).save(tmp_path / "task")
    rows = next(predict_from_files(tmp_path / "task", [tmp_path / "new" / "class02"]))
    for row in rows:
        assert list(row["probabilities"]) == ["class00", "class01", "class02"]
        assert math.isclose(sum(row["probabilities"].values()), 1, abs_tol=1e-5)
        assert row["probability"] == max(row["probabilities"].values()) == row["probabilities"][row["label"]]


def test_the_manifest_says_where_each_example_is_from(photos, tmp_path):
    new = own_data.photos(tmp_path / "new", 2, 2)
    adapted = adapt_from_file(photos, new)
    assert sorted(adapted.manifest) == ["class00/0.png", "class00/1.png", "class01/0.png", "class01/1.png"]
    forgotten = adapt_from_file(photos, new, keep_support=False)
    assert forgotten.support is forgotten.manifest is None


def test_a_moved_model_is_taken_from_its_new_place(photos, tmp_path):
    model = MetaModel.from_pretrained(photos)
    model.save_pretrained(tmp_path / "old")
    task = adapt_from_file(tmp_path / "old", own_data.photos(tmp_path / "new", 2, 2)).save(tmp_path / "task")
    (tmp_path / "old").rename(tmp_path / "moved")
    with pytest.raises(ArtifactError, match=r"not found beside it.*model="):
        next(predict_from_files(task, [tmp_path / "new" / "class00"]))
    assert len(next(predict_from_files(task, [tmp_path / "new" / "class00"], tmp_path / "moved"))) == 2


def test_examples_of_another_kind_are_refused(photos, folder):
    with pytest.raises(DataError, match=r"shops\.csv"):
        adapt_from_file(photos, folder / "shops.csv")


def test_a_model_of_a_generator_reads_no_files(tmp_path, folder):
    MetaModel(MAML.build(Sine().spec)).save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="generator"):
        adapt_from_file(tmp_path / "model", folder / "shops.csv")
