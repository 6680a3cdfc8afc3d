"""One task of each kind of input, as it changes: models, labeled inputs, and what the library predicts for them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pictures import READ, saved
from PIL import Image

from handful.learners.bayesian_heads import BayesianLastLayer
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.models.results import results
from handful.notes import collecting
from handful.pipelines.arrays import ArrayPipeline
from handful.pipelines.images import ImagePipeline
from handful.pipelines.own_tables import ManyTablesPipeline
from handful.pipelines.rows import TablePipeline
from handful.pipelines.texts import TextPipeline
from handful.table import Table
from handful.types import TaskSpec


@dataclass
class Journey:
    """A task: made of some labeled inputs, given more, and corrected.

    first, more, relabeled: pairs of an input and its label or value; relabeled ones may be among the others.
    queries: what is predicted after each step.
    """

    model: MetaModel
    first: list[tuple[Any, Any]]
    more: list[tuple[Any, Any]]
    relabeled: list[tuple[Any, Any]]
    queries: list[Any] = field(default_factory=list)

    def fitted(self, examples):
        """The model with the pipeline of the task with these examples, in whatever column their labels are."""
        pipeline = self.model.pipeline
        column = pipeline.per_task and (pipeline.label or pipeline.target)
        rows = [given | {column: label} for given, label in examples] if column else None
        return self.model.with_pipeline(pipeline.of_task(rows))

    def supports(self):
        """The examples after each step."""
        added = [*self.first, *self.more]
        inputs = [given for given, _ in self.relabeled]
        return [self.first, added, [one for one in added if one[0] not in inputs] + self.relabeled]

    def expected(self, examples):
        """What the library predicts by these examples, and the codes of its notes about the queries."""
        inputs, labels = zip(*examples, strict=True)
        with collecting():
            model = self.fitted(examples)
            task = model.adapt(model.pipeline.encode(list(inputs)), list(labels))
        with collecting() as notes:
            prediction = model.predict(task, model.pipeline.encode(self.queries))
        return results(task, prediction), {note.code for note in notes}


def classifying(pipeline):
    """An untrained classifier behind a pipeline."""
    spec = TaskSpec("classification", pipeline.input_shape, 2, "permuted")
    return MetaModel(PrototypicalNetwork.build(spec, backbone="linear", seed=3), pipeline)


def regressing(pipeline):
    """An untrained regressor behind a pipeline."""
    spec = TaskSpec("regression", pipeline.input_shape, len(pipeline.targets), "shared")
    learner = BayesianLastLayer.build(spec, backbone="mlp", backbone_options={"hidden": [6]}, seed=3)
    return MetaModel(learner, pipeline)


def glyphs():
    """Letters as files of PNG."""
    from handful.tasks.glyphs import Glyphs

    source = Glyphs()
    task = source.task(0)
    letters = (255 * (1 - torch.cat([task.support.inputs, task.query.inputs]))).byte().squeeze(1).numpy()
    targets = torch.cat([task.support.targets, task.query.targets]).tolist()
    images = [saved(Image.fromarray(letter)) for letter in letters]
    named = [(image, f"letter {target}") for image, target in zip(images, targets, strict=True)]
    first = [one for one in named if one[1] < "letter 2"][:6]
    third = [one for one in named if one[1] == "letter 2"]
    relabeled = [(first[0][0], "letter 2"), (third[-1][0], "letter 0")]
    return Journey(classifying(source.pipeline), first, third[:2], relabeled, images[-8:])


def images():
    """Files of images of all kinds that are read, as examples and as queries."""
    named = [(content, f"class {place % 3}") for place, content in enumerate(READ.values())]
    first = [one for one in named if one[1] != "class 2"]
    more = [one for one in named if one[1] == "class 2"]
    pipeline = ImagePipeline(size=8, channels=3)
    return Journey(classifying(pipeline), first, more, [(READ["cmyk"], "class 0")], list(READ.values()))


TABLE = {
    "size": ["1.5", "2", "", "9.25", "7", "3"],
    "color": ["red", "blue", "red", "", "blue", "green"],
    "sold": ["2024-01-03", "2024-02-01", "2023-11-30", "2024-05-06", "2024-03-02", "2024-02-28"],
    "fresh": ["true", "false", "true", "true", "false", "false"],
}
"""Numbers and categories of which some are not there, dates, and truth values."""
MISSING_AND_UNKNOWN = [
    {"size": None, "color": "red", "sold": "2024-01-01", "fresh": True},
    {"size": 4, "color": "purple", "sold": "2024-06-01", "fresh": False},
    {"size": 2.5, "color": None, "sold": None, "fresh": None},
    {"size": 1e6, "color": "blue", "sold": "2030-01-01", "fresh": True},
]


def row(size, color, sold, fresh):
    return {"size": size, "color": color, "sold": sold, "fresh": fresh}


def rows(pipeline=None):
    """Rows with missing and unknown values."""
    pipeline = pipeline or TablePipeline.fit(Table("sales", pa.table(TABLE)), np.arange(6))
    first = [
        (row(1.5, "red", "2024-01-03", True), "good"),
        (row(2, None, "2024-02-01", False), "good"),
        (row(None, "green", "2024-02-01", False), "bad"),
        (row(9, "blue", None, True), "bad"),
    ]
    more = [(row(5, "violet", "2024-04-01", None), "odd"), (row(5.5, "green", "2024-04-02", True), "odd")]
    relabeled = [(first[1][0], "bad"), (row(0.5, "red", "2023-01-01", True), "good")]
    return Journey(classifying(pipeline), first, more, relabeled, MISSING_AND_UNKNOWN)


def own_columns():
    """The same rows, whose columns the model has never seen; they outnumber its inputs."""
    return rows(ManyTablesPipeline(width=6, label="last"))


def values(pipeline=None):
    """Rows whose value is predicted, in a unit of its own."""
    prices = {"price": [1200.0, 900.0, 2500.0, 4100.0, 3000.0, 700.0]}
    pipeline = pipeline or TablePipeline.fit(Table("sales", pa.table(TABLE | prices)), np.arange(6), target="price")
    first = [
        (row(1.5, "red", "2024-01-03", True), 1250.0),
        (row(2, "blue", "2024-02-01", False), 800),
        (row(9, None, "2024-02-01", True), 2400.5),
    ]
    more = [(row(None, "green", "2024-04-02", True), 5000.0)]
    relabeled = [(first[0][0], 1100.0), (row(3, "red", None, True), 950.0)]
    return Journey(regressing(pipeline), first, more, relabeled, MISSING_AND_UNKNOWN)


def own_values():
    """The same values, of rows whose columns the model has never seen, by a name that it has."""
    return values(ManyTablesPipeline(width=20, target="price"))


def numbers(seed, count=1):
    """Vectors."""
    return (10 * np.random.default_rng(seed).normal(size=(count, 5)) + 100).tolist()


def vectors():
    """Vectors whose columns are scaled."""
    arrays = {"inputs": np.array(numbers(0, 40)), "labels": np.arange(40) % 4}
    pipeline = ArrayPipeline.fit(arrays["inputs"], np.arange(40))
    first = list(zip(numbers(1, 4), ["a", "b", "a", "b"], strict=True))
    more = list(zip(numbers(2, 2), ["c", "c"], strict=True))
    return Journey(classifying(pipeline), first, more, [(first[2][0], "b"), (numbers(3)[0], "a")], numbers(4, 6))


def several_values():
    """Vectors with two values each."""
    pipeline = ArrayPipeline.fit(
        np.array(numbers(0, 40)), np.arange(40), targets=np.random.default_rng(9).normal(size=(40, 2)) * [1, 1000]
    )
    first = list(zip(numbers(1, 3), [[0.5, 100.0], [-1.0, 2000.0], [0.25, -500.0]], strict=True))
    relabeled = [(first[1][0], [0.0, 1.0])]
    return Journey(regressing(pipeline), first, [(numbers(2)[0], [2.0, 50.0])], relabeled, numbers(4, 3))


SENTENCES = [
    ("I lost my card.", "card"),
    ("My card was stolen!", "card"),
    ("Where is my parcel?", "parcel"),
    ("The parcel hasn't come — since März 😀", "parcel"),
]


def texts(encoder):
    """Sentences. encoder: a `TextEncoder`."""
    column = [text for text, _ in SENTENCES]
    pipeline = TextPipeline.fit(Table("mail", pa.table({"text": column})), np.arange(4), text="text", encoder=encoder)
    more = [("How do I reset my password?", "password"), ("Passwort vergessen", "password")]
    relabeled = [(SENTENCES[1][0], "theft"), ("A thief has my card", "theft")]
    queries = ["Someone took my card", "when will it be delivered", "password", "x" * 900, "e\u0301 = é"]
    return Journey(classifying(pipeline), SENTENCES, more, relabeled, queries)
