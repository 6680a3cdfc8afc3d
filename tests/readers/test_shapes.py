"""Each shape of folders that docs/data.md promises is written, and trained on."""

import json
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful.notes import collecting
from handful.registry import LEARNERS
from handful.tasks.opening import open_tasks
from handful.training.loop import meta_train
from small_encoders import tiny_encoder

CLASSES = [f"class{number}" for number in range(10)]
IMAGES = 4
PARTS = [("train", CLASSES[:6]), ("val", CLASSES[6:8]), ("test", CLASSES[8:])]
SHAPES = {}


def shape(write):
    SHAPES[write.__name__.replace("_", " ").strip()] = write
    return write


def image(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(zlib.crc32(str(path).encode())).integers(0, 255, (8, 8), np.uint8)
    Image.fromarray(pixels).save(path)
    return path.name


def class_folders(folder, classes=CLASSES, count=IMAGES):
    for name in classes:
        for index in range(count):
            image(folder / name / f"{index}.png")


@shape
def deeper(folder):
    for name in CLASSES:
        class_folders(folder / name, ["monday", "tuesday"], IMAGES // 2)


@shape
def one_folder_too_many(folder):
    class_folders(folder / "animals")


@shape
def parts(folder):
    class_folders(folder / "Training", CLASSES[:8])
    class_folders(folder / "Testing", CLASSES[8:])


@shape
def train_and_val(folder):
    class_folders(folder / "train", CLASSES[:8])
    class_folders(folder / "val", CLASSES[8:])


@shape
def same_classes_in_all_parts(folder):
    for part, count in (("train", 2), ("valid", 1), ("test", 1)):
        class_folders(folder / part, count=count)


def rows(folder, classes):
    return [(image(folder / f"{name}-{index}.png"), name) for name in classes for index in range(IMAGES)]


@shape
def metadata_csv(folder):
    for part, classes in PARTS:
        listed = [f"{file},{label}\n" for file, label in rows(folder / part, classes)]
        (folder / part / "metadata.csv").write_text("file_name,label\n" + "".join(listed))


@shape
def csv_of_paths(folder):
    listed = [f"images/{file},{label}\n" for file, label in rows(folder / "images", CLASSES)]
    (folder / "train.csv").write_text("image,label\n" + "".join(listed))


@shape
def one_hot(folder):
    for part, classes in PARTS:
        listed = []
        for file, label in rows(folder / part, classes):
            listed.append(",".join([file, *(str(int(label == name)) for name in classes)]))
        (folder / part / "_classes.csv").write_text("\n".join([", ".join(["filename", *classes]), *listed]))


@shape
def easyfsl(folder):
    class_folders(folder / "data")
    for part, classes in PARTS:
        roots = {"class_names": classes, "class_roots": [f"data/{name}" for name in classes]}
        (folder / f"{part}.json").write_text(json.dumps(roots))


@shape
def texts(folder):
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for index in range(IMAGES):
            (folder / name / f"{index}.txt").write_text(f"text {index} of {name}")


@shape
def archive(folder):
    class_folders(folder / "animals")
    return Path(shutil.make_archive(folder, "zip", folder))


@shape
def archive_per_class(folder):
    for name in CLASSES:
        class_folders(folder, [name])
        shutil.make_archive(folder / f"{name}-samples", "zip", folder / name)
        shutil.rmtree(folder / name)


def test_the_shapes_are_those_of_the_docs():
    page = Path(__file__).parents[2].joinpath("docs", "data.md").read_text()
    table = page.partition("| shape | what is in `TASKS` |\n|---|---|\n")[2].partition("\n\n")[0]
    named = [re.sub(r"\W+", " ", line.split("|")[1]).strip() for line in table.splitlines()]
    assert named == list(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_shape_trains(name, tmp_path):
    source = SHAPES[name](tmp_path / "data") or tmp_path / "data"
    options = {}
    if name == "texts":
        options = {"text": "text", "label": "label", "encoder": str(tiny_encoder(tmp_path / "encoder"))}
    with collecting():
        tasks = open_tasks(source, **options).with_sizes(way=2, shot=1, query_shot=1)
        learner = LEARNERS["protonet"].build(tasks.spec, backbone="mlp")
        meta_train(learner, tasks, steps=1, validation_tasks=1)
    assert tasks.names == CLASSES
    assert tasks.counts.tolist() == [IMAGES] * 10
    assert [len(own) for own in tasks.split_manifest().values()] == [6, 2, 2]
