"""Memorization, seen and cured: `python -m benchmarks.memorization` (some minutes on one core).

Each training task bears a code in its inputs, such as a customer's number. A network of enough weights then knows the
training tasks by their codes and ignores the support (*Meta-Learning without Memorization*, Yin et al., 2020,
https://arxiv.org/abs/1912.03820); codes of new tasks tell it nothing. Does the doctor see it, and does `--augment`
cure it, or that paper's `meta_regularization`? Prints a table and writes `benchmarks/results/memorization.json`.
"""

import argparse
import math
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Generator

from benchmarks.child import end_with
from benchmarks.evidence import Cells, Section, guarded, record_all
from handful import LEARNERS, evaluate, meta_train
from handful.doctor.diagnosis import diagnose
from handful.evaluation.intervals import seeds_interval
from handful.learners.learner import Learner
from handful.streams import seeded
from handful.tasks.augmentation import augmented
from handful.tasks.distribution import SizeRanges, Sizes, TaskDistribution
from handful.types import Examples, Task, TaskSpec

RESULTS = "memorization"
FIRST_SEED = 1
"""The settings were found on seed 0."""
CODE = 8
"""Numbers of a code."""


class CodedWaves(TaskDistribution):
    """Waves of one shape; each task has a height, a level and, in its inputs, a code that says nothing of them.

    y = height * sin(x) + level + noise of 0.05, height from -1.5 to 1.5, level from -1 to 1. Training has 15 such
    tasks, drawn again and again; validation and test never repeat one.
    """

    default_sizes = SizeRanges(shot=8, query_shot=20)
    trained = 15

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """The place on the wave and the code in, one number out."""
        return TaskSpec("regression", (1 + CODE,), 1, "shared")

    @property
    def units(self) -> int | None:
        """The number of training tasks."""
        return self.trained if self.split_name == "train" else None

    def unit(self, index: int) -> int:
        """Which of the training tasks a draw is of."""
        return int(torch.randint(self.trained, (), generator=self.generator_of(index))) if self.units else index

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw a task of the split, then points of its wave."""
        number = int(torch.randint(self.trained, (), generator=generator))
        facts = seeded(self.seed, 11, number) if self.units else generator
        height, level = 3 * torch.rand((), generator=facts) - 1.5, 2 * torch.rand((), generator=facts) - 1
        code = 2 * torch.rand(CODE, generator=facts) - 1
        count = sizes.shot + sizes.query_shot
        places = 10 * torch.rand(count, 1, generator=generator) - 5
        targets = height * places.sin() + level + 0.05 * torch.randn(count, 1, generator=generator)
        inputs = torch.cat([places, code.expand(count, CODE)], dim=-1)
        return Task(
            Examples(inputs[: sizes.shot], targets[: sizes.shot]), Examples(inputs[sizes.shot :], targets[sizes.shot :])
        )


class Way(NamedTuple):
    """What is done against memorization."""

    augment: float = 0.0
    meta_regularization: float = 0.0


def trained(tasks: TaskDistribution, learner: str, seed: int, steps: int, **options: Any) -> Learner:
    """A learner after the last step on these tasks: choosing the best of many validations would hide memorization."""
    built = LEARNERS[learner].build(tasks.spec, backbone="mlp", inner_lr=0.03, inner_steps=5, seed=seed, **options)
    settings = {"meta_batch_size": 16, "outer_lr": 3e-3, "clip": 1.0, "plan": "vmap", "seed": seed}
    meta_train(built, tasks, steps=steps, validate_every=steps, validation_tasks=50, **settings)
    return built


def measured(learner: Learner, tasks: CodedWaves, count: int) -> dict[str, Any]:
    """Errors on training and new tasks, and what the doctor says."""
    checks = ("memorization", "adaptation", "gap")
    found = {finding.check: finding.status for finding in diagnose(tasks, learner) if finding.check in checks}
    errors = {on: evaluate(learner, tasks.split(on), tasks=count).scores for on in ("train", "test")}
    return {"doctor": found, **errors}


def run(job: tuple[int, Way, str, int, int]) -> dict[str, Any]:
    """Train with one seed in one way, in a process of its own, and measure."""
    seed, way, learner, steps, count = job
    torch.set_num_threads(1)
    tasks = CodedWaves(seed=seed)
    training = augmented(tasks, way.augment) if way.augment else tasks
    options = {"meta_regularization": way.meta_regularization} if way.meta_regularization else {}
    return measured(trained(training, learner, seed, steps, **options), tasks, count)


def gain(plain: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, Any]:
    """By what the error of a new task is divided. Of logarithms: a few tasks on which the inner loop goes astray would
    make the mean."""
    times = [torch.log(one["test"] / two["test"]) for one, two in zip(plain, other, strict=True)]
    ratio = seeds_interval(times, same_tasks=False)
    return {
        "typical (geometric mean, paired by task)": math.exp(ratio.mean),
        "95 % interval over seeds and tasks": [math.exp(ratio.low), math.exp(ratio.high)],
    }


def main() -> None:
    """Train as tasks are, augmented and regularized, print what came of it and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learner", default="anil", choices=("anil", "maml"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--strength", type=float, default=3.0)
    parser.add_argument("--regularization", type=float, default=1e-4)
    arguments = parser.parse_args()
    ways = {"as they are": Way(), f"--augment {arguments.strength:g}": Way(augment=arguments.strength)}
    if arguments.learner == "anil":  # the others have no weights that do not adapt
        regularized = f"--set meta_regularization={arguments.regularization:g}"
        ways[regularized] = Way(meta_regularization=arguments.regularization)
    jobs = [
        (seed, way, arguments.learner, arguments.steps, arguments.tasks)
        for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds)
        for way in ways.values()
    ]
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    spawn, ending = multiprocessing.get_context("spawn"), {"initializer": end_with, "initargs": (os.getpid(),)}
    with ProcessPoolExecutor(arguments.processes, mp_context=spawn, **ending) as processes:
        for (seed, done, *_), result in zip(jobs, processes.map(run, jobs), strict=True):
            way = next(way for way, of_way in ways.items() if of_way == done)
            results[way].append(result)
            errors = ", ".join(f"{on} {float(result[on].mean()):.4f}" for on in ("train", "test"))
            print(f"seed {seed}, {way}: squared error {errors}; doctor {result['doctor']}", flush=True)
    plain, *cures = ways
    gains = {way: gain(results[plain], results[way]) for way in cures}
    summary = {
        "settings": vars(arguments),
        "squared error": {
            way: {on: [float(result[on].mean()) for result in of_way] for on in ("train", "test")}
            for way, of_way in results.items()
        },
        "median squared error on new tasks": {
            way: [float(result["test"].median()) for result in of_way] for way, of_way in results.items()
        },
        "doctor": {way: [result["doctor"] for result in of_way] for way, of_way in results.items()},
        "error of a new task is lower by a factor of": gains,
    }
    record_all(RESULTS, summary)
    Console().print(SECTION.table())


def cells(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each way to train."""
    for way, errors in rows["squared error"].items():
        by_seed = (" / ".join(f"{error:.3f}" for error in errors[on]) for on in ("train", "test"))
        gain = rows["error of a new task is lower by a factor of"].get(way)
        factor = ""
        if gain is not None:
            typical, (low, high) = gain.values()
            factor = f"{typical:.3g} ({low:.3g} to {high:.3g})"
        yield way, *by_seed, factor, " / ".join(found["memorization"] for found in rows["doctor"][way])


SECTION = Section(
    RESULTS,
    "Memorization",
    "python -m benchmarks.memorization",
    (
        "training tasks",
        "squared error on training tasks, by seed",
        "on new tasks, by seed",
        "divided by (geometric mean over tasks; interval over seeds and tasks)",
        "doctor on memorization, by seed",
    ),
    cells,
)


if __name__ == "__main__":
    guarded(main)
