"""Do small tasks help? Real tables of which each training task keeps 4 to 60 rows, often fewer than are asked for.

The same learner is trained twice with the same seeds: on all training tasks, with sizes that vary from block to block,
and on those alone that have 5 support rows and as many query rows as half of the tasks have left. Both are scored on
the same whole test tasks. Each seed has a split, rows and weights of its own.

    python -m benchmarks.small_tasks --data FOLDER        the folder with schools/hsb82.parquet and the others
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.evidence import Cells, Section, guarded, record
from handful import LEARNERS, evaluate, meta_train
from handful.evaluation.intervals import seeds_interval
from handful.notes import collecting
from handful.streams import seeded
from handful.tasks.distribution import SPLITS, TaskDistribution
from handful.tasks.opening import open_tasks
from handful.tasks.splits import Contents
from handful.tasks.task_collection import TaskCollection

RESULTS = "small_tasks"
SHOT, QUERY_SHOT = 5, 15
FEWEST, MOST = 4, 60
FIRST_SEED = 10
"""On earlier ones it was chosen how blocks of training tasks take their sizes."""
DRAWS = 4
"""Of each test task."""


class Table(NamedTuple):
    """A file and what its columns are."""

    path: str
    columns: dict[str, Any]


TABLES = {
    "schools": Table("schools/hsb82.parquet", {"task": "school", "target": "mAch"}),
    "used_cars": Table("used_cars/used_cars.parquet", {"task": "task", "target": "price", "drop": ["make", "model"]}),
    "weekly_sales": Table("weekly_sales/weekly_sales.parquet", {"task": "task", "target": "sales"}),
}

LEARNERS_AND_OPTIONS: dict[str, dict[str, Any]] = {
    "anil": {"inner_steps": 5},
    "r2d2": {},
}


def thinned(tasks: TaskCollection, seed: int) -> TaskCollection:
    """Few rows of the tasks that train and validate: of most of them fewer than 8, of some 60."""
    generator = seeded("benchmarks.small_tasks", seed)
    kept = []
    for task, members in enumerate(tasks.members):
        uniform = float(torch.rand((), generator=generator))
        rows = members[torch.randperm(len(members), generator=generator)]
        count = round(FEWEST * (MOST / FEWEST) ** uniform**2)
        kept.append(rows if task in tasks.splits["test"] else rows[:count])
    return of_rows(tasks, torch.cat(kept), tasks.splits)


def large_alone(tasks: TaskCollection) -> TaskCollection:
    """The training tasks with a support and as many query rows as half of those with more than a support have left."""
    left = sorted(tasks.room[task] - SHOT for task in tasks.splits["train"] if tasks.room[task] > SHOT)
    query_shot = min(QUERY_SHOT, left[len(left) // 2])
    large = [task for task in tasks.splits["train"] if tasks.room[task] >= SHOT + query_shot]
    rows = torch.arange(len(tasks.inputs))
    return of_rows(tasks, rows, tasks.splits | {"train": large}).with_sizes(shot=SHOT, query_shot=query_shot)


def of_rows(tasks: TaskCollection, rows: Tensor, splits: Any) -> TaskCollection:
    """These rows of the tasks."""
    return TaskCollection(
        tasks.inputs[rows],
        tasks.targets[rows],
        tasks.tasks[rows],
        tasks.names,
        splits=splits,
        pipeline=tasks.pipeline,
        seed=tasks.seed,
    )


def as_recorded(path: Path, columns: dict[str, Any], seed: int) -> TaskDistribution:
    """The tasks in the splits of the recorded results: a permutation of the names' numbers, cut like today's order."""
    first = open_tasks(path, **columns, seed=seed).split_manifest()
    names = sorted(name for part in first.values() for name in part)
    order, splits, start = np.random.default_rng(seed).permutation(len(names)).tolist(), {}, 0
    for on in SPLITS:
        end = start + len(first[on])
        splits |= {names[number]: on for number in order[start:end]}
        start = end
    placed = {on: {name: [] for name in names if splits[name] == on} for on in SPLITS}
    return open_tasks(path, **columns, seed=seed, earlier=Contents(placed))


def scores(learner: str, tasks: TaskCollection, seed: int, steps: int) -> Tensor:
    """Squared errors in deviations of the training targets: of each test task `DRAWS`, one after another."""
    built = LEARNERS[learner].build(
        tasks.spec,
        backbone="mlp",
        backbone_options={"hidden": (32, 32)},
        seed=seed,
        **LEARNERS_AND_OPTIONS[learner],
    )
    settings = {"steps": steps, "meta_batch_size": 16, "outer_lr": 1e-3, "plan": "vmap", "seed": seed}
    meta_train(built, tasks, validate_every=max(1, steps // 5), validation_tasks=60, **settings)
    test = tasks.split("test")
    return evaluate(built, test, tasks=DRAWS * test.units).scores / test.target_scale.square()


def run(name: str, folder: Path, learner: str, seeds: int, steps: int) -> dict[str, Any]:
    """Train both ways with each seed."""
    table, found = TABLES[name], []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        opened = as_recorded(folder / table.path, table.columns, seed)
        assert isinstance(opened, TaskCollection)
        every = thinned(opened, seed).with_sizes(shot=SHOT, query_shot=QUERY_SHOT)
        large = large_alone(every)
        both = [scores(learner, tasks, seed, steps) for tasks in (every, large)]
        found.append((every, large, both))
        print(f"{name}, {learner}, seed {seed}: {', '.join(f'{float(one.mean()):.4f}' for one in both)}", flush=True)
    units = [torch.arange(len(both[0])) % every.split("test").units for every, _, both in found]
    logarithms = [(both[0] / both[1]).log() for *_, both in found]
    ratio = seeds_interval(logarithms, units, same_tasks=False)
    return {
        "training tasks": [every.units for every, *_ in found],
        "of them large": [large.units for _, large, _ in found],
        "small tasks": [every.small_tasks() for every, *_ in found],
        "test tasks": [every.split("test").units for every, *_ in found],
        "error with all": math.fsum(float(both[0].mean()) for *_, both in found) / seeds,
        "error with large ones": math.fsum(float(both[1].mean()) for *_, both in found) / seeds,
        "ratio": [math.exp(ratio.mean), math.exp(ratio.low), math.exp(ratio.high)],
        "steps": steps,
    }


def main() -> None:
    """Compare, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--learners", nargs="+", choices=LEARNERS_AND_OPTIONS, default=list(LEARNERS_AND_OPTIONS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.tables:
        for learner in arguments.learners:
            with collecting():  # notes of categories that a split lacks
                row = run(name, arguments.data, learner, arguments.seeds, arguments.steps)
            record(RESULTS, f"{name}, {learner}", row)
    Console().print(SECTION.table())


def cells(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each table and learner."""
    for key, row in rows.items():
        ratio, low, high = row["ratio"]
        count = len(row["test tasks"])
        yield (
            key,
            f"{sum(row['of them large']) / count:.0f} of {sum(row['training tasks']) / count:.0f}",
            f"{row['error with large ones']:.3f}",
            f"{row['error with all']:.3f}",
            f"{ratio:.3f} ({low:.3f} to {high:.3f})",
            f"{count} seeds x {min(row['test tasks'])} tasks x {DRAWS} draws",
        )


SECTION = Section(
    RESULTS,
    "Small training tasks",
    "python -m benchmarks.small_tasks --data FOLDER",
    (
        "table, learner",
        "large enough tasks",
        "squared error, trained on these alone",
        "trained on all tasks",
        "the second by the first (geometric mean, paired by task; 95 % over seeds and tasks)",
        "n",
    ),
    cells,
)


if __name__ == "__main__":
    guarded(main)
