"""A thousand adapted tasks: all in one call, over one by one. Prints a JSON line per case.

"learner" is `learner.adapt` and `learner.predict` in a loop, without any check; "model" is `MetaModel.adapt` and
`MetaModel.predict` in a loop, whose `adapt` makes the leave-one-out estimate that `adapt_many` leaves out here.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.tiny import sized
from handful.learners.learner import Learner
from handful.learners.maml import MAML
from handful.learners.prototypical import PrototypicalNetwork
from handful.learners.r2d2 import R2D2
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.models.task_bank import TaskBank
from handful.types import Examples, TaskSpec

ROUNDS = sized(5, 1)


@dataclass(frozen=True)
class Case:
    """Tasks of one learner. shot, queries: per class, or per task of a regression. aims: of adapting and predicting."""

    name: str
    build: Callable[[TaskSpec], Learner]
    spec: TaskSpec
    tasks: int
    shot: int
    queries: int
    threads: int = 1
    aims: tuple[float | None, float | None] = (None, None)


HEADS = TaskSpec("classification", (384,), 5)
CASES = (
    Case(
        "linear head, 5 gradient steps", lambda s: MAML.build(s, backbone="raw"), HEADS, 1000, 5, 1, aims=(30.0, 50.0)
    ),
    Case("ridge head", lambda s: R2D2.build(s, backbone="raw"), HEADS, 1000, 5, 1, aims=(30.0, 50.0)),
    Case("prototypes", lambda s: PrototypicalNetwork.build(s, backbone="raw"), HEADS, 1000, 5, 1, aims=(30.0, 50.0)),
    Case(
        "sine MLP 40-40, 5 gradient steps",
        lambda s: MAML.build(s, backbone="mlp", backbone_options={"hidden": (40, 40)}),
        TaskSpec("regression", (1,), 1),
        1000,
        10,
        10,
        aims=(50.0, 50.0),
    ),
    Case(
        "conv4-64 28x28, 5 gradient steps, 2 threads",
        lambda s: MAML.build(s, backbone="conv4"),
        TaskSpec("classification", (1, 28, 28), 5),
        40,
        1,
        3,
        threads=2,
        aims=(1.3, 1.3),
    ),
)


def measure(case: Case) -> dict[str, Any]:
    """Seconds of each way, median over rounds in turns, and their ratios."""
    torch.set_num_threads(case.threads)
    generator = torch.Generator().manual_seed(0)
    classes = case.spec.outputs if case.spec.classification else 1

    def inputs(count: int) -> torch.Tensor:
        return torch.randn(case.tasks, classes * count, *case.spec.input_shape, generator=generator)

    supports, queries = inputs(case.shot), inputs(case.queries)
    if case.spec.classification:
        targets = torch.arange(classes).repeat(case.tasks, case.shot)
    else:
        targets = torch.randn(case.tasks, case.shot, 1, generator=generator)
    learner = case.build(case.spec).eval()
    model = MetaModel(learner)
    some = list(zip(supports, targets, strict=True))
    few = some[: max(10, case.tasks // 10)]  # the model's way is slow: on some of the tasks, and scaled
    states = [learner.adapt(Examples(*one), case.spec) for one in some]
    singles = [model.adapt(*one) for one in few]
    bank: TaskBank[int] = TaskBank(model)
    for number, task in enumerate(model.adapt_many(some)):
        assert isinstance(task, AdaptedTask)
        bank.put(number, task)

    def adapt_by_learner() -> object:
        return [learner.adapt(Examples(*one), case.spec) for one in some]

    def predict_by_learner() -> object:
        return [learner.predict(state, own) for state, own in zip(states, queries, strict=True)]

    ways: dict[str, tuple[Callable[[], object], float]] = {
        "adapt by learner": (adapt_by_learner, 1.0),
        "adapt by model": (lambda: [model.adapt(*one, estimate=True) for one in few], case.tasks / len(few)),
        "adapt_many": (lambda: model.adapt_many(some), 1.0),
        "predict by learner": (predict_by_learner, 1.0),
        "predict by model": (
            lambda: [model.predict(task, own) for task, own in zip(singles, queries, strict=False)],
            case.tasks / len(few),
        ),
        "predict_many": (lambda: bank.predict(list(enumerate(queries))), 1.0),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with torch.no_grad():
        for turn in range(ROUNDS + 1):
            for name, (run, scale) in ways.items():
                start = time.perf_counter()
                run()
                if turn:  # the first one warms up
                    seconds[name].append((time.perf_counter() - start) * scale)
    medians = {name: statistics.median(times) for name, times in seconds.items()}

    def ratio(slow: str, fast: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))

    return {
        "case": case.name,
        "tasks": case.tasks,
        "milliseconds": {name: 1000 * value for name, value in medians.items()},
        "adapt over learner": ratio("adapt by learner", "adapt_many"),
        "adapt over model": ratio("adapt by model", "adapt_many"),
        "predict over learner": ratio("predict by learner", "predict_many"),
        "predict over model": ratio("predict by model", "predict_many"),
        "aims": case.aims,
    }


def main() -> None:
    """Measure all cases."""
    for case in CASES:
        print(json.dumps(measure(replace(case, tasks=sized(case.tasks, 2)))), flush=True)


if __name__ == "__main__":
    main()
