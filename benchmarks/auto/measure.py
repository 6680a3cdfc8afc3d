"""What is measured on its own, and how: a training by the clock of one core, and its tests.

Beside the model of `auto` stands the ladder, on the same test tasks and with options chosen on validation tasks: of it
the best rung, the best of those that learn from each task alone, boosted trees with a correction, and the pooled
network. Costly rungs (networks trained or fine-tuned for each task) are left out.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.auto.data import SETS, source_of
from benchmarks.encoders.measure import clock_of_the_core
from benchmarks.tiny import sized
from handful.cli.train import AUTO
from handful.evaluation.ladder import Ladder
from handful.evaluation.scoring import Evaluation, evaluate
from handful.learners.learner import Learner
from handful.models.meta_model import MetaModel
from handful.notes import collecting
from handful.storage import is_run, read_json
from handful.tasks.distribution import TaskDistribution
from handful.training.pretraining_budget import examples_within
from handful.training.run import RACE, Run
from handful.workflows.auto import auto, with_network, with_size
from handful.workflows.encoder_tuning import with_way_of_tuning
from handful.workflows.experiment import Experiment, opened_again, validating
from handful.workflows.train import train

TRANSFER, TREES, POOLED = "transfer", "corrected-trees", "pooled"
FORMER = "protonet"
"""What `handful train` took where no learner was named."""
ON_TREES = " on boosted"
"""A learner that has the prediction of boosted trees as one more column."""
SINGLES = ("bayesian-last-layer", "cavia", "cnp", "cnp" + ON_TREES)
BATCH = 16
"""Tasks of a meta-step of theirs."""
DRAWS = sized(4, 1)
"""Of each test task of a table."""
WAYS = (AUTO, TRANSFER, FORMER, *SINGLES)


class Cell(NamedTuple):
    """What is measured on its own."""

    data: str
    way: str
    minutes: float
    seed: int

    def __str__(self) -> str:
        return f"{self.data}, {self.way}, {self.minutes:g} minutes, seed {self.seed}"


def ways_of(name: str) -> tuple[str, ...]:
    """What is measured on a data set; beside `auto` with one seed, but for what pre-training for the time gives."""
    if SETS[name].kind == "images":
        return AUTO, TRANSFER, FORMER
    return (AUTO, *SINGLES) if SETS[name].kind == "tables" else (AUTO,)


class Bench:
    """What cells share. data: the folder of the option `--data`. encoder: of texts."""

    def __init__(self, data: Path, encoder: str) -> None:
        self.data, self.encoder = data, encoder

    def run(self, cell: Cell) -> dict[str, Any]:
        """Train in the given time, and score."""
        torch.set_num_threads(1)
        source, contents = source_of(cell.data, self.data, self.encoder, cell.seed)
        (_, shot), *_ = SETS[cell.data].settings
        experiment = with_way_of_tuning(
            Experiment(
                source,
                shot=shot if SETS[cell.data].kind == "tables" else None,
                seed=cell.seed,
                settings={"minutes": cell.minutes},
            )
        )
        folder = Path("runs") / "auto" / str(cell).replace(", ", "-").replace(" ", "-")
        interrupted = is_run(folder)
        with collecting(), clock_of_the_core():  # notes of categories that a split lacks
            start = time.process_time()
            opened = None if contents is None else experiment.source.open(earlier=contents)
            if cell.way == TRANSFER:
                learner, tasks, facts = _transferred(experiment)
                seconds = time.process_time() - start
                scores = _without_ladder(cell, learner, tasks)
            else:
                model = _trained(cell.way, experiment, folder, opened)
                seconds = time.process_time() - start
                tasks, _ = opened_again(Experiment.from_config(Run(folder).config()), model, Run(folder))
                facts = {"learner": model.learner.key, "kept": str(model.facts["selection"])}
                if cell.way == AUTO:
                    facts |= _of_race(folder)
                    scores = self.beside_ladder(cell, model, tasks, folder)
                else:
                    scores = _without_ladder(cell, model.learner, tasks)
        if SETS[cell.data].kind == "tables":
            test = tasks.split("test")
            facts |= {"variance": variance(test), "names": test.split_manifest()["test"]}
        return cell._asdict() | {
            "core minutes": None if interrupted else round(seconds / 60, 3),
            **facts,
            "scores": scores,
        }

    def beside_ladder(self, cell: Cell, model: MetaModel, tasks: TaskDistribution, folder: Path) -> dict[str, Any]:
        """By setting, the scores of the model and of the rungs that count."""
        run = Run(folder)
        race = run.race() or {}
        ladder = Ladder(
            model.learner,
            tasks.split("train"),
            examples=model.facts["examples"] or race.get("examples", 0),
            network=run.pretrained_network(),
            backbone=Experiment.from_config(run.config()).network(tasks),
            minutes=cell.minutes,
            seed=cell.seed,
            keeper=run.ladder_checkpoints(),
        )
        found = {name: _beside(ladder, setting, count, tasks) for name, setting, count in _settings(cell.data, tasks)}
        for other in SETS[cell.data].across:
            source, _ = source_of(other, self.data, self.encoder, 0)
            away = source.left_open().open(pipeline=model.pipeline)
            found |= {name: _beside(ladder, setting, count, tasks) for name, setting, count in _settings(other, away)}
        return found


def _trained(way: str, experiment: Experiment, folder: Path, opened: TaskDistribution | None) -> MetaModel:
    if way == AUTO:
        return auto(experiment, folder, tasks=opened, resume=is_run(folder))
    settings = experiment.settings | ({"meta_batch_size": BATCH} if way in SINGLES else {})
    backbone = "boosted" if way.endswith(ON_TREES) else experiment.backbone
    single = replace(experiment, learner=way.removesuffix(ON_TREES), backbone=backbone, settings=settings)
    return train(single, folder, tasks=opened, resume=is_run(folder))


def _transferred(experiment: Experiment) -> tuple[Learner, TaskDistribution, dict[str, Any]]:
    """The rung on a network that was pre-trained for all of the time, on images of the size that it holds."""
    tasks, start = experiment.source.open(), time.perf_counter()
    left = experiment.backbone == "auto" and not experiment.backbone_options
    if (fitting := with_size(experiment, tasks, None)) != experiment:
        experiment, tasks = fitting, fitting.source.open()
    learner = replace(with_network(experiment, tasks, left=left), learner=TRANSFER).build(tasks)
    pool = experiment.training_tasks(tasks.split("train")).pool()
    assert pool is not None, "images have one"
    left = 60 * experiment.settings["minutes"] - (time.perf_counter() - start)
    examples = examples_within(learner, pool, left, seed=experiment.seed)
    learner.pretrain(pool, examples=examples, seed=experiment.seed)
    return learner, tasks, {"learner": TRANSFER, "examples": examples}


def _of_race(folder: Path) -> dict[str, Any]:
    """What the race says of its time and of what it tried."""
    race = read_json(folder / RACE)
    tried = {one["name"]: one["score"] for one in race["summary"]["candidates"]}
    facts = {"heads": race["summary"]["heads"], "tried": tried, "left out": race["summary"]["left_out"]}
    return {"spent": round(race["spent"] / 60, 3), **facts}


def _settings(name: str, tasks: TaskDistribution) -> Iterator[tuple[str, TaskDistribution, int]]:
    """Those of a data set by their names, and how many tasks of each are scored."""
    test, data = tasks.split("test"), SETS[name]
    for way, shot in data.settings:
        setting = test.with_sizes(way, shot, data.queries if way else None)
        count = data.tasks if setting.units is None else DRAWS * setting.units
        yield f"{name}, {f'{way}-way {shot}-shot' if way else f'{shot} rows'}", setting, count


def _without_ladder(cell: Cell, learner: Learner, tasks: TaskDistribution) -> dict[str, Any]:
    return {
        name: {cell.way: _by_task(evaluate(learner, setting, tasks=count))}
        for name, setting, count in _settings(cell.data, tasks)
    }


def _beside(ladder: Ladder, setting: TaskDistribution, count: int, home: TaskDistribution) -> dict[str, Any]:
    sizes = setting.sizes
    found = ladder.run(setting, validating(home, sizes.way, sizes.shot, sizes.query_shot), tasks=count)
    scores = {row.evaluation.name: row.evaluation for row in found.rows[1:]}
    named = {"best rung": found.best_rung.evaluation.name, "alone": found.alone}
    kept = {*named.values(), *({TRANSFER, TREES, POOLED} & scores.keys())} - {None}
    means = {name: round(one.score.mean, 5) for name, one in scores.items()}
    own = {AUTO: _by_task(found.learner.evaluation)}
    return {**named, "means": means, **own, **{name: _by_task(scores[name]) for name in sorted(kept)}}


def _by_task(found: Evaluation) -> list[float]:
    """The mean score of each test task."""
    return [float(f"{found.scores[found.units == unit].mean():.5g}") for unit in found.units.unique().tolist()]


def variance(test: TaskDistribution) -> float:
    """Of the test rows, in the units of the errors."""
    assert test.units is not None
    rows = torch.cat([test.task(index).query.targets for index in range(test.units)])
    return float((rows * test.target_scale).var())
