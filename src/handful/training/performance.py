"""How fast a training was, against what the machine can do."""

import sys
from typing import Any

from torch import nn

from handful.engine.across_tasks import count_of
from handful.engine.cost import operations, operations_per_second
from handful.types import Task, TaskSpec


def performance(
    history: list[dict[str, Any]], learner: nn.Module, tasks: Task, spec: TaskSpec, noise: Any
) -> dict[str, float]:
    """Seconds of a meta-step, tasks per second, bytes of the process at most, and the share of the machine's limit.

    history: rows of a training, whose meta-steps are like that on these tasks. The share is of the most operations that
    large products of matrices reached on all cores. Operations are counted on the plain loop, so that a plan gets no
    credit for what it computes twice. Empty where fewer than two steps were taken.
    """
    steps = [row for row in history if row["step"]]
    if len(steps) < 2:
        return {}
    first, last = steps[0], steps[-1]
    seconds = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    if not seconds:  # finer than the history tells
        return {}
    count = count_of(tasks)
    needed = count * operations(learner, tasks, spec, noise)
    limit = operations_per_second(next(learner.parameters()))
    return {
        "seconds_per_step": seconds,
        "tasks_per_second": count / seconds,
        "peak_bytes": _peak_bytes(),
        "share_of_limit": needed / seconds / limit,
    }


def _peak_bytes() -> int:
    """The largest size that this process had; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
