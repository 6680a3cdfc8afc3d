"""Choosing a plan: by measuring the learner on its own tasks, on this machine."""

import functools
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from handful.engine.cost import graph_bytes, memory_limit, training_limit
from handful.engine.meta_gradient import MetaGradient
from handful.engine.over_tasks import count_of
from handful.engine.plan import MEMORIES, Plan
from handful.engine.threads import cores
from handful.errors import HandfulError
from handful.functional.inner_loop import MemoryMode
from handful.functional.stateless import own_copy
from handful.types import Task, TaskSpec, take, to_device

UNDER_VMAP = 2
"""How many times more memory a task's graph needs under `vmap`: no native normalization, and copies of what is
broadcast."""
BESIDE_GRAPHS = 1.5
"""By how many bytes a process grows for each byte of graphs: for internal memory of operations, and free memory that is
not returned. Measured on convolutions of photos."""
IN_DOUBLE = 2
"""How many times more a graph takes in double precision."""
AS_FAST = 1.05
"""Among plans within this factor of the fastest one's time, which is noise, the first in the list is chosen."""
FAR_BEHIND = 2.0
"""Plans slower than this factor of the fastest one's time are tried once."""
SECONDS = 1.5
"""How long plans are tried, in all."""
MEASURE_AFTER = 15.0
"""Seconds of meta-training from which trying plans pays."""
COMPARED = 2
"""Tasks on which `vmap` is compared with the loop."""
ROUNDING_TOLERANCE = 1e-6
"""Relative difference of meta-gradients in double precision that counts as rounding."""
IN_COMPARISON = 8
"""About how many of one task's meta-gradients it takes: two ways, two tasks, double precision."""
NO_TIME = "not tried: no time is left"
NO_DIFFERENCE = "not tried: this learner has no inner steps to recompute"
COMPILE_AFTER = 120.0
"""Seconds of meta-training from which compiling, which takes about half a minute, is tried."""


@dataclass
class PlanTrial:
    """A plan that was tried on a meta-batch.

    bytes: predicted for its graphs (None: unknown).
    times: seconds of each meta-step; the first warms up.
    note: why it did not run.
    """

    plan: Plan
    bytes: int | None
    times: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def seconds(self) -> float:
        """The median time of a meta-step; infinite if it did not run."""
        return statistics.median(self.times[1:] or self.times) if self.times else math.inf


def rule(learner: nn.Module, count: int) -> Plan:
    """A plan for so many tasks without measuring: one by one for convolutions, else all at once.

    On a CPU, `vmap` over per-task convolution weights is slower and far fatter than a loop, and even shared ones
    lose their native batch norm under it; networks of matrices are many times faster all at once.
    """
    if one_by_one(learner):
        return Plan("loop")
    if not _convolutional(learner):
        return Plan("vmap")
    threads = min(cores(), count) if next(learner.parameters()).device.type == "cpu" else 1
    return Plan("loop", threads=threads if threads > 1 else 0)


def planned(
    learner: nn.Module,
    tasks: Task,
    spec: TaskSpec,
    *,
    noise: Any = None,
    steps: int | None,
    seconds: float = 0.0,
    compilable: bool = True,
    say: Callable[[str], None] | None = None,
) -> tuple[Plan, list[PlanTrial], int | None]:
    """The plan for meta-steps like this one, what was measured, and by how many bytes the process will grow.

    steps: their number; None: as many as `seconds` allow. On a CPU they keep to `training_limit`; the bytes are None if
        they cannot be counted.
    compilable: whether all of them are of these sizes, since each other size would be compiled anew.

    Nothing is measured if the training takes no time, or if a single task takes as long as the measurement may.
    """
    problem = _Problem(learner, tasks, spec, noise, training_limit(next(learner.parameters()).device))
    trials: list[PlanTrial] = []
    if steps is None:
        steps = int(seconds / (problem.count * problem.of_task))
    if one_by_one(learner) or problem.of_task > SECONDS or steps * problem.count * problem.of_task < MEASURE_AFTER:
        plan = rule(learner, problem.count)
        if plan.backend != "loop" and (problem.of_task > SECONDS or problem.batched is not True):
            plan = Plan("loop")
        plan = problem.fitting(plan)
    else:
        steps = steps if compilable else 0
        trials = measure(learner, tasks, spec, noise=noise, steps=steps, limit=problem.limit, say=say)
        plan = choose(trials)
    graphs = problem.predicted(plan)
    return plan, trials, None if graphs is None else int(BESIDE_GRAPHS * graphs)


