"""`handful evaluate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from handful.cli import tables
from handful.cli.application import command
from handful.cli.interruption import Interruption
from handful.cli.options import (
    COLUMNS,
    DeviceOption,
    JsonOption,
    MetricOption,
    NoLimitsOption,
    TrustOption,
    source_of,
    takes,
)
from handful.cli.terminal import ProgressBars, err, flowing, out, print_json
from handful.errors import UserError


@command("handful evaluate runs/photos --way 5 --shot 1 --test-tasks 600")
@takes(COLUMNS | {"no_limits": NoLimitsOption})
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run of `handful train`.")],
    data: dict[str, Any],
    tasks: Annotated[str | None, typer.Option(help="Evaluate on other tasks than the run's own test tasks.")] = None,
    way: Annotated[list[int] | None, typer.Option(help="Classes of a task; repeat for several settings.")] = None,
    shot: Annotated[
        int | None, typer.Option(help="Support examples to learn from, per class (with --task: per task).")
    ] = None,
    query_shot: Annotated[int | None, typer.Option(help="Queries per class (or task) to score predictions on.")] = None,
    test_tasks: Annotated[
        int | None,
        typer.Option(
            help="Number of test tasks, regardless of --minutes; default: 600, or as many as fit into --minutes."
        ),
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(
            min=0,
            help=(
                "Time limit for the whole evaluation. 0: no limit, and no baseline that trains a network for each task."
            ),
        ),
    ] = 2.0,
    equivalence: Annotated[
        int,
        typer.Option(
            min=0,
            help=(
                "Tasks to measure data equivalence on: how many times more examples learning from each task alone "
                "needs; 0: skip."
            ),
        ),
    ] = 0,
    folds: Annotated[
        int | None,
        typer.Option(
            help="Cross-validate: divide the classes or tasks into so many folds, and train and evaluate once per fold."
        ),
    ] = None,
    half_width: Annotated[
        float | None,
        typer.Option(help="Print how many tasks a 95 % interval of this half-width needs (0.005: 0.5 points)."),
    ] = None,
    metric: MetricOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the report; default: RUN/report.")
    ] = None,
    device: DeviceOption = "cpu",
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a run on test tasks it was not trained on, beside the baselines."""
    from handful.reports.summary_lines import bought_lines, equivalence_line, needed_line
    from handful.storage import check_writable
    from handful.training.run import Run
    from handful.workflows.cross_validation import cross_validate
    from handful.workflows.evaluate import evaluate as score

    if not tasks and (unused := [name for name, value in data.items() if value]):
        raise UserError(
            f"--{unused[0].replace('_', '-')} describes other data than the run's: name those data with --tasks."
        )
    if folds and (tasks or equivalence):
        raise UserError("--folds uses the data of the run: remove --tasks and --equivalence, or --folds.")
    other = source_of(tasks, data) if tasks else None
    home = Run.existing(run).path
    named = f"report-on-{Path(tasks).stem}" if tasks else f"report-in-{folds}-folds" if folds else "report"
    folder = output or home / named
    check_writable(folder)
    given: dict[str, Any] = {
        "settings": [(w, shot) for w in way] if way else [(None, shot)],
        "query_shot": query_shot,
        "tasks": test_tasks,
        "minutes": minutes,
        "half_width": half_width,
        "device": device,
        "metric": metric,
        "trust": trust or (),
    }
    try:
        with ProgressBars() as bars, Interruption(bars.hear) as interruption:
            given |= {"on_event": interruption.hear, "stop": interruption.stop}
            if folds is not None:
                report = cross_validate(run, folds, folder, **given)
            else:
                report = score(run, other=other, equivalence_tasks=equivalence, **given)
    except KeyboardInterrupt:
        if folds is not None:
            err.print("The folds trained so far are saved. Continue with the same command.")
        elif Run(home).ladder.exists():
            err.print("The pre-training of the ladder is saved. Continue with the same command.")
        raise
    report.write(folder)
    if as_json:
        print_json(report.to_json())
        return
    for comparison in report.comparisons:
        out.print(tables.ladder(comparison))
        for line in bought_lines(comparison):
            out.print(flowing(line))
    out.print(report.verdict)
    if report.equivalence is not None:
        out.print(flowing(equivalence_line(report.equivalence, report.comparisons[0].learner.evaluation)))
    if half_width is not None:
        for comparison in report.comparisons:
            out.print(needed_line(comparison.learner.evaluation, half_width))
    out.print(f"Report: {folder / 'report.md'}\nNext: handful adapt {run} EXAMPLES")
