"""Every classifier under an equal budget: `python -m benchmarks.classifiers --data FOLDER`.

5-way 1-shot on letters of fonts (`glyphs`) and on Omniglot (FOLDER holds omniglot_28.npz), each learner with default
options, meta-trained (rungs of the ladder: pre-trained) for the same time of one core. `protonet, pre-trained`
is a prototypical network that shares its time between both. How many steps that time buys is measured for the first
seed; where it is recorded, the others take as many, whatever else their machine does. Finished cells are kept: an
interrupted run goes on where it was.
"""

import argparse
import json
import os
import queue
import resource
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import handful
from benchmarks import child
from benchmarks.evidence import Cells, Section, guarded, record, recorded
from benchmarks.tiny import sized
from handful.engine.evaluation_copy import evaluation_copy
from handful.engine.planner import rule
from handful.errors import UserError
from handful.evaluation.intervals import seeds_interval
from handful.events import Event, StepEvent
from handful.functional.stateless import own_copy
from handful.learners.learner import Learner
from handful.learners.pretraining import BATCH as BATCH_OF_EXAMPLES
from handful.learners.transfer import PretrainedNetwork
from handful.registry import LEARNERS
from handful.tasks.distribution import TaskDistribution
from handful.tasks.glyphs import Glyphs
from handful.tasks.omniglot import Omniglot
from handful.training.settings import Settings

RESULTS = "classifiers"
WAY, SHOT, QUERY_SHOT, BATCH = 5, 1, 5, sized(8, 1)
TASKS, UNTRAINED_TASKS, VALIDATION_TASKS = sized((600, 100, 100), (2, 2, 2))
SLOW, SLOW_TASKS = 0.5, 60
"""Seconds that adapting to a task takes where a learner is scored and validated on fewer of them."""
FROM_PRETRAINING = "protonet, pre-trained"
OPTIONS: dict[str, Any] = {"loss": "neighbors", "distance": "cosine"}
"""Its options: tasks of a high way, of which all examples count, and the angles that pre-training is for."""
HIGH_WAY, HIGH_QUERY_SHOT, HIGH_BATCH = 100, 1, 1
WARM_UP, TIMED = 2, 6
"""Steps before the measured ones, and those, from which the number of steps in the budget follows."""
ADAPTED = 9
"""Tasks on which adapting is timed."""