def shortage(learner: nn.Module, tasks: Task, spec: TaskSpec, *, noise: Any = None) -> str | None:
    """Why no plan keeps to `training_limit` on tasks like the first of these, in words; None where one does, or where
    that cannot be counted."""
    limit = training_limit(next(learner.parameters()).device)
    sizes = []
    for memory in MEMORIES:
        sizes.append(footprint(learner, tasks, spec, noise, memory, limit))
        if (sizes[-1] or 0) <= limit:
            return None
    needed = min(filter(None, sizes)) / 2**20
    return f"a step on one task takes {needed:,.0f} MiB or more, and it may take {limit / 2**20:,.0f}"


def choose(trials: Sequence[PlanTrial]) -> Plan:
    """The fastest plan, or one tried before it that is as fast: the same choice, whatever the noise."""
    fastest = min(trial.seconds for trial in trials)
    return next(trial.plan for trial in trials if trial.seconds <= AS_FAST * fastest)


def measure(
    learner: nn.Module,
    tasks: Task,
    spec: TaskSpec,
    *,
    noise: Any = None,
    plans: Sequence[Plan] | None = None,
    seconds: float = SECONDS,
    within: float = math.inf,
    limit: int | None = None,
    steps: int = 0,
    say: Callable[[str], None] | None = None,
) -> list[PlanTrial]:
    """Try plans on stacked tasks, for about `seconds` once each had its turn; the likeliest is the first.

    plans: by default the back-ends, each with the fastest memory mode that keeps the predicted memory under `limit`
        (bytes; by default half of what is free).
    within: seconds after which nothing begins, nor earlier if it would end later; but the first plan has its turn, and
        so do compiled plans, which must be requested.
    steps: meta-steps to come: if they take long in total, a compiled plan is tried too, which `say` reports.

    Raises the errors of the plain loop.

    Plans are tried in turn, so that a machine that is busy for a moment is so for all of them; those far behind have
    one turn. Meta-steps that take long are measured on some of the tasks.
    """
    last = time.perf_counter() + within
    problem = _Problem(learner, tasks, spec, noise, limit)
    count, limit = problem.count, problem.limit
    # All threads have work at least, and each plan its turn.
    some = min(count, max(2 * torch.get_num_threads(), int(seconds / problem.of_task / 8)))
    batch = take((tasks, noise), slice(0, some))
    runs: list[tuple[PlanTrial, MetaGradient]] = []

    def run(trial: PlanTrial, gradient: MetaGradient) -> None:
        start = time.perf_counter()
        losses, _ = gradient(batch[0], spec, batch[1])
        losses.sum().item()  # waits for a GPU
        trial.times.append((time.perf_counter() - start) * count / some)

    def in_time(meta_gradients: float) -> bool:
        return time.perf_counter() + meta_gradients * problem.of_task <= last

    def admit(plan: Plan) -> PlanTrial:
        comparison = 0 if plan.backend == "loop" or "batched" in vars(problem) else IN_COMPARISON
        if runs and not plan.compiled and not in_time(1 + comparison + some):
            return PlanTrial(plan, None, note=NO_TIME)
        trial = PlanTrial(plan, problem.predicted(plan))
        whole = problem.size("whole")
        counted = whole is not None and whole <= limit  # else it is not known whether another mode takes less
        if plans is not None and plan.memory != "whole" and counted and problem.size(plan.memory) == whole:
            trial.note = NO_DIFFERENCE
            return trial
        if plan.backend != "loop":
            if trial.bytes is not None and trial.bytes > limit:
                trial.note = f"not tried: would take {_of_limit(trial.bytes, limit)}"
                return trial
            if problem.batched is not True:
                trial.note = problem.batched
                return trial
            if plans is None and time.perf_counter() > late:
                trial.note = "not tried: the others took long"
                return trial
        gradient = MetaGradient(learner, plan)
        try:
            run(trial, gradient)
        except (RuntimeError, NotImplementedError) as error:  # no batching rule, out of a GPU's memory
            if isinstance(error, HandfulError) or plan == Plan("loop", threads=plan.threads):
                raise
            trial.note = _reason(error)
        else:
            runs.append((trial, gradient))
        return trial

    late = time.perf_counter() + 2 * seconds
    trials = [admit(plan) for plan in plans or _candidates(problem)]
    end = min(time.perf_counter() + seconds, last)
    for trial, gradient in runs:
        if trial.times[0] < seconds / 4 and in_time(some):  # a short first time says nothing yet
            run(trial, gradient)
    _take_turns(runs, run, end, lambda: in_time(some))
    best = choose(trials)
    worth = steps * min(trial.seconds for trial in trials) > COMPILE_AFTER
    if worth and plans is None and not _convolutional(learner):
        if say:
            say("Compiling the meta-step, once: about half a minute.")
        trials.append(admit(replace(best, compiled=True)))
        if trials[-1].times:
            _take_turns(runs[-1:], run, time.perf_counter() + seconds / 4, lambda: True)
    return trials


