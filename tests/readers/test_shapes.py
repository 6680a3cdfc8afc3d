"""Each shape of data that docs/reference/data.md promises is read, and trained on."""

import re
from pathlib import Path

import pytest
from tests.readers.shapes import CLASSES, EXAMPLES, SHAPES

from handful.encoders.texts import TextEncoder
from handful.notes import collecting
from handful.registry import LEARNERS
from handful.tasks.opening import open_tasks
from handful.training.loop import meta_train
from small_encoders import Letters


def test_the_shapes_are_those_of_the_docs():
    page = Path(__file__).parents[2].joinpath("docs", "reference", "data.md").read_text()
    section = page.partition("\n## Shapes that are read\n")[2].partition("\n## ")[0]
    table = section.partition("|---|---|\n")[2].partition("\n\n")[0]
    named = [re.sub(r"\W+", " ", line.split("|")[1]).strip() for line in table.splitlines()]
    assert [name.lower() for name in named] == list(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_shape_trains(name, tmp_path, monkeypatch):
    write, options = SHAPES[name]
    (tmp_path / "data").mkdir()
    source = write(tmp_path / "data") or tmp_path / "data"
    if "text" in options:
        monkeypatch.setattr(TextEncoder, "model", Letters())
        (tmp_path / "encoder").mkdir()
        options = {**options, "encoder": str(tmp_path / "encoder")}
    classes = "target" not in options
    with collecting():
        tasks = open_tasks(source, **options).with_sizes(way=2 if classes else None, shot=1, query_shot=1)
        learner = LEARNERS["protonet" if classes else "r2d2"].build(tasks.spec, backbone="mlp")
        meta_train(learner, tasks, steps=1, validation_tasks=1)
    assert [Path(unit).stem for unit in tasks.names] == CLASSES
    assert len(tasks.inputs) == len(CLASSES) * (6 if name == "folder of tables" else EXAMPLES)
    assert [len(own) for own in tasks.split_manifest().values()] == [6, 2, 2]
