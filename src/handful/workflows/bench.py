"""Measuring a learner on tasks: time and memory of each way to run a meta-step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from handful.engine.cost import Operations, memory_limit, operations, operations_per_second, peak_bytes
from handful.engine.devices import device_named
from handful.engine.meta_gradient import MetaGradient
from handful.engine.plan import MEMORIES, Plan
from handful.engine.planner import IN_COMPARISON, NO_DIFFERENCE, NO_TIME, PlanTrial, back_ends, choose, measure
from handful.engine.threads import cores
from handful.errors import UserError
from handful.training.loop import Training, checked
from handful.workflows.experiment import Experiment

COUNTING = 2
"""The most meta-gradients of one task that are computed to count the operations of one."""


@dataclass(frozen=True)
class Bench:
    """The measurements.

    rows: one for each plan.
    fastest: of them.
    operations: of a meta-step, in floating-point operations; None if they could not be counted in the time or memory.
    limit: the machine's measured peak per second.
    needed: about the seconds needed, if the time was too short; else None.
    """

    rows: list[dict[str, Any]]
    fastest: Plan
    operations: float | None
    limit: Operations
    needed: float | None = None


def bench(
    experiment: Experiment,
    *,
    meta_batch_size: int = 4,
    seconds: float = 20.0,
    compiled: bool = False,
    device: str = "cpu",
    trust: Sequence[str] = (),
) -> Bench:
    """Time and memory of a meta-step of this experiment under each back-end and memory mode.

    Memory modes without effect on this learner are left out.

    seconds: about how long to measure; slow meta-steps leave some plans out.
    compiled: whether to try compiled plans too, each of which takes half a minute to compile.
    device: one of `handful.engine.devices.DEVICES`; the growth of the process is measured on the CPU only.
    trust: see `open_tasks`.

    Raises `UserError` for data, learner, options or sizes that do not fit.
    """
    if not 0 < seconds < math.inf:
        raise UserError(f"The time to measure is a number of seconds above 0, got {seconds}.", hint="Change {seconds}.")
    distribution = experiment.source.open(trust=trust)
    learner = experiment.build(distribution).to(device_named(device)).train()
    tasks = experiment.training_tasks(distribution.split("train"))
    settings = checked(learner, tasks, tasks, {"meta_batch_size": meta_batch_size})
    training = Training(learner, tasks, tasks, settings)
    if not training.parameters:
        raise UserError(f"The learner {learner.key!r} is not meta-trained and has no meta-step to measure.")
    batch, spec, noise = training.draw(range(meta_batch_size))
    some = training.parameters[0].detach()
    most = memory_limit(some.device)
    limit = operations_per_second(some)
    threads = cores() if learner.device.type == "cpu" else 1
    plans = [replace(plan, memory=mode) for mode in MEMORIES for plan in back_ends(meta_batch_size, threads)]
    if compiled:
        plans += [Plan("vmap", compiled=True), Plan("loop", compiled=True)]
    trials = measure(learner, batch, spec, noise=noise, plans=plans, seconds=seconds, within=seconds)
    trials = [trial for trial in trials if trial.note != NO_DIFFERENCE]
    of_task = trials[0].seconds / meta_batch_size
    counting = COUNTING * of_task <= seconds
    counted = operations(learner, batch, spec, noise, limit=most) if counting else None
    again = sum(trial.seconds for trial in trials if trial.times) <= seconds / 2

    def row(trial: PlanTrial) -> dict[str, Any]:
        gradient = MetaGradient(learner, trial.plan)
        ran = bool(trial.times)
        in_process = learner.device.type == "cpu" and not trial.plan.compiled
        grown = peak_bytes(lambda: gradient(batch, spec, noise)) if ran and in_process and again else None
        return {
            "plan": trial.plan.written(),
            "seconds": trial.seconds if ran else None,
            "tasks_per_second": meta_batch_size / trial.seconds if ran else None,
            "peak_bytes": grown,
            "share_of_limit": counted.share_of_limit(limit, trial.seconds / meta_batch_size)
            if ran and counted
            else None,
            "note": trial.note,
        }

    whole = again and counting and all(trial.note != NO_TIME for trial in trials)
    needed = of_task * (IN_COMPARISON + len(trials) * (2 * meta_batch_size + 2))
    return Bench(
        [row(trial) for trial in trials],
        choose(trials),
        counted and meta_batch_size * counted.total,
        limit,
        None if whole else needed,
    )