class _Problem:
    """Meta-steps of a learner on tasks like these, and their measured properties, which are measured on first use."""

    def __init__(
        self, learner: nn.Module, tasks: Task, spec: TaskSpec, noise: Any = None, limit: int | None = None
    ) -> None:
        self.learner, self.tasks, self.spec, self.noise = learner, tasks, spec, noise
        self.count = count_of(tasks)
        self.device = next(learner.parameters()).device
        self.limit = memory_limit(self.device) if limit is None else limit
        self._sizes: dict[MemoryMode, int | None] = {}

    def size(self, memory: MemoryMode) -> int | None:
        """See `footprint`."""
        if memory not in self._sizes:
            self._sizes[memory] = footprint(self.learner, self.tasks, self.spec, self.noise, memory, self.limit)
        return self._sizes[memory]

    def predicted(self, plan: Plan) -> int | None:
        """Bytes of the graphs of the tasks that this plan runs at once; None if they cannot be counted."""
        size = self.size(plan.memory)
        if size is None:
            return None
        at_once = min(plan.parts(self.count), max(plan.threads, 1)) * plan.size(self.count)
        return size * at_once * (1 if plan.backend == "loop" else UNDER_VMAP)

    def fitting(self, plan: Plan) -> Plan:
        """This plan in the fastest memory mode whose graphs fit into the limit; else a loop on fewer threads.

        A loop that runs one task at a time has all cores for each operation.
        """
        fewer = range(plan.threads - 1, 1, -1) if plan.backend == "loop" else ()
        threads = [plan.threads, *fewer, *([0] if plan.backend == "loop" and plan.threads > 1 else [])]
        for count in threads:
            modes = [replace(plan, memory=memory, threads=count) for memory in MEMORIES]
            for mode in modes:
                if (self.predicted(mode) or 0) <= self.limit:
                    return mode
        return modes[-1]

    @functools.cached_property
    def of_task(self) -> float:
        """Seconds of one task's meta-gradient."""
        batch, drawn = take((self.tasks, self.noise), slice(0, 1))
        gradient = MetaGradient(self.learner, replace(self.fitting(Plan("loop")), threads=1))
        times = []
        for _ in range(2):  # the first one warms up
            start = time.perf_counter()
            gradient(batch, self.spec, drawn)[0].item()
            times.append(time.perf_counter() - start)
            if times[0] > SECONDS:
                break
        return min(times)

    @functools.cached_property
    def batched(self) -> Literal[True] | str:
        """See `batches`; if the comparison does not fit into the limit, `vmap` is not tried."""
        plans = self.fitting(Plan("loop")), self.fitting(Plan("vmap"))
        size = self.size(plans[1].memory)
        if size is not None and (needed := COMPARED * IN_DOUBLE * UNDER_VMAP * size) > self.limit:
            return f"not tried: to compare it with the loop takes {_of_limit(needed, self.limit)}"
        return batches(self.learner, self.tasks, self.spec, self.noise, plans=plans)


