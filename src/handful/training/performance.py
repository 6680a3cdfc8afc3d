"""The speed of a training, relative to the machine's measured peak."""

import sys
from typing import Any

from handful import streams
from handful.engine.cost import give_back_memory, operations, operations_per_second, training_limit
from handful.learners.learner import Learner
from handful.tasks.distribution import TaskDistribution
from handful.types import stack, take, to_device


def performance(
    history: list[dict[str, Any]],
    learner: Learner,
    distribution: TaskDistribution,
    meta_batch_size: int,
    *,
    predicted_bytes: int | None = None,
) -> dict[str, float]:
    """Seconds per meta-step, tasks per second, peak bytes of the process, and the share of the machine's peak.

    predicted_bytes: of the process at most, as planned.
    history: rows of a training on this distribution. The share is of the most operations that large products of
    matrices and convolutions reached on all cores, see `Operations.share_of_limit`. Operations are counted on the plain
    loop, so that a plan gets no credit for what it computes twice; no share is given if that does not fit into memory.
    Empty for fewer than two steps.
    """
    steps = [row for row in history if row["step"]]
    if len(steps) < 2:
        return {}
    first, last = steps[0], steps[-1]
    seconds = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    if not seconds:  # finer than the history tells
        return {}
    some = next(learner.parameters())
    found = {"seconds_per_step": seconds, "tasks_per_second": meta_batch_size / seconds, "peak_bytes": _peak_bytes()}
    if predicted_bytes is not None:
        found["predicted_bytes"] = predicted_bytes
    tasks, spec = distribution.batch(range(1)), distribution.spec_of(0)
    drawn = learner.draw_noise(take(tasks, 0), spec, streams.probe())
    noise = None if drawn is None else stack([drawn])
    tasks, noise = to_device((tasks, noise), some.device)
    give_back_memory()  # that of the training, before a graph is kept again
    with streams.network_draws("performance", 0, 0):
        needed = operations(learner, tasks, spec, noise, limit=training_limit(some.device))
    if needed is None:
        return found
    share = needed.share_of_limit(operations_per_second(some), seconds / meta_batch_size)
    return found | {"share_of_limit": share}


def _peak_bytes() -> int:
    """The largest size that this process had; 0 if the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
