"""What is measured on its own, and how."""

import argparse
import gc
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.encoders.data import DATA, DRAWINGS, SHOTS, written
from benchmarks.encoders.rows import CONTRASTIVE, FROZEN, MAP, PER_TASK, PER_TASK_SIZES, PROBE, SCRATCH, TUNED
from benchmarks.tiny import sized
from handful import LEARNERS, MetaModel, evaluate
from handful.encoders.cache import CACHE
from handful.engine.cost import give_back_memory
from handful.evaluation.scoring import Evaluation, works_on_features
from handful.events import Event, ValidationEvent
from handful.learners.learner import Learner
from handful.tasks.distribution import Remembered, TaskDistribution
from handful.tasks.splits import Contents
from handful.training.run import Run
from handful.workflows.experiment import MOST_WAY, ON_ENCODERS, QUERIES, SHOT, Experiment, Source, reopened
from handful.workflows.train import train

CHOOSING_TASKS, VALIDATION_TASKS, STEPS = sized((40, 400, 200), (1, 1, 2))
LITE0, TRUST = "benchmarks.encoders.lite0:efficientnet_lite0", ("benchmarks",)
SLOW = 5
"""The probe takes this many times fewer tasks."""


@dataclass(frozen=True)
class Cell:
    """What is measured on its own."""

    data: str
    row: str
    fold: int = 0
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.data}, {self.row}, fold {self.fold}, seed {self.seed}"