def batches(
    learner: nn.Module,
    tasks: Task,
    spec: TaskSpec,
    noise: Any = None,
    *,
    plans: tuple[Plan, Plan] = (Plan("loop"), Plan("vmap")),
) -> Literal[True] | str:
    """Whether `vmap` gives the plain loop's meta-gradient; else why not.

    Operations without a batching rule raise. Some silently have a wrong one, such as those behind
    `handful.functional.normalization`. So two tasks are compared in double precision, which rules out rounding.
    """
    double, some = own_copy(learner), take((tasks, noise), slice(0, COMPARED))
    if next(learner.parameters()).device.type == "mps":  # which has no doubles
        double, some = double.cpu(), to_device(some, "cpu")
    double = double.double()
    batch, drawn = pytree.tree_map_only(Tensor, lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, some)
    try:
        loop, vmap = (MetaGradient(double, plan)(batch, spec, drawn)[1] for plan in plans)
    except (RuntimeError, NotImplementedError) as error:
        if isinstance(error, HandfulError):
            raise
        return _reason(error)
    for name, gradient in loop.items():
        if not gradient.isfinite().all():
            continue  # nothing to compare: the first step of training says that it diverges
        if not torch.allclose(
            vmap[name], gradient, rtol=ROUNDING_TOLERANCE, atol=ROUNDING_TOLERANCE * float(gradient.abs().max())
        ):
            return f"not the loop's meta-gradient (of {name})"
    return True


def footprint(
    learner: nn.Module, tasks: Task, spec: TaskSpec, noise: Any, memory: MemoryMode, limit: int | None = None
) -> int | None:
    """Bytes of one task's graph in a memory mode, or more than `limit`; None if they cannot be counted."""
    batch, drawn = take((tasks, noise), slice(0, 1))
    gradient = MetaGradient(learner, Plan("loop", memory=memory))
    try:
        return graph_bytes(lambda: gradient(batch, spec, drawn), limit)
    except torch.OutOfMemoryError:
        return sys.maxsize
    except RuntimeError as error:
        if isinstance(error, HandfulError):
            raise
        return None


def _candidates(problem: _Problem) -> list[Plan]:
    """Plans worth trying, the most promising first; each in the fastest memory mode that fits."""
    count, threads = problem.count, cores() if problem.device.type == "cpu" else 1
    plans = back_ends(count, threads)
    if not _convolutional(problem.learner):
        plans.sort(key=lambda plan: plan.backend == "loop")
    return [problem.fitting(plan) for plan in plans]


def back_ends(count: int, threads: int) -> list[Plan]:
    """The ways to run so many tasks on so many threads, loops first."""
    plans = [Plan("loop"), Plan("vmap")]
    if threads > 1:
        plans.insert(0, Plan("loop", threads=min(threads, count)))
        plans.insert(2, Plan("vmap", threads=1))  # two cores within tiny operations are slower than one
        plans += [Plan("chunks", -(-count // threads), threads=threads)] if count >= 2 * threads else []
    return plans


def _take_turns(
    runs: list[tuple[PlanTrial, MetaGradient]],
    run: Callable[[PlanTrial, MetaGradient], None],
    end: float,
    in_time: Callable[[], bool],
) -> None:
    """Run again those that are not far behind, until the time is over."""
    while in_time():
        fastest = min(trial.seconds for trial, _ in runs)
        for trial, gradient in runs:
            if trial.seconds <= FAR_BEHIND * fastest and in_time():
                run(trial, gradient)
        if time.perf_counter() > end:
            return


def _of_limit(needed: int, limit: int) -> str:
    return f"{needed / 2**30:.1f} GiB of {limit / 2**30:.1f}"


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def one_by_one(learner: nn.Module) -> bool:
    """Whether its network is so large that a task has all cores, and no other one runs beside it."""
    return any(getattr(module, "one_by_one", False) for module in learner.modules())


def _convolutional(learner: nn.Module) -> bool:
    return any(parameter.ndim >= 4 for parameter in learner.parameters())
