"""Neither the order of rows nor that of columns changes what is learned."""

import random

import numpy as np
import pytest
import torch

from handful.models.meta_model import MetaModel
from handful.notes import collecting
from handful.registry import LEARNERS
from handful.tasks.opening import open_tasks
from handful.training.loop import meta_train

ROWS = 120


def cells():
    """The columns of a table as texts, some of them empty."""
    generator = np.random.default_rng(0)
    return {
        "shop": [f"s{row % 10}" for row in range(ROWS)],
        "label": [f"k{row % 12}" for row in range(ROWS)],
        "kind": generator.choice(["a", "b", ""], ROWS).tolist(),
        "day": [f"2024-{1 + row % 12:02}-{1 + row % 28:02}" for row in range(ROWS)],
        "size": [f"{size:.3f}" for size in generator.normal(size=ROWS)],
        "count": [str(count) if count > 3 else "" for count in generator.integers(0, 30, ROWS)],
        "price": [f"{price:.2f}" for price in generator.normal(50, 9, ROWS)],
    }


def trained(source, options, sizes):
    """The tasks, and the model that is trained on them for some steps."""
    with collecting():
        tasks = open_tasks(source, **options).with_sizes(**sizes)
        learner = LEARNERS["protonet" if tasks.spec.kind == "classification" else "r2d2"].build(
            tasks.spec, backbone="mlp"
        )
        meta_train(learner, tasks, steps=3, validation_tasks=2)
        model = MetaModel(learner, tasks.pipeline)
    return tasks, model


def write(path, columns, rows, names):
    lines = [",".join(columns[name][row] for name in names) for row in rows]
    path.write_text("\n".join([",".join(names), *lines]) + "\n")


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"label": "label", "drop": ["shop"]}, {"way": 2, "shot": 2, "query_shot": 2}),
        ({"label": "label", "group": "shop"}, {"way": 2, "shot": 1, "query_shot": 1}),
        ({"task": "shop", "label": "kind", "drop": ["label"]}, {"shot": 3, "query_shot": 2}),
        ({"task": "shop", "target": "price"}, {"shot": 3, "query_shot": 2}),
        ({"task": "shop", "target": "price", "order": "day"}, {"shot": 3, "query_shot": 2}),
    ],
)
def test_any_order_of_rows_and_columns_gives_the_same_model(tmp_path, options, sizes):
    columns, draw = cells(), random.Random(0)
    names, rows = list(columns), list(range(ROWS))
    write(tmp_path / "t.csv", columns, rows, names)
    tasks, model = trained(tmp_path / "t.csv", options, sizes)
    draw.shuffle(names)
    draw.shuffle(rows)
    write(tmp_path / "u.csv", columns, rows, names)
    others, other = trained(tmp_path / "u.csv", options, sizes)
    for name, weights in model.learner.state_dict().items():
        assert torch.equal(weights, other.learner.state_dict()[name]), name
    assert others.contents().changed_since(tasks.contents()) == ""
    given = [{name: columns[name][row] for name in columns} for row in range(5)]
    with collecting():
        assert torch.equal(model.pipeline.encode(given), other.pipeline.encode(given))
        listed = [[row[name] for name in other.pipeline.names] for row in given]
        assert torch.equal(other.pipeline.encode(listed), other.pipeline.encode(given)), "as the file has them"


def test_any_order_in_a_folder_of_tables_gives_the_same_model(tmp_path):
    draw = random.Random(0)
    weights = []
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        for number in range(10):
            columns = {
                f"x{number}": [str(row * row % 17) for row in range(20)],
                f"a{number}": ["abc"[row % 3] for row in range(20)],
                "y": [str(row * number) for row in range(20)],
            }
            names, rows = list(columns), list(range(20))
            if folder == "second":
                draw.shuffle(names)
                draw.shuffle(rows)
            write(tmp_path / folder / f"t{number}.csv", columns, rows, names)
        _, model = trained(tmp_path / folder, {"target": "y"}, {"shot": 5, "query_shot": 5})
        weights.append(model.learner.state_dict())
    for name, one in weights[0].items():
        assert torch.equal(one, weights[1][name]), name
