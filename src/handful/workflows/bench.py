"""Measuring a learner on tasks: time and memory of each way to run a meta-step."""

from dataclasses import dataclass, replace
from typing import Any

from handful.engine.cost import Operations, memory_limit, operations, operations_per_second, peak_bytes
from handful.engine.devices import device_named
from handful.engine.meta_gradient import MetaGradient
from handful.engine.plan import MEMORIES, Plan
from handful.engine.planner import PlanTrial, back_ends, choose, footprint, measure
from handful.engine.threads import cores
from handful.errors import UserError
from handful.training.loop import Training, checked
from handful.workflows.experiment import Experiment


@dataclass(frozen=True)
class Bench:
    """What was measured. rows: one for each plan. fastest: of them. operations: of a meta-step, in floating-point
    operations (None: they could not be counted within the memory); limit: the most that the machine did in a second.
    """

    rows: list[dict[str, Any]]
    fastest: Plan
    operations: float | None
    limit: Operations


def bench(
    experiment: Experiment,
    *,
    meta_batch_size: int = 4,
    seconds: float = 20.0,
    compiled: bool = False,
    device: str = "cpu",
) -> Bench:
    """Time and memory of a meta-step of this experiment under each back-end and memory mode.

    Memory modes that make no difference to this learner are left out. compiled: whether to try compiled plans too, of
    which each takes half a minute to compile. device: one of `handful.engine.devices.DEVICES`; the growth of the
    process is measured on the CPU alone. Raises `UserError` where data, learner, options or sizes do not fit.
    """
    distribution = experiment.source.open()
    learner = experiment.build(distribution).to(device_named(device)).train()
    tasks = experiment.training_tasks(distribution.split("train"))
    settings = checked(learner, tasks, tasks, {"meta_batch_size": meta_batch_size})
    training = Training(learner, tasks, tasks, settings)
    if not training.parameters:
        raise UserError(f"The learner {learner.key!r} is not meta-trained: it has no meta-step to measure.")
    batch, spec, noise = training.draw(range(meta_batch_size))
    some = training.parameters[0].detach()
    most = memory_limit(some.device)
    counted, limit = operations(learner, batch, spec, noise, limit=most), operations_per_second(some)
    sizes = {mode: footprint(learner, batch, spec, noise, mode, most) for mode in MEMORIES}
    modes = [mode for mode in MEMORIES if mode == "whole" or sizes[mode] != sizes["whole"]]
    threads = cores() if learner.device.type == "cpu" else 1
    plans = [replace(plan, memory=mode) for plan in back_ends(meta_batch_size, threads) for mode in modes]
    if compiled:
        plans += [Plan("vmap", compiled=True), Plan("loop", compiled=True)]
    trials = measure(learner, batch, spec, noise=noise, plans=plans, seconds=seconds)

    def row(trial: PlanTrial) -> dict[str, Any]:
        gradient = MetaGradient(learner, trial.plan)
        ran = bool(trial.times)
        in_process = learner.device.type == "cpu" and not trial.plan.compiled
        grown = peak_bytes(lambda: gradient(batch, spec, noise)) if ran and in_process else None
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

    return Bench([row(trial) for trial in trials], choose(trials), counted and meta_batch_size * counted.total, limit)
