"""Shops, schools and tables: what `auto` finds in a given time, against single learners that have all of it.

Time is that of the processor on one core, so that a busy machine changes nothing. All of a split are scored on the same
draws of its test tasks: 10 support rows, all other rows query. Errors are shares of the variance of the test rows.
Finished cells are kept: an interrupted run goes on where it was.

    python -m benchmarks.auto.race --data FOLDER        the folder with used_cars/used_cars.parquet and the others
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.auto.table_data import SHOT, TABLES, variance
from benchmarks.evidence import Cells, Section, guarded, record, recorded
from benchmarks.tiny import sized
from handful.evaluation.intervals import Interval, interval
from handful.evaluation.scoring import evaluate
from handful.learners.learner import Learner
from handful.notes import collecting
from handful.registry import LEARNERS
from handful.tasks.distribution import TaskDistribution
from handful.training.fitting import fit
from handful.workflows.auto import AUTO, auto
from handful.workflows.experiment import Experiment, Source
from handful.workflows.train import train

RESULTS = "auto_rows"
DRAWS = sized(4, 1)
"""Of each test task."""
SINGLES = ("anil", "cavia", "cnp", "maml")
"""Learners with the whole budget, and that of boosted trees with a correction of each task, which need none."""
TREES = "corrected-trees"


def main() -> None:
    """Measure the missing cells, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=sized(2.0, 0.01), help="of the processor, for each cell")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--ways", nargs="+", default=[AUTO, TREES, *SINGLES])
    given = parser.parse_args()
    torch.set_num_threads(1)
    time.monotonic = time.perf_counter = time.process_time  # the clock by which budgets are kept
    for name in given.only:
        for seed in range(given.seeds):
            for way in given.ways:
                key = f"{name}, {way}, {given.minutes:g} minutes, seed {seed}"
                if key not in recorded(RESULTS):
                    with collecting():  # notes of categories that a split lacks
                        record(RESULTS, key, measured(given.data, name, way, given.minutes, seed))
    Console().print(SECTION.table())


def measured(data: Path, name: str, way: str, minutes: float, seed: int) -> dict[str, Any]:
    """Train in the given time, and score."""
    path, columns = TABLES[name]
    source = Source(str(data / path), seed=seed, **columns)
    experiment = Experiment(source, shot=SHOT, seed=seed, settings={"minutes": minutes})
    folder = Path("runs") / "auto" / f"{name}-{way}-{minutes:g}-{seed}"
    start = time.process_time()
    tasks = experiment.tasks(source.open())
    learner = _trained(experiment, tasks, way, folder)
    seconds = time.process_time() - start
    test = tasks.split("test")
    assert test.units is not None
    scores = evaluate(learner, test, tasks=DRAWS * test.units).scores
    facts = {"data": name, "way": way, "minutes": minutes, "seed": seed, "core minutes": round(seconds / 60, 2)}
    return facts | {"learner": learner.key, "variance": variance(test), "errors": _by_task(scores, test)}


def _trained(experiment: Experiment, tasks: TaskDistribution, way: str, folder: Path) -> Learner:
    if way == AUTO:
        return auto(experiment, folder, force=True).learner
    if way == TREES:
        learner: Learner = LEARNERS[TREES].build(tasks.spec, seed=experiment.seed)
        fit(learner, tasks.split("train"))
        return learner
    settings = experiment.settings | {"meta_batch_size": 16}
    single = Experiment(experiment.source, way, shot=SHOT, seed=experiment.seed, settings=settings)
    return train(single, folder, force=True).learner


def _by_task(scores: Tensor, test: TaskDistribution) -> list[float]:
    """The mean squared error of each test task."""
    assert test.units is not None
    units = torch.tensor([test.unit(index) for index in range(len(scores))])
    return [round(float(scores[units == unit].mean()), 6) for unit in units.unique().tolist()]


def cells(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each table and way, and by how much `auto` has less error than it, paired by test tasks."""
    found = {(row["data"], row["way"], row["seed"]): row for row in rows.values()}
    for (name, way, seed), row in found.items():
        share = torch.tensor(row["errors"], dtype=torch.float64) / row["variance"]
        own = found.get((name, AUTO, seed))
        gain = ""
        if own is not None and way != AUTO:
            gain = _said(interval(share - torch.tensor(own["errors"], dtype=torch.float64) / own["variance"]))
        yield name, f"{way} ({row['learner']})" if way == AUTO else way, str(seed), _said(interval(share)), gain


def _said(value: Interval) -> str:
    return f"{value.mean:.4f} ± {value.half_width:.4f}"


SECTION = Section(
    RESULTS,
    "Shops, schools and tables: auto and single learners in the same time",
    "python -m benchmarks.auto.race --data FOLDER",
    ("data", "way", "split", "share of variance", "auto has less by"),
    cells,
)


if __name__ == "__main__":
    guarded(main)
