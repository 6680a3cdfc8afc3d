"""The command line. Everything heavy is imported inside the commands, so that `--help` is quick."""

import functools
import json
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.markup import escape
from rich.table import Table

from handful import __version__
from handful.errors import ArtifactError, DataError, HandfulError, UserError, unknown_name
from handful.terminal import Progress, err, flowing, interval_text, notes, out, print_json

if TYPE_CHECKING:
    from handful.apps.experiment import Source

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
DATA, MODEL = "Your data", "Learner"

Command = TypeVar("Command", bound=Callable[..., None])

TasksOption = Annotated[
    str,
    typer.Option(
        "--tasks", help="A source (`handful list`), a folder of images or of tables, or a .csv, .parquet or .npz file."
    ),
]
LabelOption = Annotated[str | None, typer.Option(help="Column with the class.", rich_help_panel=DATA)]
TaskOption = Annotated[
    str | None, typer.Option(help="Column that tells the tasks apart: customer, shop, school.", rich_help_panel=DATA)
]
TargetOption = Annotated[str | None, typer.Option(help="Column with the number to predict.", rich_help_panel=DATA)]
GroupOption = Annotated[
    str | None,
    typer.Option(help="Column of a writer, video, patient: never on both sides of a task.", rich_help_panel=DATA),
]
DropOption = Annotated[list[str] | None, typer.Option(help="Column to leave out; repeatable.", rich_help_panel=DATA)]
TextOption = Annotated[
    str | None, typer.Option(help="Column with a text, read by a sentence encoder.", rich_help_panel=DATA)
]
EncoderOption = Annotated[str | None, typer.Option(help="Sentence encoder: a name, or a folder.", rich_help_panel=DATA)]
SplitByOption = Annotated[
    str | None,
    typer.Option(help="Column of a domain, region: all of one is in the same split.", rich_help_panel=DATA),
]
SizeOption = Annotated[int | None, typer.Option(help="Pixels a side of images.", rich_help_panel=DATA)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
            except HandfulError as error:
                misused = isinstance(error, UserError) and not isinstance(error, (DataError, ArtifactError))
                err.print(f"[bold red]Error:[/] {escape(str(error))}")
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
    from handful.apps.quickstart import quickstart as run

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
    out.print(f"[bold]What was learned.[/] {escape(report.verdict)}")
    out.print(
        f"\n[bold]A new task.[/] From 3 examples of each of 5 unseen letters ({new.examples}) it read "
        f"{new.right} of {new.count} others right ({new.inputs}). The adapted task is {new.task}, "
        f"{new.task.stat().st_size / 1024:.0f} kB."
    )
    out.print(f"\n[bold]Report.[/] {output / 'report.md'}, with pictures beside it.")
    out.print(
        "\n[bold]Next, with your own data[/] (a folder with one subfolder of images per class, or a table):\n"
        "  handful train --tasks FOLDER --learner protonet -o runs/mine\n"
        "  handful train --tasks TABLE.csv --task customer --target amount --learner maml -o runs/mine\n"
        "  handful evaluate runs/mine\n"
        f"  handful adapt {output} {new.examples} -o my.task\n"
        f"  handful predict my.task {new.inputs}"
    )


@command("handful train --tasks photos/ --learner protonet --shot 5 -o runs/photos")
def train(
    tasks: TasksOption,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the run.")],
    learner: Annotated[
        str, typer.Option(help="See `handful list`; its own options: `handful list NAME`.")
    ] = "protonet",
    label: LabelOption = None,
    task: TaskOption = None,
    target: TargetOption = None,
    group: GroupOption = None,
    drop: DropOption = None,
    text: TextOption = None,
    encoder: EncoderOption = None,
    split_by: SplitByOption = None,
    image_size: SizeOption = None,
    way: Annotated[int | None, typer.Option(help="Classes of a task.", rich_help_panel="Task sizes")] = None,
    shot: Annotated[
        int | None,
        typer.Option(help="Examples to learn from, per class (with --task: per task).", rich_help_panel="Task sizes"),
    ] = None,
    query_shot: Annotated[
        int | None, typer.Option(help="Examples to be scored on, likewise.", rich_help_panel="Task sizes")
    ] = None,
    train_way: Annotated[
        int | None, typer.Option(help="Classes of a training task, if not --way.", rich_help_panel="Task sizes")
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="conv4, mlp, raw, or your own as package.module:name.", rich_help_panel=MODEL)
    ] = "auto",
    normalization: Annotated[
        str | None, typer.Option(help="frozen, support or transductive.", rich_help_panel=MODEL)
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="An option of the learner, of its network (backbone.NAME) or of training (training.NAME).",
            rich_help_panel=MODEL,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Meta-training steps.", rich_help_panel="Training")] = 1000,
    meta_batch_size: Annotated[int, typer.Option(help="Tasks per step.", rich_help_panel="Training")] = 4,
    outer_lr: Annotated[float, typer.Option(help="Peak learning rate.", rich_help_panel="Training")] = 1e-3,
    pretrain: Annotated[
        int,
        typer.Option(
            help="Examples to train the network on beforehand, as if there were no tasks.", rich_help_panel="Training"
        ),
    ] = 0,
    augment: Annotated[
        float,
        typer.Option(
            help="How much to change training tasks: views of their images, or their targets (against memorization).",
            rich_help_panel="Training",
        ),
    ] = 0.0,
    plan: Annotated[
        str | None,
        typer.Option(
            help="How tasks are run, such as loop+threads:2+recompute; by default measured and chosen.",
            rich_help_panel="Training",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that share each step; with a given plan, the same bits for any number.",
            rich_help_panel="Training",
        ),
    ] = None,
    tune: Annotated[
        int,
        typer.Option(
            help="Trials, scored on validation tasks, to search for rates and options first.",
            rich_help_panel="Training",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of splits, tasks and starting weights.", rich_help_panel="Training")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run, bit for bit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start over where a run exists.")] = False,
) -> None:
    """Meta-train a learner on your tasks."""
    from handful.apps.experiment import Experiment
    from handful.apps.experiment import train as run
    from handful.evaluation.sentences import performance_line
    from handful.training.run import Run, is_run
    from handful.training.workers import PeerError, place

    assigned = _assignments(assign or [])
    experiment = Experiment(
        _source(
            tasks, label, task, target, group, drop, image_size, seed, text=text, encoder=encoder, split_by=split_by
        ),
        learner=learner,
        options=assigned[""],
        backbone=backbone,
        backbone_options=assigned["backbone"],
        normalization=normalization,
        way=way,
        shot=shot,
        query_shot=query_shot,
        train_way=train_way,
        augment=augment,
        settings={
            "steps": steps,
            "meta_batch_size": meta_batch_size,
            "outer_lr": outer_lr,
            "pretrain_examples": pretrain,
        }
        | {"plan": plan}
        | assigned["training"],
        seed=seed,
    )

    if tune:
        if place(None)[1] > 1:
            raise UserError("--tune searches in one process: start it without a launcher, then train with --workers.")
        experiment = _tuned(experiment, output, tune, resume, force)
        resume, force = resume and is_run(output), False

    if place(workers)[0]:  # another process is the one that prints
        warnings.simplefilter("ignore")
        try:
            run(experiment, output, workers=workers)
        except PeerError:
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        return

    def started(training: Any) -> None:
        sizes = training.distribution.sizes
        parameters = sum(p.numel() for p in training.parameters)
        err.print(
            f"Training {learner} ({parameters:,} parameters) on {tasks}: "
            f"{f'{sizes.way}-way ' if sizes.way else ''}{sizes.shot}-shot tasks, {meta_batch_size} per step."
        )
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
    out.print(
        f"Trained {facts['trained steps']} steps in {Run(output).metrics()[-1]['seconds']:.0f} s; kept step "
        f"{facts['kept step']} ({facts['selection']}: {facts['validation score']:.4g}).\n"
        f"{speed}The model: {output / 'model'}\nNext: handful evaluate {output}"
    )


@command("handful bench --tasks sine --learner maml --meta-batch-size 16")
def bench(
    tasks: TasksOption,
    learner: Annotated[str, typer.Option(help="See `handful list`.")] = "protonet",
    label: LabelOption = None,
    task: TaskOption = None,
    target: TargetOption = None,
    group: GroupOption = None,
    drop: DropOption = None,
    text: TextOption = None,
    encoder: EncoderOption = None,
    split_by: SplitByOption = None,
    image_size: SizeOption = None,
    way: Annotated[int | None, typer.Option(help="Classes of a task.")] = None,
    shot: Annotated[int | None, typer.Option(help="Examples to learn from.")] = None,
    query_shot: Annotated[int | None, typer.Option(help="Examples to be scored on.")] = None,
    backbone: Annotated[str, typer.Option(help="As in `handful train`.", rich_help_panel=MODEL)] = "auto",
    normalization: Annotated[
        str | None, typer.Option(help="frozen, support or transductive.", rich_help_panel=MODEL)
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="An option of the learner or backbone.NAME.", rich_help_panel=MODEL
        ),
    ] = None,
    meta_batch_size: Annotated[int, typer.Option(help="Tasks per step.")] = 4,
    seconds: Annotated[float, typer.Option(help="How long to measure, about.")] = 20.0,
    compiled: Annotated[bool, typer.Option("--compiled", help="Try compiled plans too: half a minute each.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Time and memory of a training step on your tasks, for each way to run it."""
    from handful.apps.bench import bench as measure
    from handful.apps.experiment import Experiment
    from handful.evaluation.wording import rate_text

    assigned = _assignments(assign or [])
    experiment = Experiment(
        _source(tasks, label, task, target, group, drop, image_size, text=text, encoder=encoder, split_by=split_by),
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
        print_json(asdict(result) | {"fastest": result.fastest.written()})
        return
    table = Table(title=f"A step of {meta_batch_size} tasks", title_justify="left", box=None)
    table.add_column("plan")
    for column in ("ms", "tasks/s", "MiB", "of the limit"):
        table.add_column(column, justify="right")
    for row in sorted(result.rows, key=lambda row: row["seconds"] or float("inf")):
        if row["seconds"] is None:
            table.add_row(row["plan"], escape(row["note"][:40]))
            continue
        memory = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}"
        speed = f"{1000 * row['seconds']:.3g}", rate_text(row["tasks_per_second"]), memory
        share = row["share_of_limit"]
        table.add_row(row["plan"], *speed, "" if share is None else f"{share:.1%}")
    out.print(table)
    needed = "" if result.operations is None else f"; a step needs {result.operations / 1e9:.3g} GFLOP"
    out.print(
        f"\nThe fastest: --plan {result.fastest.written()}. MiB: how far the process grew. The limit: "
        f"{result.limit / 1e9:.0f} GFLOP/s on large matrix products{needed}."
    )


@command("handful evaluate runs/photos --way 5 --shot 1 --number 600")
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run of `handful train`.")],
    tasks: Annotated[str | None, typer.Option(help="Another source: tasks outside the training distribution.")] = None,
    label: LabelOption = None,
    task: TaskOption = None,
    target: TargetOption = None,
    group: GroupOption = None,
    drop: DropOption = None,
    text: TextOption = None,
    way: Annotated[list[int] | None, typer.Option(help="Classes of a task; repeat for several settings.")] = None,
    shot: Annotated[int | None, typer.Option(help="Examples to learn from, per class (with --task: per task).")] = None,
    query_shot: Annotated[int | None, typer.Option(help="Examples to be scored on, likewise.")] = None,
    number: Annotated[int, typer.Option(help="Tasks to score.")] = 600,
    costly: Annotated[int, typer.Option(help="Tasks for rungs that train a network each (0: leave out).")] = 50,
    equivalence: Annotated[
        int, typer.Option(help="Tasks to find out how many times more examples the ordinary way needs (0: leave out).")
    ] = 0,
    half_width: Annotated[
        float | None, typer.Option(help="Half of the interval that is wanted (0.005: 0.5 points): how many tasks?")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the report; RUN/report by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run on tasks that it never saw, beside the baselines."""
    from handful.apps.experiment import evaluate as score
    from handful.evaluation.sentences import equivalence_line, needed_line
    from handful.storage import check_writable

    other = _source(tasks, label, task, target, group, drop, text=text) if tasks else None
    home = run.parent if run.name == "model" else run
    folder = output or (home / "report" if other is None else home / f"report-on-{Path(tasks or '').stem}")
    check_writable(folder)
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
            progress=progress.ladder,
        )
    report.write(folder)
    if as_json:
        print_json(report.to_json())
        return
    for comparison in report.comparisons:
        out.print(_ladder_table(comparison))
    out.print(escape(report.verdict))
    if report.equivalence is not None:
        out.print(escape(flowing(equivalence_line(report.equivalence, report.comparisons[0].learner.evaluation))))
    if half_width is not None:
        for comparison in report.comparisons:
            out.print(escape(needed_line(comparison.learner.evaluation, half_width)))
    out.print(f"Report: {folder / 'report.md'}")


@command("handful compare runs/protonet runs/maml")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Evaluated runs on the same tasks.")],
    as_json: JsonOption = False,
) -> None:
    """Compare evaluated runs on the same tasks, with paired intervals."""
    from handful.apps.compare import compare as pair

    settings = pair(runs)
    if as_json:
        print_json(settings)
        return
    for setting in settings:
        table = Table(title=f"{setting['setting']}: {setting['metric']}", title_justify="left", box=None)
        for column in ("run", "learner", "score", "better than the best by", "tasks"):
            table.add_column(column)
        for row in setting["runs"]:
            gap = interval_text(row["against_best"], setting["metric"], signed=True) if "against_best" in row else ""
            table.add_row(
                row["run"] + (f" and {len(row['runs']) - 1} more seeds" if "runs" in row else ""),
                row["learner"],
                interval_text(row["score"], setting["metric"]),
                gap,
                str(row["score"]["tasks"]),
            )
        out.print(table)


@command("handful adapt runs/photos new-customer/ -o new-customer.task")
def adapt(
    model: Annotated[Path, typer.Argument(help="A run or a meta-model.")],
    examples: Annotated[
        Path, typer.Argument(help="Labeled examples: a folder of class folders, a table, an npz file.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File for the adapted task.")],
    target: Annotated[
        str | None, typer.Option(help="Column to predict, of a table with columns of its own (by default the run's).")
    ] = None,
    forget: Annotated[bool, typer.Option("--forget-examples", help="Do not keep the examples in the file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Adapt a meta-model to a new task from a handful of examples."""
    from handful.apps.prediction import adapt_to_file

    adapted = adapt_to_file(model, examples, target=target, keep_support=not forget)
    adapted.save(output)
    size = output.stat().st_size
    facts = {
        "task": str(output),
        "examples": len(adapted.manifest),
        "labels": adapted.labels,
        "estimate": adapted.estimate,
        "adapt_seconds": adapted.adapt_seconds,
        "bytes": size,
    }
    if as_json:
        print_json(facts)
        return
    what = f"{len(adapted.labels)} classes" if adapted.labels else "a number"
    out.print(
        f"Adapted to {len(adapted.manifest)} examples of {what} in {adapted.adapt_seconds * 1000:.0f} ms: {output}, "
        f"{size / 1024:.0f} kB."
    )
    if adapted.estimate:
        out.print(
            f"Leave-one-out {adapted.estimate['metric']} on the examples themselves: {adapted.estimate['mean']:.3g}."
        )
    out.print(f"Next: handful predict {output} INPUTS")


@command("handful predict new-customer.task photo.png --json")
def predict(
    task: Annotated[Path, typer.Argument(help="An adapted task.")],
    inputs: Annotated[Path, typer.Argument(help="A file or folder of images, a table, an npz file.")],
    model: Annotated[Path | None, typer.Option(help="The meta-model, if it was moved.")] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Predict with an adapted task."""
    from handful.apps.prediction import predict_file

    rows = predict_file(task, inputs, model)
    if as_json:
        print_json(rows)
    elif as_csv:
        import csv

        flat = [row | {f"p({name})": p for name, p in row.pop("probabilities", {}).items()} for row in rows]
        writer = csv.DictWriter(sys.stdout, fieldnames=list(flat[0]) if flat else ["id"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
    else:
        table = Table(box=None)
        for column in [name for name in rows[0] if name != "probabilities"] if rows else []:
            table.add_column(column)
        for row in rows:
            table.add_row(
                *(f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items() if k != "probabilities")
            )
        out.print(table)


@command("handful list maml", name="list")
def list_members(
    name: Annotated[str | None, typer.Argument(help="A learner, source or backbone.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What there is: learners, sources of tasks, backbones; with NAME, all about one."""
    from handful.apps.catalog import catalog, entry

    if name is not None:
        found = entry(name)
        if as_json:
            print_json(found)
            return
        out.print(f"[bold]{found['name']}[/] ({found['noun']})\n\n{escape(flowing(found['text']))}", soft_wrap=False)
        if found["options"]:
            out.print()
            table = Table(title="Options (--set name=value)", title_justify="left", box=None)
            for column in ("name", "type", "default"):
                table.add_column(column)
            for option in found["options"]:
                table.add_row(option["name"], option["type"], option["default"])
            out.print(table)
        return
    whole = catalog()
    if as_json:
        print_json(whole)
        return
    for noun, members in whole.items():
        table = Table(title=noun, title_justify="left", box=None, show_header=False)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(ratio=1)
        if "does" in members[0]:
            table.add_column(style="dim", max_width=15)
        for member in members:
            table.add_row(member["name"], member["summary"], member.get("does"))
        out.print(table)
        out.print()


@command("handful doctor runs/photos")
def doctor(
    subject: Annotated[str, typer.Argument(help="A run, or a source of tasks as in `handful train --tasks`.")],
    label: LabelOption = None,
    task: TaskOption = None,
    target: TargetOption = None,
    group: GroupOption = None,
    drop: DropOption = None,
    text: TextOption = None,
    encoder: EncoderOption = None,
    split_by: SplitByOption = None,
    image_size: SizeOption = None,
    way: Annotated[int | None, typer.Option(help="Classes of a task.")] = None,
    shot: Annotated[int | None, typer.Option(help="Examples to learn from.")] = None,
    query_shot: Annotated[int | None, typer.Option(help="Examples to be scored on.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Look for what makes few-shot scores too good to be true."""
    from handful.apps.checkup import checkup

    source = _source(
        subject, label, task, target, group, drop, image_size, text=text, encoder=encoder, split_by=split_by
    )
    findings = checkup(source, way, shot, query_shot)
    if as_json:
        print_json(findings)
    else:
        color = {"ok": "green", "warning": "yellow", "problem": "red", "skipped": "dim"}
        table = Table(box=None, show_header=False)
        for _ in range(3):
            table.add_column(vertical="top")
        for finding in findings:
            status = finding["status"]
            table.add_row(f"[{color[status]}]{status}[/]", finding["check"], escape(finding["message"]))
        out.print(table)
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


def _source(
    tasks: str,
    label: str | None,
    task: str | None,
    target: str | None,
    group: str | None,
    drop: list[str] | None,
    image_size: int | None = None,
    seed: int = 0,
    **texts: str | None,
) -> "Source":
    from handful.apps.experiment import Source

    if Path(tasks).exists():  # one path for one thing, from whatever folder it is opened again
        tasks = str(Path(tasks).resolve())
    if (encoder := texts.get("encoder")) and Path(encoder).is_dir():
        texts["encoder"] = str(Path(encoder).resolve())
    return Source(tasks, label, task, target, group, tuple(drop or ()), image_size, seed=seed, **texts)


def _tuned(experiment: Any, output: Path, trials: int, resume: bool, force: bool) -> Any:
    """Search, print the best trials and what mattered, and return the experiment with the best settings."""
    from handful.apps.tuning import tune

    try:
        with Progress() as progress:
            tuning = tune(experiment, output, trials, resume=resume, force=force, progress=progress.trial)
    except KeyboardInterrupt:
        err.print("The trials that ended are kept. Continue with the same command and --resume.")
        raise
    names = list(tuning.trials[0].settings)
    ended = sum(trial.state == "complete" for trial in tuning.trials)
    table = Table(title=f"The best of {len(tuning.trials)} trials ({ended} ended)", title_justify="left", box=None)
    for column in ("validation", *names):
        table.add_column(column, justify="right")
    for trial in tuning.ranked[:5]:
        table.add_row(f"{trial.score:.4g}", *(f"{trial.settings[name]:.3g}" for name in names))
    if tuning.importance:
        table.add_section()
        table.add_row("mattered", *(f"{tuning.importance.get(name, 0):.0%}" for name in names))
    best = tuning.best
    out.print(table)
    return best


def _assignments(given: list[str]) -> dict[str, dict[str, Any]]:
    """`--set [PART.]name=value` by part: "" (the learner), "backbone", "training". Values are JSON or texts."""
    parts: dict[str, dict[str, Any]] = {"": {}, "backbone": {}, "training": {}}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"--set takes NAME=VALUE, not {text!r}, as in --set inner_lr=0.05.")
        try:
            parsed = json.loads(value, parse_constant=str)  # NaN and Infinity are no JSON
        except ValueError:
            parsed = value
        part, dot, rest = name.partition(".")
        if dot and part not in parts:
            raise unknown_name("part in --set", part, [part for part in parts if part])
        parts[part if dot else ""][rest if dot else name] = parsed
    return parts


def _ladder_table(comparison: Any) -> Table:
    from handful.evaluation.report import table_lines

    heading, (header, *lines) = table_lines(comparison)
    table = Table(title=heading, title_justify="left", box=None)
    for column in header[:5]:  # as many as fit into 80 columns
        table.add_column(column, justify="left" if column == header[0] else "right")
    for line in lines:
        table.add_row(*line[:5])
    return table


def main() -> None:
    """The command `handful`."""
    # Threads that spin while they wait take the processor from those that work: on a busy machine of two cores a step
    # then takes several times as long. A short spin costs nothing on an idle one. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    app(prog_name="handful")
