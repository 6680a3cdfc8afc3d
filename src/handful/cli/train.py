"""`handful train`."""

import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
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
from handful.errors import UserError, count_of
from handful.events import Event, PlanEvent, ignore
from handful.notes import collecting

if TYPE_CHECKING:
    from handful.models.meta_model import MetaModel
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
            help="A learner of `handful list`; default: auto, which tries all that fit the data and keeps the best."
        ),
    ] = None,
    way: Annotated[int | None, of_sizes(help="Classes of a task.")] = None,
    shot: Annotated[
        int | None, of_sizes(help="Support examples to learn from, per class (with --task: per task).")
    ] = None,
    query_shot: Annotated[int | None, of_sizes(help="Queries per class (or task) to score predictions on.")] = None,
    train_way: Annotated[int | None, of_sizes(help="Classes of a training task; default: --way.")] = None,
    train_query_shot: Annotated[int | None, of_sizes(help="Queries of a training task; default: --query-shot.")] = None,
    backbone: Annotated[str, of_learner(help="Network: conv4, mlp, raw, or your own as package.module:name.")] = "auto",
    normalization: Annotated[
        str | None, of_learner(help="Batch normalization: frozen, support or transductive.")
    ] = None,
    assign: Annotated[
        list[str] | None,
        of_learner(
            "--set",
            metavar="NAME=VALUE",
            help=(
                "Set an option of the learner, of its network (backbone.NAME) or of training (training.NAME); see "
                "`handful list NAME`."
            ),
        ),
    ] = None,
    steps: Annotated[
        int | None,
        of_training(help="Meta-training steps with --learner; default: 1000, or as many as fit into --minutes."),
    ] = None,
    minutes: Annotated[
        float | None,
        of_training(help="Time limit: for all that auto tries (default: 10), or for one learner, in place of --steps."),
    ] = None,
    budget_from: Annotated[
        Path | None,
        of_training(
            "--budget-from",
            metavar="RUN",
            help="Reproduce the race of that run bit for bit, by its recorded times (auto only).",
        ),
    ] = None,
    adapt_seconds: Annotated[
        float | None,
        of_training(
            help="The longest that adapting to a task may take, in seconds: fine-tuning the network in each task is "
            "then tried too (auto on images only)."
        ),
    ] = None,
    meta_batch_size: Annotated[
        int | None, of_training(help="Tasks per step; default: 4, or 1 when an encoder is tuned.")
    ] = None,
    outer_lr: Annotated[float | None, of_training(help="Peak learning rate; default: 0.001.")] = None,
    pretrain: Annotated[
        int | None,
        of_training(help="Number of examples to pre-train the network on, as ordinary classification or regression."),
    ] = None,
    warm_start: Annotated[
        str | None, of_training("--from", metavar="RUN", help="Start from the weights of this run's model.")
    ] = None,
    augment: Annotated[
        float | None,
        of_training(
            help="Strength of task augmentation: transformed images, or shifted targets, against memorization."
        ),
    ] = None,
    whole_encoder: Annotated[
        bool,
        of_training("--whole-encoder", help="Store the encoder in the model, for machines that lack it."),
    ] = False,
    plan: Annotated[
        str | None,
        of_training(
            help="How to run the tasks of a step, such as loop+threads:2+recompute, see `handful bench`; "
            "default: the fastest."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        of_training(help="Processes that share each step. Results do not depend on their number if --plan is set."),
    ] = None,
    device: DeviceOption = "cpu",
    precision: Annotated[
        str | None,
        of_training(help="fp32, or bf16 (cuda only); default: fp32, or bf16 when an encoder is tuned on cuda."),
    ] = None,
    tune: Annotated[
        int | None,
        of_training(help="First search learning rates and options with so many trials, scored on validation tasks."),
    ] = None,
    metric: MetricOption = None,
    trust: TrustOption = None,
    seed: Annotated[int, of_training(help="Seed of splits, tasks and initial weights.")] = 0,
    split_seed: Annotated[
        int | None,
        of_training(help="Seed of splits and tasks alone, equal for runs that differ in --seed; default: --seed."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run, bit for bit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run.")] = False,
) -> None:
    """Meta-train on your tasks: one learner, or the best of all within the time."""
    from handful.engine.devices import device_named
    from handful.storage import is_run
    from handful.training.run import Run
    from handful.training.settings import DEFAULT_STEPS
    from handful.training.workers import place
    from handful.workflows.experiment import Experiment
    from handful.workflows.train import train as run

    start = time.monotonic()
    recipe = {
        "--set": assign,
        "--steps": steps,
        "--tune": tune,
        "--pretrain": pretrain,
        "--outer-lr": outer_lr,
        "--meta-batch-size": meta_batch_size,
        "--train-way": train_way,
        "--train-query-shot": train_query_shot,
        "--normalization": normalization,
        "--augment": augment,
        "--plan": plan,
        "--from": warm_start,
    }
    racing = learner in (None, AUTO)
    _check_recipe(recipe, racing, {"--budget-from": budget_from, "--adapt-seconds": adapt_seconds})
    assigned = assignments(assign)
    length: dict[str, Any] = {} if racing or minutes is not None else {"steps": DEFAULT_STEPS}
    length |= {name: value for name, value in (("minutes", minutes), ("steps", steps)) if value is not None}
    settings = {
        **length,
        "outer_lr": 1e-3 if outer_lr is None else outer_lr,
        "pretrain_examples": pretrain or 0,
        "plan": plan,
        "metric": metric,
        "device": device_named(device).type,  # a run that was started with auto goes on where it was
    }
    given = {"meta_batch_size": meta_batch_size, "precision": precision}
    settings |= {name: value for name, value in given.items() if value is not None}
    for name in assigned["training"].keys() & {*settings, *given, "steps", "minutes", "seed"}:
        option = {"pretrain_examples": "pretrain"}.get(name, name.replace("_", "-"))
        raise UserError(f"The setting {name} has its own option: use --{option}, not --set training.{name}=...")
    experiment = Experiment(
        source_of(tasks, data, seed if split_seed is None else split_seed),
        learner=None if racing else learner,
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
        augment=augment or 0.0,
        whole_encoder=whole_encoder,
        adapt_seconds=adapt_seconds,
        settings=settings | assigned["training"],
        seed=seed,
    )

    opened = None
    if tune:
        if place(None)[1] > 1:
            raise UserError("--tune runs in one process: start it without a launcher, then train with --workers.")
        experiment, opened = _tuned(experiment, output, tune, resume, force, trust or ())
        resume, force = resume and is_run(output), False
    if racing:
        _race(
            experiment,
            output,
            start,
            budget_from=budget_from,
            workers=workers,
            resume=resume,
            force=force,
            trust=trust or (),
        )
        return
    if place(workers)[0]:
        _train_silently(experiment, output, workers, resume, trust or ())
        return

    def described(event: PlanEvent) -> None:
        _describe(event, Run(output).config()["learner"], tasks, minutes)

    work = partial(
        run, experiment, output, tasks=opened, resume=resume, force=force, workers=workers, trust=trust or ()
    )
    _say_what_came_of_it(_watched(work, described, output), output, start)


AUTO = "auto"
"""The name that stands for the race of all learners."""


def _check_recipe(recipe: dict[str, Any], racing: bool, of_race: dict[str, Any]) -> None:
    """Raise `UserError` for options that auto chooses itself, and for options of the race beside a learner."""
    given = [option for option, value in recipe.items() if value not in (None, [])]
    if racing and given:
        raise UserError(
            f"{given[0]} applies to one learner, but without --learner many are tried. Name one with --learner, or "
            f"remove the option."
        )
    of_race = {option: value for option, value in of_race.items() if value is not None}
    if not racing and of_race:
        option = next(iter(of_race))
        other = ", or use --plan and --steps" if option == "--budget-from" else ""
        raise UserError(f"{option} applies to the race of learners: remove --learner{other}.")


def _race(
    experiment: "Experiment",
    output: Path,
    start: float,
    *,
    budget_from: Path | None,
    workers: int | None,
    resume: bool,
    force: bool,
    trust: Sequence[str],
) -> None:
    """Run the race of learners within the time, and print its winner and the candidates."""
    from handful.training.run import Run
    from handful.workflows.auto import auto

    def described(event: PlanEvent) -> None:
        _describe(event, "the encoder", experiment.source.tasks, None)  # nothing else in a race is planned aloud

    work = partial(
        auto,
        experiment,
        output,
        budget_from=budget_from,
        workers=workers,
        resume=resume,
        force=force,
        trust=trust,
    )
    model = _watched(work, described, output)
    if (race := Run(output).race()) is not None:
        out.print(tables.race(race))
    _say_what_came_of_it(model, output, start)


def _watched(work: "Callable[..., MetaModel]", describe: Callable[[PlanEvent], None], output: Path) -> "MetaModel":
    """Train with progress bars; after an interruption, print how to continue.

    work: takes `on_event` and `stop`. describe: prints what is trained, once the plan is chosen.
    """

    def hear(event: Event) -> None:
        if isinstance(event, PlanEvent):
            describe(event)
        else:
            bars.hear(event)

    try:
        with ProgressBars() as bars, Interruption(hear) as interruption:
            return work(on_event=interruption.hear, stop=interruption.stop)
    except KeyboardInterrupt:
        if list((output / "checkpoints").rglob("*.safetensors")):
            err.print(f"Saved. Continue with the same command and --resume: handful train ... -o {output} --resume")
        raise


def _describe(event: PlanEvent, learner: str, tasks: str, minutes: float | None) -> None:
    """Print what is trained, on which tasks, and how."""
    from handful.evaluation.formatting import duration

    err.print(
        f"Training {learner} ({event.parameters:,} parameters) on {tasks}: "
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
        err.print(f"Steps: {event.steps}, as many as fit into {count_of(minutes, 'minute')}.")


def _say_what_came_of_it(model: "MetaModel", output: Path, start: float) -> None:
    """Print what was trained, how it was selected, and where it is saved."""
    from handful.reports.summary_lines import encoder_line, performance_line
    from handful.training.run import Run

    facts, speed = model.facts, performance_line(Run(output).performance())
    left_out = (facts.get(f"validation draws {what}", 0) for what in ("diverged", "undefined"))
    score = score_text(facts["validation score"], facts["metric"], *left_out)
    seconds, whole = Run(output).metrics()[-1]["seconds"], time.monotonic() - start
    if facts["trained steps"]:
        what = (
            f"Trained {count_of(facts['trained steps'], 'step')} in {seconds:.0f} s (with loading and validation "
            f"{whole:.0f} s); kept step {facts['kept step']}"
        )
    else:
        seen = f"pre-trained on {facts['examples']:,} examples" if facts.get("examples") else "which takes no steps"
        seen = f"the average of {facts['members']}" if "members" in facts else seen
        what = f"Kept {model.learner.key}, {seen}, after {whole:.0f} s"
    out.print(
        f"{what} ({facts['selection']}: {score}).\n"
        f"{encoder_line(facts)}{speed}The model: {output / 'model'}\nNext: handful evaluate {output}"
    )


def _tuned(
    experiment: "Experiment", output: Path, trials: int, resume: bool, force: bool, trust: Sequence[str]
) -> "tuple[Experiment, TaskDistribution]":
    """Search, and print the best trials and the importance of settings. Returns the experiment with the best ones and
    its opened source."""
    from handful.workflows.tune import tune

    try:
        with ProgressBars() as bars:
            tuning = tune(experiment, output, trials, resume=resume, force=force, trust=trust, on_event=bars.hear)
    except KeyboardInterrupt:
        err.print("The finished trials are saved. Continue with the same command and --resume.")
        raise
    best = tuning.best
    out.print(tables.trials(tuning))
    return best, tuning.tasks


def _train_silently(
    experiment: "Experiment", output: Path, workers: int | None, resume: bool, trust: Sequence[str]
) -> None:
    """Train in a process of a launcher other than the first one, which alone prints."""
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
