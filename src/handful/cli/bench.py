"""`handful bench`."""

import math
from dataclasses import asdict
from typing import Annotated, Any

import typer

from handful.cli import tables
from handful.cli.application import command, of_learner
from handful.cli.options import (
    DATA,
    DeviceOption,
    JsonOption,
    TasksOption,
    TrustOption,
    assignments,
    source_of,
    takes,
)
from handful.cli.terminal import out, print_json


@command("handful bench --tasks sine --learner maml --meta-batch-size 16")
@takes(DATA)
def bench(
    tasks: TasksOption,
    data: dict[str, Any],
    learner: Annotated[str | None, typer.Option(help="As in `handful train`.")] = None,
    way: Annotated[int | None, typer.Option(help="Classes of a task.")] = None,
    shot: Annotated[int | None, typer.Option(help="Support examples to learn from.")] = None,
    query_shot: Annotated[int | None, typer.Option(help="Queries to score predictions on.")] = None,
    backbone: Annotated[str, of_learner(help="As in `handful train`.")] = "auto",
    normalization: Annotated[str | None, of_learner(help="frozen, support or transductive.")] = None,
    assign: Annotated[
        list[str] | None,
        of_learner("--set", metavar="NAME=VALUE", help="An option of the learner or backbone.NAME."),
    ] = None,
    meta_batch_size: Annotated[int, typer.Option(help="Tasks per step.")] = 4,
    seconds: Annotated[float, typer.Option(help="How long to measure, about.")] = 20.0,
    compiled: Annotated[bool, typer.Option("--compiled", help="Try compiled plans too: half a minute each.")] = False,
    device: DeviceOption = "cpu",
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time and memory of a training step on your tasks, for each way to run it."""
    from handful.workflows.bench import bench as measure
    from handful.workflows.experiment import Experiment

    assigned = assignments(assign)
    experiment = Experiment(
        source_of(tasks, data),
        learner=learner,
        options=assigned[""],
        backbone=backbone,
        backbone_options=assigned["backbone"],
        normalization=normalization,
        way=way,
        shot=shot,
        query_shot=query_shot,
    )
    result = measure(
        experiment,
        meta_batch_size=meta_batch_size,
        seconds=seconds,
        compiled=compiled,
        device=device,
        trust=trust or (),
    )
    if as_json:
        print_json(asdict(result) | {"fastest": result.fastest.written(), "limit": result.limit._asdict()})
        return
    out.print(tables.plans(result, meta_batch_size))
    needed = "" if result.operations is None else f"; a step needs {result.operations / 1e9:.3g} GFLOP"
    out.print(
        f"\nThe fastest: --plan {result.fastest.written()}. MiB: how far the process grew. The limit: "
        f"{result.limit.products / 1e9:.0f} GFLOP/s on large matrix products, {result.limit.convolutions / 1e9:.0f} on "
        f"convolutions{needed}."
    )
    if result.needed is not None:
        out.print(
            f"Steps take too long here for all of it in {seconds:g} s: --seconds {math.ceil(result.needed)} would do."
        )