class Bench:
    """All that the cells share.

    given: the options of the command. contents: of each data set what is in each split, fold by fold, where the files
    do not tell.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.work = Path("runs") / "encoders" / ("quick" if given.quick else "whole")
        self.contents: dict[str, Sequence[Contents | None]] = {}
        self.places: dict[str, Path] = {}

    def cells(self, name: str) -> Iterator[Cell]:
        """Of one data set, in their order."""
        self.places[name], self.contents[name] = written(name, self.given.data, self.work / "data")
        image = name == DRAWINGS
        for fold in range(min(self.given.folds, len(self.contents[name]))):
            yield Cell(name, FROZEN, fold)
            yield Cell(name, PROBE, fold)
            for seed in range(self.given.seeds):
                for row in (MAP, TUNED, *([SCRATCH] if image else [])):
                    yield Cell(name, row, fold, seed)
        if not image:
            yield Cell(name, PER_TASK)

    def settings(self, cell: Cell) -> dict[str, Any]:
        """What a recorded cell must have been measured with to be kept."""
        given = self.given
        found: dict[str, Any] = {"encoder": LITE0 if cell.data == DRAWINGS else Path(given.encoder).name}
        found["tasks"] = given.per_task if cell.row == PER_TASK else given.tasks
        if cell.row in (TUNED, SCRATCH, PER_TASK):
            found["minutes"] = given.minutes
        if cell.row in (TUNED, PER_TASK):
            found["tuning"] = given.tune
        return found

    def source(self, cell: Cell, tuning: str = "off", *, raw: bool = False) -> Source:
        """raw: images as they are, for a network from scratch."""
        encoder = LITE0 if cell.data == DRAWINGS else self.given.encoder
        read_by = {} if raw else {"encoder": encoder, "tune_encoder": tuning}
        return Source(str(self.places[cell.data]), seed=cell.seed, **DATA[cell.data].options, **read_by)

    def opened(self, cell: Cell, source: Source) -> TaskDistribution:
        """The tasks, with the classes of the fold in their splits."""
        return source.open(earlier=self.contents[cell.data][cell.fold], trust=TRUST)

    def loaded(self, cell: Cell) -> MetaModel:
        """The model of a training."""
        return MetaModel.from_pretrained(self.folder(cell) / "model", trust=TRUST)

    def folder(self, cell: Cell) -> Path:
        """Of a training."""
        return self.work / str(cell).replace(", ", "-").replace(" ", "-")

    def experiment(self, cell: Cell) -> Experiment:
        """Of a row that is trained."""
        data = DATA[cell.data]
        length = {"steps": STEPS, "validate_start": True} if cell.row == MAP else {"minutes": self.given.minutes}
        found = Experiment(
            self.source(cell, self.given.tune if cell.row == TUNED else "off", raw=cell.row == SCRATCH),
            way=data.way,
            shot=SHOTS,
            query_shot=data.queries(max(SHOTS)),
            settings=length | {"validation_tasks": VALIDATION_TASKS},
            seed=cell.seed,
        )
        if cell.row != SCRATCH:
            return found
        sizes = {"train_way": MOST_WAY, "train_shot": SHOT, "train_query_shot": QUERIES}
        return replace(found, learner="protonet", options=ON_ENCODERS, backbone="conv4", **sizes)

    def run(self, cell: Cell) -> dict[str, Any]:
        """Measure a cell."""
        torch.set_num_threads(1)
        os.environ[CACHE] = str((self.work / "cache" / cell.data).absolute())
        if cell.row == PER_TASK:
            return self.per_task(cell)
        if cell.row in (FROZEN, PROBE):
            return self.frozen(cell)
        return self.trained(cell)

    def frozen(self, cell: Cell) -> dict[str, Any]:
        """What needs no training. The first of a data set encodes it, without what an earlier run has kept."""
        times = []
        if cell == Cell(cell.data, FROZEN):
            shutil.rmtree(os.environ[CACHE], ignore_errors=True)
        for _ in range(2 if cell == Cell(cell.data, FROZEN) else 1):
            start = time.process_time()
            tasks = self.opened(cell, self.source(cell))
            times.append(round(time.process_time() - start, 2))
        learner, count = None, self.given.tasks
        if cell.row == FROZEN:
            learner = LEARNERS["protonet"].build(tasks.spec, backbone="raw", distance="cosine")
        else:
            count = max(1, count // SLOW)
        found = self.scored(cell, tasks, learner, count)
        return found | ({"seconds of encoding": times[0], "again": times[1]} if len(times) > 1 else {})

    def trained(self, cell: Cell) -> dict[str, Any]:
        """Train, load what was saved, and score that."""
        experiment, folder = self.experiment(cell), self.folder(cell)
        tasks = self.opened(cell, experiment.source)
        gc.collect()  # what earlier cells have left is none of this one's memory
        give_back_memory()
        with suppress(OSError):  # forgets the largest size of the process so far, which performance.json tells
            Path("/proc/self/clear_refs").write_text("5")
        start = time.process_time()
        with clock_of_the_core():
            train(experiment.settled(tasks), folder, tasks=tasks, force=True, trust=TRUST, on_event=heard)
        spent = round((time.process_time() - start) / 60, 2)
        model = self.loaded(cell)
        names = ("trained steps", "kept step", "selection", "validation score", "encoder")
        facts = {name: model.facts[name] for name in names if name in model.facts}
        tasks = reopened(replace(experiment.source, seed=0), tasks.contents(), model.pipeline)
        return facts | {
            "minutes of training": spent,
            "model bytes": sum(path.stat().st_size for path in (folder / "model").rglob("*") if path.is_file()),
            "peak bytes": Run(folder).performance().get("peak_bytes"),
            **self.scored(cell, tasks, model.learner, self.given.tasks),
        }

    def scored(self, cell: Cell, tasks: TaskDistribution, learner: Learner | None, count: int) -> dict[str, Any]:
        """Accuracies by shot. learner: None: a probe that is chosen for each."""
        data, scores, network = DATA[cell.data], {}, None
        if learner is not None and works_on_features(learner):
            network = Remembered(learner.backbone)  # for the tasks of all shots
        for shot in SHOTS:
            sizes = data.way, shot, data.queries(shot)
            own = learner or chosen("logistic-probe", tasks.split("val").with_sizes(*sizes))
            drawn = tasks.split("test").with_sizes(*sizes)
            features = None if network is None else drawn.mapped(network)
            scores[str(shot)] = accuracies(evaluate(own, drawn, tasks=count, features=features))
        return {"scores": scores}

    def per_task(self, cell: Cell) -> dict[str, Any]:
        """The encoder fine-tuned for each of a few tasks, and what was trained once, on the same ones."""
        trained = {row: replace(cell, row=row) for row in (MAP, TUNED)}
        for one in trained.values():
            if not (self.folder(one) / "model").exists():
                self.trained(one)
        way, shot = PER_TASK_SIZES

        def drawn(tasks: TaskDistribution) -> TaskDistribution:
            return tasks.split("test").with_sizes(way, shot, DATA[cell.data].queries(shot))

        frozen, whole = (self.opened(cell, self.source(cell, tuning)) for tuning in ("off", "on"))
        vectors, tokens, contents = drawn(frozen), drawn(whole), frozen.contents()
        assert tokens.pipeline is not None
        encoder = {"backbone": tokens.pipeline.backbone, "backbone_options": dict(tokens.pipeline.backbone_options)}
        learners = [
            (FROZEN, LEARNERS["protonet"].build(vectors.spec, backbone="raw", distance="cosine"), vectors),
            (CONTRASTIVE, LEARNERS[CONTRASTIVE].build(tokens.spec, **encoder), tokens),
        ]
        for row, one in trained.items():
            model = self.loaded(one)
            learners.append((row, model.learner, drawn(reopened(self.source(cell), contents, model.pipeline))))
        found = {}
        for row, learner, tasks in learners:
            start = time.process_time()
            evaluation = evaluate(learner, tasks, tasks=self.given.per_task)
            found[row] = {
                "scores": accuracies(evaluation),
                "seconds of all": round(time.process_time() - start, 2),
                "seconds to adapt": adapting(learner, tasks) if row == TUNED else evaluation.adapt_seconds,
            }
        return {"rows": found}


def chosen(key: str, validation: TaskDistribution) -> Learner:
    """A probe with the options that are best on validation tasks."""
    choices = LEARNERS[key].search_space
    built = [
        LEARNERS[key].build(validation.spec, backbone="raw", **dict(zip(choices, values, strict=True)))
        for values in product(*choices.values())
    ]
    return max(built, key=lambda probe: evaluate(probe, validation, tasks=CHOOSING_TASKS).score.mean)


def accuracies(evaluation: Evaluation) -> list[float]:
    """Of each task."""
    return [round(score, 5) for score in evaluation.scores.tolist()]


def adapting(learner: Learner, tasks: TaskDistribution, count: int = 5) -> float:
    """Seconds of processor time that adapting to a task takes, the median: to encode its support, above all."""
    times = []
    with torch.no_grad():
        for index in range(count):
            support = tasks.task(index).support
            start = time.process_time()
            learner.adapt(support, tasks.spec)
            times.append(time.process_time() - start)
    return float(np.median(times))


@contextmanager
def clock_of_the_core() -> Iterator[None]:
    """Minutes are those of the processor, so that a budget holds as much work where others compute beside it."""
    clocks = time.perf_counter, time.monotonic
    time.perf_counter = time.monotonic = time.process_time
    try:
        yield
    finally:
        time.perf_counter, time.monotonic = clocks


def heard(event: Event) -> None:
    """Print a line where a validation was taken."""
    if isinstance(event, ValidationEvent):
        print(f"  step {event.step}: validation {event.score:.4f}", flush=True)