def main() -> None:
    """Run the missing cells, a core each, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classifiers", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with omniglot_28.npz; without it, glyphs alone")
    parser.add_argument("--minutes", type=float, default=5, help="of training, on one core")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument(
        "--learners",
        nargs="+",
        metavar="LEARNER",
        choices=classifiers(),
        default=classifiers(),
        help=f"by default all classifiers of `handful list` that are trained, and {FROM_PRETRAINING!r}",
    )
    parser.add_argument("--cell", nargs=3, metavar=("SOURCE", "LEARNER", "SEED"), help="one cell, printed as JSON")
    given = parser.parse_args()
    if given.cell:
        source, key, seed = given.cell
        print(json.dumps(cell(source, key, int(seed), given.minutes, given.data)))
        return
    sources = ["glyphs", "omniglot"] if given.data else ["glyphs"]
    for source in sources:
        drawn(source, 0, given.data)  # what is missing is told before hours of training
    cells = [(s, k, n) for n in range(given.seeds) for s in sources for k in given.learners]
    missing = [one for one in cells if _name(*one, given.minutes) not in recorded(RESULTS)]
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)
    console = Console()

    def run(one: tuple[str, str, int]) -> None:
        core = cores.get()
        try:
            found = in_process(one, core, given.minutes, given.data)
        except subprocess.CalledProcessError:
            console.print(f"{_name(*one, given.minutes)}: failed, for the reason above; the others go on")
            return
        finally:
            cores.put(core)
        record(RESULTS, _name(*one, given.minutes), found)
        console.print(f"{_name(*one, given.minutes)}: {found['score']:.2f} (untrained {found['untrained']:.2f})")

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(run, missing))
    console.print(SECTION.table())


def classifiers() -> list[str]:
    """The learners that are trained, and classify where class numbers are drawn anew."""
    learners = [
        key
        for key, cls in LEARNERS.items()
        if "classification" in cls.kinds
        and "permuted" in cls.labels
        and (cls.meta_gradient != "none" or cls.start == "pretrained")
    ]
    return [*learners, FROM_PRETRAINING]


def in_process(one: tuple[str, str, int], core: int, minutes: float, data: Path | None) -> dict[str, Any]:
    """One cell in a process of its own, on one core, so that its peak memory is its own."""
    command = child.command("benchmarks.classifiers", "--minutes", str(minutes), "--cell", *map(str, one))
    done = subprocess.run(
        command + (["--data", str(data)] if data else []),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def cell(source: str, key: str, seed: int, minutes: float, data: Path | None) -> dict[str, Any]:
    """Train one learner with one seed for the budget; score it on test tasks, beside its untrained self."""
    torch.set_num_threads(1)

    # Classes are split alike, and all seeds are scored on the same tasks.
    tasks, same = drawn(source, seed, data), drawn(source, 0, data)
    test = same.split("test").with_sizes(WAY, SHOT, 15)
    both = key == FROM_PRETRAINING
    cls: type[Learner] = LEARNERS["protonet" if both else key]
    learner = cls.build(tasks.spec, seed=seed, **(OPTIONS if both else {}))
    first = recorded(RESULTS).get(_name(source, key, 0, minutes), {})
    slow = len(first["scores"]) == SLOW_TASKS if first else adapting(learner, test) > SLOW
    untrained = handful.evaluate(learner, test, tasks=SLOW_TASKS if slow else UNTRAINED_TASKS).score
    shared = minutes / 2 if both else minutes
    training: dict[str, Any] = {}
    if both or isinstance(learner, PretrainedNetwork):
        training |= pretrained(learner, tasks, first.get("steps of pre-training"), shared, seed)
    if not isinstance(learner, PretrainedNetwork):
        sized, batch = (tasks.with_sizes(HIGH_WAY, SHOT, HIGH_QUERY_SHOT), HIGH_BATCH) if both else (tasks, BATCH)
        validation = same.split("val").with_sizes(WAY, SHOT, 15)
        count = SLOW_TASKS if slow else VALIDATION_TASKS
        training |= meta_trained(learner, sized, batch, validation, count, first.get("steps"), shared, seed)
    evaluation = handful.evaluate(learner, test, tasks=SLOW_TASKS if slow else TASKS)
    return {
        "source": source,
        "learner": key,
        "seed": seed,
        "minutes": minutes,
        "score": 100 * evaluation.score.mean,
        "scores": [round(score, 4) for score in evaluation.scores.tolist()],
        "untrained": 100 * untrained.mean,
        "untrained half width": 100 * untrained.half_width,
        "adapt milliseconds": 1000 * adapting(learner, test),
        "state bytes": evaluation.state_bytes,
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "inductive": not evaluation.transductive,
        **training,
    }


def meta_trained(
    learner: Learner,
    tasks: TaskDistribution,
    batch: int,
    validation: TaskDistribution,
    count: int,
    steps: int | None,
    minutes: float,
    seed: int,
) -> dict[str, Any]:
    """Meta-train for `steps`, or for as many as the budget buys, by the time of a few; what there is to tell of it.

    batch: tasks of a step. count: tasks of a validation.
    """
    plan = rule(learner, batch).written()
    settings: dict[str, Any] = {"meta_batch_size": batch, "plan": plan, "seed": seed}
    if steps is None:
        times: list[float] = []

        def hear(event: Event) -> None:
            if isinstance(event, StepEvent):
                times.append(time.process_time())

        handful.meta_train(
            own_copy(learner),
            tasks,
            steps=WARM_UP + TIMED,
            validation=validation,
            validation_tasks=1,
            validate_every=WARM_UP + TIMED,
            on_event=hear,
            **settings,
        )
        steps = affordable(times[:-1], minutes)  # the last one validates
    start = time.process_time()
    trained = handful.meta_train(learner, tasks, steps=steps, validation=validation, validation_tasks=count, **settings)
    return {
        "steps": steps,
        "core seconds": round(time.process_time() - start, 1),
        "selection": trained.selection,
        "plan": plan,
        "outer_lr": Settings().outer_lr,
    }


def pretrained(
    learner: Learner, tasks: TaskDistribution, steps: int | None, minutes: float, seed: int
) -> dict[str, Any]:
    """Likewise, but trained the ordinary way on all training classes."""
    pool = tasks.split("train").pool()
    assert pool is not None
    if steps is None:
        times: list[float] = []
        own_copy(learner).pretrain(
            pool,
            examples=BATCH_OF_EXAMPLES * (WARM_UP + TIMED),
            progress=lambda done, total: times.append(time.process_time()),
        )
        steps = affordable(times, minutes)
    start = time.process_time()
    learner.pretrain(pool, examples=BATCH_OF_EXAMPLES * steps, seed=seed)
    return {
        "steps of pre-training": steps,
        "core seconds of pre-training": round(time.process_time() - start, 1),
    }


def adapting(learner: Learner, tasks: TaskDistribution) -> float:
    """Seconds of processor time that adapting to one task takes, the median: whatever else the machine does."""
    times: list[float] = []
    learner = evaluation_copy(learner)
    with torch.no_grad():
        for index in range(WARM_UP + ADAPTED):
            support = tasks.task(index).support
            start = time.process_time()
            learner.adapt(support, tasks.spec)
            times.append(time.process_time() - start)
    return statistics.median(times[WARM_UP:])


def drawn(source: str, seed: int, data: Path | None) -> TaskDistribution:
    """Tasks of a source."""
    if source == "glyphs":
        return Glyphs(seed=seed).with_sizes(WAY, SHOT, QUERY_SHOT)
    if data is None:
        raise UserError("Omniglot needs --data FOLDER with omniglot_28.npz.")
    return Omniglot(data / "omniglot_28.npz", seed=seed).with_sizes(WAY, SHOT, QUERY_SHOT)


def affordable(times: Sequence[float], minutes: float) -> int:
    """How many steps the budget buys, by the processor times at the ends of a few."""
    return max(10, round(60 * minutes / statistics.median(b - a for a, b in pairwise(times[WARM_UP - 1 :]))))


def cells(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each source and learner, best first; of the longest budget that was recorded."""
    longest = max((row["minutes"] for row in rows.values()), default=0)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows.values():
        if row["minutes"] == longest:
            groups.setdefault((row["source"], row["learner"]), []).append(row)
    scored = {key: seeds_interval([torch.tensor(row["scores"]) for row in group]) for key, group in groups.items()}
    for source, learner in sorted(groups, key=lambda key: (key[0], -scored[key].mean)):
        group, score = groups[source, learner], scored[source, learner]
        middle = sorted(group, key=lambda row: row["adapt milliseconds"])[len(group) // 2]
        yield (
            f"{source}, {longest:g} minutes",
            learner,
            f"{100 * score.mean:.1f} ± {100 * score.half_width:.1f}",
            f"{len(group)} x {len(group[0]['scores'])}",
            f"{sum(row['untrained'] for row in group) / len(group):.1f}",
            f"{middle['adapt milliseconds']:.2f}",
            f"{middle['state bytes'] / 1000:.1f}",
            f"{max(row['peak MiB'] for row in group):.0f}",
            " + ".join(str(middle[name]) for name in ("steps of pre-training", "steps") if name in middle),
        )


SECTION = Section(
    RESULTS,
    "Every classifier, equal budget, 5-way 1-shot",
    "python -m benchmarks.classifiers --data FOLDER",
    ("source", "learner", "accuracy %", "seeds x tasks", "untrained %", "adapt ms", "state kB", "peak MiB", "steps"),
    cells,
)


def _name(source: str, key: str, seed: int, minutes: float) -> str:
    return f"{source}, {key}, seed {seed}, {minutes:g} minutes"


if __name__ == "__main__":
    guarded(main)
