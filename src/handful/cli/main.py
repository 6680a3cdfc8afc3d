"""The command line. Everything heavy is imported inside the commands, so that `--help` is quick."""

import functools
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.text import Text

from handful import __version__
from handful.cli import tables as tables
from handful.cli.options import (
    COLUMNS,
    DATA,
    JsonOption,
    NoLimitsOption,
    TasksOption,
    TrustOption,
    assignments,
    limits_of,
    source_of,
    takes,
)
from handful.cli.terminal import Progress, err, flowing, is_code, notes, out, print_csv, print_json, score_text
from handful.errors import ArtifactError, DataError, HandfulError, UserError

if TYPE_CHECKING:
    from handful.training.loop import Training
    from handful.workflows.experiment import Experiment

app = typer.Typer(
    name="handful",
    help=(
        "Few-shot learning for people with many related small problems: meta-train once on the tasks that you have, "
        "then adapt to a new one from a handful of examples.\n\nStart with: handful quickstart"
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
FAILED, MISUSED, INTERRUPTED = 1, 2, 130

of_sizes = functools.partial(typer.Option, rich_help_panel="Task sizes")
of_learner = functools.partial(typer.Option, rich_help_panel="Learner")
of_training = functools.partial(typer.Option, rich_help_panel="Training")

Command = TypeVar("Command", bound=Callable[..., None])


def command(example: str, name: str | None = None) -> Callable[[Command], Command]:
    """A command whose help ends with an example, and whose errors are one sentence and an exit code."""

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def guarded(*arguments: Any, **options: Any) -> None:
            try:
                with notes():
                    function(*arguments, **options)
            except KeyboardInterrupt:
                err.print("Interrupted.")
                raise typer.Exit(INTERRUPTED) from None
            except (RuntimeError, MemoryError) as error:
                from handful.engine.memory import out_of_memory

                if not out_of_memory(error):
                    raise
                err.print(Text("Error:", "bold red"), "The memory does not suffice. Give less data or fewer at once.")
                raise typer.Exit(FAILED) from None
            except HandfulError as error:
                misused = isinstance(error, UserError) and not isinstance(error, (DataError, ArtifactError))
                err.print(Text("Error:", "bold red"), str(error))
                raise typer.Exit(MISUSED if misused else FAILED) from None

        app.command(name, epilog=f"Example: {example}")(guarded)
        return function

    return register


@command("handful quickstart")
def quickstart(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the run.")] = Path("runs/quickstart"),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """The whole job in five minutes, on letters drawn from fonts: learn, evaluate, adapt, predict."""
    from handful.workflows.quickstart import quickstart as run

    err.print(
        "Learning to read letters from one example each. It trains on Latin and Cyrillic letters in\n"
        "many type faces, and is tested on Georgian, Armenian, Greek and Lao, which it never saw.\n"
    )
    with Progress() as progress:
        report, new = run(
            output,
            seed=seed,
            on_pretraining=progress.pretraining,
            on_step=progress.step,
            on_ladder=progress.ladder,
        )
    out.print(Text("What was learned.", "bold"), report.verdict)
    out.print(
        Text("\nA new task.", "bold"),
        f"From 3 examples of each of 5 unseen letters ({new.examples}) it read {new.right} of {new.count} others right "
        f"({new.inputs}). The adapted task is {new.task}, {new.task.stat().st_size / 1024:.0f} kB.",
    )
    out.print(Text("\nReport.", "bold"), f"{output / 'report.md'}, with pictures beside it.")
    out.print(
        Text("\nNext, with your own data", "bold"),
        "(a folder with one subfolder of images per class, or a table):\n"
        "  handful train --tasks FOLDER --learner protonet -o runs/mine\n"
        "  handful train --tasks TABLE.csv --task customer --target amount --learner maml -o runs/mine\n"
        "  handful evaluate runs/mine\n"
        f"  handful adapt {output} {new.examples} -o my.task\n"
        f"  handful predict my.task {new.inputs}",
    )


@command("handful train --tasks photos/ --learner protonet --shot 5 -o runs/photos")
@takes(DATA)
def train(
    tasks: TasksOption,
    data: dict[str, Any],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the run.")],
    learner: Annotated[
        str, typer.Option(help="See `handful list`; its own options: `handful list NAME`.")
    ] = "protonet",
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
    steps: Annotated[int, of_training(help="Meta-training steps.")] = 1000,
    meta_batch_size: Annotated[int, of_training(help="Tasks per step.")] = 4,
    outer_lr: Annotated[float, of_training(help="Peak learning rate.")] = 1e-3,
    pretrain: Annotated[
        int, of_training(help="Examples to train the network on beforehand, as if there were no tasks.")
    ] = 0,
    augment: Annotated[
        float,
        of_training(
            help="How much to change training tasks: views of their images, or their targets (against memorization)."
        ),
    ] = 0.0,
    plan: Annotated[
        str | None,
        of_training(help="How tasks are run, such as loop+threads:2+recompute; by default measured and chosen."),
    ] = None,
    workers: Annotated[
        int | None,
        of_training(help="Processes that share each step; with a given plan, the same bits for any number."),
    ] = None,
    tune: Annotated[
        int, of_training(help="Trials, scored on validation tasks, to search for rates and options first.")
    ] = 0,
    seed: Annotated[int, of_training(help="Of splits, tasks and starting weights.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run, bit for bit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start over where a run exists.")] = False,
) -> None:
    """Meta-train a learner on your tasks."""
    from handful.reports.summary_lines import performance_line
    from handful.training.run import Run, is_run
    from handful.training.workers import place
    from handful.workflows.experiment import Experiment
    from handful.workflows.train import train as run

    start = time.monotonic()
    assigned = assignments(assign)
    settings = {
        "steps": steps,
        "meta_batch_size": meta_batch_size,
        "outer_lr": outer_lr,
        "pretrain_examples": pretrain,
        "plan": plan,
    }
    for name in assigned["training"].keys() & {*settings, "seed"}:
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
        augment=augment,
        settings=settings | assigned["training"],
        seed=seed,
    )

    if tune:
        if place(None)[1] > 1:
            raise UserError("--tune searches in one process: start it without a launcher, then train with --workers.")
        experiment = _tuned(experiment, output, tune, resume, force)
        resume, force = resume and is_run(output), False
    if place(workers)[0]:
        _train_silently(experiment, output, workers)
        return

    def started(training: "Training") -> None:
        sizes = training.distribution.sizes
        parameters = sum(p.numel() for p in training.parameters)
        err.print(
            f"Training {learner} ({parameters:,} parameters) on {tasks}: "
            f"{f'{sizes.way}-way ' if sizes.way else ''}{sizes.shot}-shot tasks, {meta_batch_size} per step."
        )
        if training.distribution.pipeline:
            err.print(f"Inputs: {training.distribution.pipeline.described()}.")
        if small := training.distribution.small_tasks():
            err.print(f"Sizes: {small}.")
        if training.plan:
            shared = f" Workers: {training.workers.count}." if training.workers.count > 1 else ""
            err.print(f"Plan: {training.plan}.{shared}")

    try:
        with Progress() as progress:
            model = run(
                experiment,
                output,
                resume=resume,
                force=force,
                workers=workers,
                started=started,
                progress=progress.step,
                pretraining=progress.pretraining,
                say=err.print,
            )
    except KeyboardInterrupt:
        if list((output / "checkpoints").glob("*.safetensors")):
            err.print(f"Saved. Continue with the same command and --resume: handful train ... -o {output} --resume")
        raise
    facts, speed = model.facts, performance_line(Run(output).performance())
    score = score_text(facts["validation score"], model.spec.metric, facts.get("validation draws diverged", 0))
    seconds, whole = Run(output).metrics()[-1]["seconds"], time.monotonic() - start
    out.print(
        f"Trained {facts['trained steps']} steps in {seconds:.0f} s (with reading and validation {whole:.0f} s); kept "
        f"step {facts['kept step']} ({facts['selection']}: {score}).\n"
        f"{speed}The model: {output / 'model'}\nNext: handful evaluate {output}"
    )


def _tuned(experiment: "Experiment", output: Path, trials: int, resume: bool, force: bool) -> "Experiment":
    """Search, print the best trials and what mattered, and return the experiment with the best settings."""
    from handful.workflows.tune import tune

    try:
        with Progress() as progress:
            tuning = tune(experiment, output, trials, resume=resume, force=force, progress=progress.trial)
    except KeyboardInterrupt:
        err.print("The trials that ended are kept. Continue with the same command and --resume.")
        raise
    best = tuning.best
    out.print(tables.trials(tuning))
    return best


def _train_silently(experiment: "Experiment", output: Path, workers: int | None) -> None:
    """Train in a process that a launcher started beside the first one, which is the one that prints."""
    from handful.training.workers import PeerError
    from handful.workflows.train import train as run

    warnings.simplefilter("ignore")
    try:
        run(experiment, output, workers=workers)
    except PeerError:
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@command("handful bench --tasks sine --learner maml --meta-batch-size 16")
@takes(DATA)
def bench(
    tasks: TasksOption,
    data: dict[str, Any],
    learner: Annotated[str, typer.Option(help="See `handful list`.")] = "protonet",
    way: Annotated[int | None, typer.Option(help="Classes of a task.")] = None,
    shot: Annotated[int | None, typer.Option(help="Examples to learn from.")] = None,
    query_shot: Annotated[int | None, typer.Option(help="Examples to be scored on.")] = None,
    backbone: Annotated[str, of_learner(help="As in `handful train`.")] = "auto",
    normalization: Annotated[str | None, of_learner(help="frozen, support or transductive.")] = None,
    assign: Annotated[
        list[str] | None,
        of_learner("--set", metavar="NAME=VALUE", help="An option of the learner or backbone.NAME."),
    ] = None,
    meta_batch_size: Annotated[int, typer.Option(help="Tasks per step.")] = 4,
    seconds: Annotated[float, typer.Option(help="How long to measure, about.")] = 20.0,
    compiled: Annotated[bool, typer.Option("--compiled", help="Try compiled plans too: half a minute each.")] = False,
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
    result = measure(experiment, meta_batch_size=meta_batch_size, seconds=seconds, compiled=compiled)
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


@command("handful evaluate runs/photos --way 5 --shot 1 --number 600")
@takes(COLUMNS | {"no_limits": NoLimitsOption})
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run of `handful train`.")],
    data: dict[str, Any],
    tasks: Annotated[str | None, typer.Option(help="Another source: tasks outside the training distribution.")] = None,
    way: Annotated[list[int] | None, typer.Option(help="Classes of a task; repeat for several settings.")] = None,
    shot: Annotated[int | None, typer.Option(help="Examples to learn from, per class (with --task: per task).")] = None,
    query_shot: Annotated[int | None, typer.Option(help="Examples to be scored on, likewise.")] = None,
    number: Annotated[int, typer.Option(help="Tasks to score.")] = 600,
    costly: Annotated[int, typer.Option(min=0, help="Tasks for rungs that train a network each (0: leave out).")] = 50,
    equivalence: Annotated[
        int,
        typer.Option(
            min=0, help="Tasks to find out how many times more examples the ordinary way needs (0: leave out)."
        ),
    ] = 0,
    half_width: Annotated[
        float | None, typer.Option(help="Half of the interval that is wanted (0.005: 0.5 points): how many tasks?")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the report; RUN/report by default.")
    ] = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run on tasks that it never saw, beside the baselines."""
    from handful.reports.summary_lines import equivalence_line, needed_line
    from handful.storage import check_writable
    from handful.training.run import Run
    from handful.workflows.evaluate import evaluate as score

    if not tasks and (unused := [name for name, value in data.items() if value]):
        raise UserError(
            f"--{unused[0].replace('_', '-')} is about other data than those of the run: give these with --tasks."
        )
    other = source_of(tasks, data) if tasks else None
    home = Run.existing(run).path
    folder = output or (home / "report" if other is None else home / f"report-on-{Path(tasks or '').stem}")
    check_writable(folder)
    try:
        with Progress() as progress:
            report = score(
                run,
                other=other,
                settings=[(w, shot) for w in way] if way else [(None, shot)],
                query_shot=query_shot,
                tasks=number,
                costly_tasks=costly,
                equivalence_tasks=equivalence,
                half_width=half_width,
                trust=trust or (),
                progress=progress.ladder,
            )
    except KeyboardInterrupt:
        if Run(home).ladder.exists():
            err.print("The pre-training for the ladder is saved. Continue from there with the same command.")
        raise
    report.write(folder)
    if as_json:
        print_json(report.to_json())
        return
    for comparison in report.comparisons:
        out.print(tables.ladder(comparison))
    out.print(report.verdict)
    if report.equivalence is not None:
        out.print(flowing(equivalence_line(report.equivalence, report.comparisons[0].learner.evaluation)))
    if half_width is not None:
        for comparison in report.comparisons:
            out.print(needed_line(comparison.learner.evaluation, half_width))
    out.print(f"Report: {folder / 'report.md'}")


@command("handful compare runs/protonet runs/maml")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Evaluated runs on the same tasks.")],
    as_json: JsonOption = False,
) -> None:
    """Compare evaluated runs on the same tasks, with paired intervals."""
    from handful.workflows.compare import compare as pair

    settings = pair(runs)
    if as_json:
        print_json(settings)
        return
    for setting in settings:
        out.print(tables.comparison(setting))


@command("handful adapt runs/photos new-customer/ -o new-customer.task")
def adapt(
    model: Annotated[Path, typer.Argument(help="A run or a meta-model.")],
    examples: Annotated[
        Path, typer.Argument(help="Labeled examples: a folder of class folders, a table, an npz file.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File for the adapted task.")],
    column: Annotated[
        str | None,
        typer.Option(
            "--target", "--label", help="Column to predict, of a table with columns of its own (by default the run's)."
        ),
    ] = None,
    forget: Annotated[bool, typer.Option("--forget-examples", help="Do not keep the examples in the file.")] = False,
    trust: TrustOption = None,
    no_limits: NoLimitsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Adapt a meta-model to a new task from a handful of examples."""
    from handful.workflows.adapt import adapt_to_file

    adapted = adapt_to_file(
        model,
        examples,
        target=column,
        keep_support=not forget,
        estimate=True,
        trust=trust or (),
        limits=limits_of(no_limits),
    )
    adapted.save(output)
    size = output.stat().st_size
    facts = {
        "task": str(output),
        "examples": adapted.examples,
        "labels": adapted.labels,
        "estimate": adapted.estimate,
        "adapt_seconds": adapted.adapt_seconds,
        "bytes": size,
        "holds_examples": adapted.holds_examples,
    }
    if forget and adapted.holds_examples:
        err.print("Note: the state of this learner has numbers of each example, so the task holds them all the same.")
    if as_json:
        print_json(facts)
        return
    what = f"{len(adapted.labels)} classes" if adapted.labels else "a number"
    out.print(
        f"Adapted to {adapted.examples} examples of {what} in {adapted.adapt_seconds * 1000:.0f} ms: {output}, "
        f"{size / 1024:.0f} kB."
    )
    if adapted.estimate:
        out.print(
            f"{adapted.estimate['by'].capitalize()} on the examples themselves: "
            f"{score_text(adapted.estimate['mean'], adapted.estimate['metric'], adapted.estimate.get('diverged', 0))}."
        )
    out.print(f"Next: handful predict {output} INPUTS")


@command("handful predict new-customer.task photo.png --json")
def predict(
    task: Annotated[Path, typer.Argument(help="An adapted task.")],
    inputs: Annotated[Path, typer.Argument(help="A file or folder of images, a table, an npz file.")],
    model: Annotated[Path | None, typer.Option(help="The meta-model, if it was moved.")] = None,
    trust: TrustOption = None,
    no_limits: NoLimitsOption = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Predict with an adapted task."""
    from handful.workflows.predict import predict_file

    if as_json and as_csv:
        raise UserError("Give --json or --csv, not both.")
    rows = predict_file(task, inputs, model, trust=trust or (), limits=limits_of(no_limits))
    if as_json:
        print_json(rows)
    elif as_csv:
        print_csv(rows)
    else:
        out.print(tables.predictions(rows))


@command("handful list maml", name="list")
def list_members(
    name: Annotated[str | None, typer.Argument(help="A learner, source or backbone.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What there is: learners, sources of tasks, backbones; with NAME, all about one."""
    from handful.workflows.catalog import catalog, entry

    found: dict[str, Any] = catalog() if name is None else entry(name)
    if as_json:
        print_json(found)
    elif name is None:
        for noun, members in found.items():
            out.print(tables.members(noun, members))
            out.print()
    else:
        out.print(Text(name, "bold"), f"({found['noun']})")
        for block in flowing(found["text"]).split("\n\n"):
            out.print(f"\n{block}", soft_wrap=is_code(block))
        if found["options"]:
            out.print()
            out.print(tables.options(found["options"]))


@command("handful doctor runs/photos")
@takes(DATA)
def doctor(
    subject: Annotated[str, typer.Argument(help="A run, or a source of tasks as in `handful train --tasks`.")],
    data: dict[str, Any],
    way: Annotated[int | None, typer.Option(help="Classes of a task.")] = None,
    shot: Annotated[int | None, typer.Option(help="Examples to learn from.")] = None,
    query_shot: Annotated[int | None, typer.Option(help="Examples to be scored on.")] = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for what makes few-shot scores too good to be true."""
    from handful.workflows.diagnose import checkup

    findings = checkup(source_of(subject, data), way, shot, query_shot, trust=trust or ())
    if as_json:
        print_json(findings)
    else:
        out.print(tables.findings(findings))
    if any(finding["status"] == "problem" for finding in findings):
        raise typer.Exit(FAILED)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Meta-learning and few-shot learning."""
    if show:
        out.print(__version__)
        raise typer.Exit


def main() -> None:
    """The command `handful`."""
    # Threads that spin while they wait take the processor from those that work: on a busy machine of two cores a step
    # then takes several times as long. A short spin costs nothing on an idle one. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    app(prog_name="handful")
