"""A bank of adapted tasks under fire: one thread puts new versions while the others predict and check every answer.

Each key has two versions, put in turn. Every prediction must equal one of the two within 1e-5 of probabilities, no key
may be lost, and `put` must not become slower as the bank grows. Prints a table; `--picture FILE` draws it.

    python -m benchmarks.task_bank --tasks 100 10000 --threads 8 --seconds 20
"""

import argparse
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.tiny import sized
from handful import LEARNERS, AdaptedTask, Categorical, MetaModel, TaskBank, TaskSpec
from handful.streams import seeded

SPEC = TaskSpec("classification", (64,), 5)
SHOT, QUERIES, REQUESTS = 5, 4, 16
TOLERANCE = 1e-5
SLOWER = 1.5
"""How many times as long as in the smallest bank the slowest hundredth of puts may take in the largest."""


@dataclass
class Measured:
    """What happened in one bank. puts, predicts: seconds of each call. wrong: predictions of neither version."""

    tasks: int
    puts: list[float] = field(default_factory=list)
    predicts: list[float] = field(default_factory=list)
    predictions: int = 0
    wrong: int = 0
    lost: int = 0

    @property
    def slowest_puts(self) -> float:
        """The 99th percentile of `put`, in seconds."""
        return float(np.percentile(self.puts, 99))


def measure(tasks: int, threads: int, seconds: float) -> Measured:
    """Fill a bank with so many tasks, then put and predict at once."""
    generator = seeded("benchmarks.task_bank", tasks)
    model = MetaModel(LEARNERS["protonet"].build(SPEC, backbone="mlp"))
    versions = [_adapted(model, tasks, generator) for _ in range(2)]
    inputs = torch.randn(QUERIES, *SPEC.input_shape, generator=generator)
    bank: TaskBank[int] = TaskBank(model)
    expected = []
    for version in versions:
        for key, task in enumerate(version):
            bank.put(key, task)
        expected.append(
            torch.stack([_probabilities(one) for one in bank.predict([(key, inputs) for key in range(tasks)])])
        )
    measured, lock, stop = Measured(tasks), threading.Lock(), threading.Event()

    def put() -> None:
        turn = 0
        while not stop.is_set():
            key, version = turn % tasks, versions[(turn // tasks) % 2]
            start = time.perf_counter()
            bank.put(key, version[key])
            measured.puts.append(time.perf_counter() - start)
            turn += 1

    def predict(number: int) -> None:
        own = np.random.default_rng(number)
        while not stop.is_set():
            keys = own.integers(tasks, size=REQUESTS).tolist()
            start = time.perf_counter()
            found = bank.predict([(key, inputs) for key in keys])
            took = time.perf_counter() - start
            wrong = sum(not _is_one_of(one, [of[key] for of in expected]) for key, one in zip(keys, found, strict=True))
            with lock:
                measured.predicts.append(took)
                measured.predictions += len(found)
                measured.wrong += wrong

    workers = [threading.Thread(target=put), *(threading.Thread(target=predict, args=(n,)) for n in range(threads - 1))]
    for worker in workers:
        worker.start()
    time.sleep(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    measured.lost = tasks - sum(key in bank for key in range(tasks))
    return measured


def _adapted(model: MetaModel, tasks: int, generator: torch.Generator) -> list[AdaptedTask]:
    inputs = torch.randn(tasks, SPEC.outputs * SHOT, *SPEC.input_shape, generator=generator)
    labels = [f"class {number % SPEC.outputs}" for number in range(SPEC.outputs * SHOT)]
    adapted = model.adapt_many([(own, labels) for own in inputs], keep_support=False)
    return [task for task in adapted if isinstance(task, AdaptedTask)]


def _probabilities(prediction: object) -> torch.Tensor:
    assert isinstance(prediction, Categorical), prediction
    return prediction.logits.softmax(-1)


def _is_one_of(prediction: object, versions: list[torch.Tensor]) -> bool:
    if not isinstance(prediction, Categorical):
        return False
    found = prediction.logits.softmax(-1)
    return any(bool((found - version).abs().max() <= TOLERANCE) for version in versions)


def table(rows: list[Measured]) -> Table:
    """All banks, one per line."""
    shown = Table("tasks", "puts", "put p50 ms", "p99", "predict p50 ms", "p99", "predictions", "wrong", "lost")
    for row in rows:
        times = [np.percentile(row.puts, 50), row.slowest_puts, *np.percentile(row.predicts, [50, 99])]
        shown.add_row(
            f"{row.tasks:,}",
            f"{len(row.puts):,}",
            *(f"{1000 * value:.2f}" for value in times),
            f"{row.predictions:,}",
            str(row.wrong),
            str(row.lost),
        )
    return shown


def draw(rows: list[Measured], path: Path) -> None:
    """Times against the size of the bank."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    sizes = [row.tasks for row in rows]
    for name, seconds in (
        ("put", [row.puts for row in rows]),
        (f"predict, {REQUESTS} requests", [row.predicts for row in rows]),
    ):
        for percent, style in ((50, "-"), (99, "--")):
            values = [1000 * float(np.percentile(own, percent)) for own in seconds]
            color = "C0" if name == "put" else "C1"
            axes.plot(sizes, values, style, marker="o", color=color, label=f"{name}, p{percent}")
    axes.set(xscale="log", yscale="log", xlabel="adapted tasks in the bank", ylabel="milliseconds")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure banks of all sizes; exit 1 where an answer was wrong, a key lost, or `put` slower than it may be."""
    parser = argparse.ArgumentParser(description="A bank of adapted tasks under puts and predictions.")
    parser.add_argument("--tasks", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(sized(count, 12), given.threads, sized(given.seconds, 0.2)) for count in given.tasks]
    console = Console()
    console.print(table(rows))
    ratio = rows[-1].slowest_puts / rows[0].slowest_puts
    console.print(f"put p99, largest over smallest bank: {ratio:.2f} (at most {SLOWER})")
    if given.picture:
        draw(rows, given.picture)
    failed = any(row.wrong or row.lost for row in rows) or sized(ratio > SLOWER, False)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
