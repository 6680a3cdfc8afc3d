"""`handful train`."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handful.cli import tables
from handful.cli.interruption import Interruption
from handful.cli.options import (
    DATA,
    DeviceOption,
    MetricOption,
    TasksOption,
    TrustOption,
    assignments,
    source_of,
    takes,
)
from handful.cli.terminal import ProgressBars, err, out, score_text
from handful.errors import UserError
from handful.events import Event, PlanEvent, ignore
from handful.notes import collecting

if TYPE_CHECKING:
    from handful.tasks.distribution import TaskDistribution
    from handful.workflows.experiment import Experiment
from handful.cli.application import FAILED, INTERRUPTED, command, of_learner, of_sizes, of_training


@command("handful train --tasks photos/ --learner protonet --shot 5 -o runs/photos")
@takes(DATA)
def train(
    tasks: TasksOption,
    data: dict[str, Any],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the run.")],
    learner: Annotated[
        str | None,
        typer.Option(
            help="See `handful list`; its own options: `handful list NAME`. By default protonet, or "
            "bayesian-last-layer for numbers."
        ),
    ] = None,
    way: Annotated[int | None, of_sizes(help="Classes of a task.")] = None,
    shot: Annotated[int | None, of_sizes(help="Examples to learn from, per class (with --task: per task).")] = None,
    query_shot: Annotated[int | None, of_sizes(help="Examples to be scored on, likewise.")] = None,
    train_way: Annotated[int | None, of_sizes(help="Classes of a training task, if not --way.")] = None,
    train_query_shot: Annotated[
        int | None, of_sizes(help="Examples that a training task is scored on, if not --query-shot.")
    ] = None,
    backbone: Annotated[str, of_learner(help="conv4, mlp, raw, or your own as package.module:name.")] = "auto",
    normalization: Annotated[str | None, of_learner(help="frozen, support or transductive.")] = None,
    assign: Annotated[
        list[str] | None,
        of_learner(
            "--set",
            metavar="NAME=VALUE",
            help="An option of the learner, of its network (backbone.NAME) or of training (training.NAME).",
        ),
    ] = None,
    steps: Annotated[int | None, of_training(help="Meta-training steps; 1000 without --minutes.")] = None,
    minutes: Annotated[
        float | None, of_training(help="In place of --steps: as many as fit into this time of the clock.")
    ] = None,
    meta_batch_size: Annotated[
        int | None, of_training(help="Tasks per step; by default 4, or 1 where an encoder is tuned.")
    ] = None,
    outer_lr: Annotated[float, of_training(help="Peak learning rate.")] = 1e-3,
    pretrain: Annotated[
        int, of_training(help="Examples to train the network on beforehand, as if there were no tasks.")
    ] = 0,
    warm_start: Annotated[
        str | None, of_training("--from", metavar="RUN", help="Start from the weights of that run's model.")
    ] = None,
    augment: Annotated[
        float,
        of_training(
            help="How much to change training tasks: views of their images, or their targets (against memorization)."
        ),
    ] = 0.0,
    whole_encoder: Annotated[
        bool,
        of_training(
            "--whole-encoder", help="Store the whole encoder with the model, for machines that do not have it."
        ),
    ] = False,
    plan: Annotated[
        str | None,
        of_training(help="How tasks are run, such as loop+threads:2+recompute; by default measured and chosen."),
    ] = None,
    workers: Annotated[
        int | None,
        of_training(help="Processes that share each step; with a given plan, the same bits for any number."),
    ] = None,
    device: DeviceOption = "cpu",
    precision: Annotated[
        str | None,
        of_training(
            help="fp32, or bf16: the network of a step computes in bfloat16 (cuda alone); the default there of an "
            "encoder that is tuned."
        ),
    ] = None,
    tune: Annotated[
        int, of_training(help="Trials, scored on validation tasks, to search for rates and options first.")
    ] = 0,
    metric: MetricOption = None,
    trust: TrustOption = None,
    seed: Annotated[int, of_training(help="Of splits, tasks and starting weights.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run, bit for bit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start over where a run exists.")] = False,
) -> None:
    """Meta-train a learner on your tasks."""
    from handful.engine.devices import device_named
    from handful.evaluation.formatting import duration
    from handful.reports.summary_lines import encoder_line, performance_line
    from handful.storage import is_run
    from handful.training.run import Run
    from handful.training.settings import DEFAULT_STEPS
    from handful.training.workers import place
    from handful.workflows.experiment import Experiment
    from handful.workflows.train import train as run

    start = time.monotonic()
    assigned = assignments(assign)
    length: dict[str, Any] = {"steps": DEFAULT_STEPS} if minutes is None else {"minutes": minutes}
    if steps is not None:
        length["steps"] = steps
    settings = {
        **length,
        "outer_lr": outer_lr,
        "pretrain_examples": pretrain,
        "plan": plan,
        "metric": metric,
        "device": device_named(device).type,  # a run that was started with auto goes on where it was
    }
    given = {"meta_batch_size": meta_batch_size, "precision": precision}
    settings |= {name: value for name, value in given.items() if value is not None}
    for name in assigned["training"].keys() & {*settings, *given, "steps", "minutes", "seed"}:
        option = {"pretrain_examples": "pretrain"}.get(name, name.replace("_", "-"))
        raise UserError(f"The setting {name} has an option of its own: give --{option}, not --set training.{name}=...")
    experiment = Experiment(
        source_of(tasks, data, seed),
        learner=learner,
        options=assigned[""],
        backbone=backbone,
        backbone_options=assigned["backbone"],
        normalization=normalization,
        way=way,
        shot=shot,
        query_shot=query_shot,
        train_way=train_way,
        train_query_shot=train_query_shot,
        warm_start=warm_start,
        augment=augment,
        whole_encoder=whole_encoder,
        settings=settings | assigned["training"],
        seed=seed,
    )

    opened = None
    if tune:
        if place(None)[1] > 1:
            raise UserError("--tune searches in one process: start it without a launcher, then train with --workers.")
        experiment, opened = _tuned(experiment, output, tune, resume, force, trust or ())
        resume, force = resume and is_run(output), False
    if place(workers)[0]:
        _train_silently(experiment, output, workers, resume, trust or ())
        return

    def hear(event: Event) -> None:
        if not isinstance(event, PlanEvent):
            bars.hear(event)
            return
        err.print(
            f"Training {Run(output).config()['learner']} ({event.parameters:,} parameters) on {tasks}: "
            f"{f'{event.way}-way ' if event.way else ''}{event.shot}-shot tasks, {event.per_step} per step."
        )
        if event.inputs:
            err.print(f"Inputs: {event.inputs}.")
        if event.small_tasks:
            err.print(f"Sizes: {event.small_tasks}.")
        if event.plan:
            shared = f" Workers: {event.workers}." if event.workers > 1 else ""
            err.print(f"Plan: {event.plan}.{shared}")
        if event.bytes is not None and (event.seconds is not None or event.bytes > 2**30):
            err.print(f"Memory: about {event.bytes / 2**30:.1f} GiB.")
        if event.seconds is not None:
            err.print(f"Time: about {duration(event.seconds)}, on this machine.")
        if minutes is not None:
            err.print(f"Steps: {event.steps}, as many as fit into {minutes:g} minutes.")

    try:
        with ProgressBars() as bars, Interruption(hear) as interruption:
            model = run(
                experiment,
                output,
                tasks=opened,
                resume=resume,
                force=force,
                workers=workers,
                trust=trust or (),
                on_event=interruption.hear,
                stop=interruption.stop,
            )
    except KeyboardInterrupt:
        if list((output / "checkpoints").glob("*.safetensors")):
            err.print(f"Saved. Continue with the same command and --resume: handful train ... -o {output} --resume")
        raise
    facts, speed = model.facts, performance_line(Run(output).performance())
    left_out = (facts.get(f"validation draws {what}", 0) for what in ("diverged", "undefined"))
    score = score_text(facts["validation score"], facts["metric"], *left_out)
    seconds, whole = Run(output).metrics()[-1]["seconds"], time.monotonic() - start
    out.print(
        f"Trained {facts['trained steps']} steps in {seconds:.0f} s (with reading and validation {whole:.0f} s); kept "
        f"step {facts['kept step']} ({facts['selection']}: {score}).\n"
        f"{encoder_line(facts)}{speed}The model: {output / 'model'}\nNext: handful evaluate {output}"
    )


def _tuned(
    experiment: "Experiment", output: Path, trials: int, resume: bool, force: bool, trust: Sequence[str]
) -> "tuple[Experiment, TaskDistribution]":
    """Search, print the best trials and what mattered; the experiment with the best settings, and its opened source."""
    from handful.workflows.tune import tune

    try:
        with ProgressBars() as bars:
            tuning = tune(experiment, output, trials, resume=resume, force=force, trust=trust, on_event=bars.hear)
    except KeyboardInterrupt:
        err.print("The trials that ended are kept. Continue with the same command and --resume.")
        raise
    best = tuning.best
    out.print(tables.trials(tuning))
    return best, tuning.tasks


def _train_silently(
    experiment: "Experiment", output: Path, workers: int | None, resume: bool, trust: Sequence[str]
) -> None:
    """Train in a process that a launcher started beside the first one, which is the one that prints."""
    from handful.training.workers import PeerError
    from handful.workflows.train import train as run

    warnings.simplefilter("ignore")
    try:
        with collecting(), Interruption(ignore, from_the_start=True) as interruption:
            run(experiment, output, resume=resume, workers=workers, trust=trust, stop=interruption.stop)
    except PeerError:
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
