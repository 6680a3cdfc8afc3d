"""Shops and prices: boosted trees with a correction of each task, against meta-learners without and with their column.

Each seed has a split of its own; all learners of it are scored on the same draws of its test tasks: 10 support rows,
all other rows query. Errors are shares of the variance of the test rows; beside them the ratio to that of the trees,
and for learners with the trees' column (`boosted`) that to the learner without.

    python -m benchmarks.auto.rows --data FOLDER        the folder with used_cars/used_cars.parquet and the others
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.auto.table_data import SHOT, TABLES, variance
from handful import LEARNERS, evaluate, meta_train
from handful.notes import collecting
from handful.tasks.distribution import TaskDistribution
from handful.tasks.opening import open_tasks
from handful.training.fitting import fit

DRAWS = 4
"""Of each test task."""
TREES, COLUMN = "corrected-trees", " on boosted"


def errors(name: str, tasks: TaskDistribution, seed: int, steps: int) -> Tensor:
    """Squared errors of `DRAWS` draws of each test task, one after another."""
    key = name.removesuffix(COLUMN)
    network = "boosted" if name.endswith(COLUMN) else "mlp"
    learner = LEARNERS[key].build(tasks.spec, backbone=network, seed=seed)
    if learner.meta_gradient == "none":
        fit(learner, tasks.split("train"))
    else:
        settings = {"steps": steps, "meta_batch_size": 16, "plan": "vmap", "seed": seed}
        meta_train(learner, tasks, validate_every=max(1, steps // 8), validation_tasks=60, **settings)
    test = tasks.split("test")
    return evaluate(learner, test, tasks=DRAWS * test.units).scores


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--learners", nargs="+", default=["cnp", "cavia"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for table in arguments.tables:
        path, columns = TABLES[table]
        for seed in range(arguments.seeds):
            with collecting():  # notes of categories that a split lacks
                tasks = open_tasks(arguments.data / path, **columns, seed=seed).with_sizes(shot=SHOT)
                share, found = variance(tasks.split("test")), dict[str, Tensor]()
                for name in [TREES, *(key + how for key in arguments.learners for how in ("", COLUMN))]:
                    start = time.process_time()
                    found[name] = errors(name, tasks, seed, arguments.steps)
                    mean = float(found[name].mean())
                    against = f"{mean / float(found[TREES].mean()):.2f} of the trees'"
                    if name.endswith(COLUMN):
                        plain = float(found[name.removesuffix(COLUMN)].mean())
                        against += f", {mean / plain:.2f} of that without the column"
                    seconds = time.process_time() - start
                    print(f"{table}, split {seed}, {name}: {mean / share:.4f} ({against}; {seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
