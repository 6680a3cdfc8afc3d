"""Times of a device: meta-steps of the workloads W1 to W5, and adapting to and predicting for many tasks.

    python -m benchmarks.devices --device cuda > devices.md

prints a page in Markdown. On CUDA, meta-steps are measured with --precision bf16 too.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils import _pytree as pytree

from benchmarks.engine.rows import ROWS
from benchmarks.engine.with_handful import learner_of
from benchmarks.engine.workloads import PROTONET, SINE, Workload
from benchmarks.tiny import sized
from handful.engine.devices import DEVICES, device_named, wait_for
from handful.engine.meta_gradient import MetaGradient
from handful.engine.over_tasks import over_tasks
from handful.engine.plan import Plan
from handful.engine.precision import PRECISIONS
from handful.errors import UserError
from handful.learners.learner import Learner
from handful.types import Examples, Task, TaskSpec, to_device

ROUNDS = sized(10, 1)
TASKS = sized((1, 100, 10_000), (1, 2))
PLANS = (Plan("vmap"), Plan("loop"))
AT_ONCE = 100
"""Tasks that are adapted or predicted for together."""


def milliseconds(device: torch.device, function: Callable[..., object], *arguments: object) -> float:
    """The median over rounds, after one that warms up."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        function(*arguments)
        wait_for(device)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])


def tasks_of(workload: Workload, device: torch.device) -> tuple[Task, TaskSpec]:
    """The first meta-batch of a workload."""
    arrays = (torch.from_numpy(array) for array in workload.batch(0))
    support, support_targets, query, query_targets = (a.float() if a.is_floating_point() else a for a in arrays)
    kind = "classification" if workload.classification else "regression"
    tasks = Task(Examples(support, support_targets), Examples(query, query_targets))
    return to_device(tasks, device), TaskSpec(kind, workload.input_shape, workload.outputs)


def meta_steps(device: torch.device) -> list[str]:
    """A line for each workload, plan and precision."""
    lines = ["| workload | plan | precision | ms a meta-step |", "|---|---|---|---|"]
    for group, whole in dict.fromkeys((row.group, row.workload) for row in ROWS):
        workload = sized(whole, whole.tiny())
        tasks, spec = tasks_of(workload, device)
        learner = learner_of(workload, spec, "float32").to(device).train()
        for precision in PRECISIONS if device.type == "cuda" else PRECISIONS[:1]:
            for plan in PLANS:
                taken = milliseconds(device, MetaGradient(learner, plan, precision), tasks, spec)
                lines.append(f"| {group} {workload.key} | {plan} | {precision} | {taken:.2f} |")
    return lines


def many_tasks(device: torch.device) -> list[str]:
    """A line for each learner and number of tasks."""
    lines = ["| learner | tasks | ms to adapt | ms to predict |", "|---|---|---|---|"]
    for whole in (SINE.with_steps(5), PROTONET):
        workload = sized(whole, whole.tiny())
        tasks, spec = tasks_of(workload, device)
        learner = learner_of(workload, spec, "float32").to(device)
        for count in TASKS:
            many = pytree.tree_map(lambda leaf, count=count: leaf[:1].expand(count, *leaf.shape[1:]), tasks)
            adapted, predicted = _many(device, learner, many, spec)
            lines.append(f"| {workload.key} | {count} | {adapted:.2f} | {predicted:.2f} |")
    return lines


@torch.no_grad()
def _many(device: torch.device, learner: Learner, tasks: Task, spec: TaskSpec) -> tuple[float, float]:
    """Milliseconds to adapt to all of these tasks, and to predict for their queries."""
    plan = Plan("chunks", AT_ONCE)

    def adapt(support: Examples) -> object:
        return over_tasks(lambda own: learner.adapt(own, spec), (support,), plan, learner)

    def predict(states: object, inputs: torch.Tensor) -> object:
        return over_tasks(learner.predict, (states, inputs), plan, learner)

    states = adapt(tasks.support)
    return milliseconds(device, adapt, tasks.support), milliseconds(device, predict, states, tasks.query.inputs)


def main() -> None:
    """The page, for one device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=DEVICES)
    try:
        device = device_named(parser.parse_args().device)
    except UserError as error:
        raise SystemExit(str(error)) from None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"# Times on {device.type}\n\n{name}, PyTorch {torch.__version__}, {time.strftime('%Y-%m-%d')}.\n")
    print("\n".join([*meta_steps(device), "", *many_tasks(device)]))


if __name__ == "__main__":
    main()
