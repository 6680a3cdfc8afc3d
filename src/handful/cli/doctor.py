"""`handful doctor`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from handful.cli import tables
from handful.cli.application import FAILED, command
from handful.cli.flags import flag
from handful.cli.options import (
    DATA,
    STANDARD_INPUT,
    JsonOption,
    TrustOption,
    file_of,
    source_of,
    takes,
)
from handful.cli.terminal import out, print_json
from handful.errors import spelled


@command("handful doctor runs/photos")
@takes(DATA)
def doctor(
    subject: Annotated[str, typer.Argument(help="A run, or a source of tasks as in `handful train --tasks`.")],
    data: dict[str, Any],
    way: Annotated[int | None, typer.Option(help="Classes of a task.")] = None,
    shot: Annotated[int | None, typer.Option(help="Support examples to learn from.")] = None,
    query_shot: Annotated[int | None, typer.Option(help="Queries to score predictions on.")] = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check data and a run for leakage and memorization, which inflate few-shot scores."""
    from handful.workflows.diagnose import checkup

    with file_of(subject) as file:
        source = source_of(str(file), data)
        findings = [
            finding | {"hint": spelled(finding["hint"], flag)}
            for finding in checkup(source, way, shot, query_shot, trust=trust or ())
        ]
    problem = any(finding["status"] == "problem" for finding in findings)
    if as_json:
        print_json(findings)
    else:
        same = ", with the same options" if any([*data.values(), way, shot, query_shot]) else ""
        out.print(tables.findings(findings))
        out.print(f"Next: {'fix the problems, then ' if problem else ''}{_next_step(subject)}{same}")
    if problem:
        raise typer.Exit(FAILED)


def _next_step(subject: str) -> str:
    """The command to run after the diagnosis of this run or data."""
    from handful.training.run import Run
    from handful.workflows.compare import report_folder

    run = Run.find(Path(subject))
    if run is None:
        return f"handful train --tasks {'FILE' if Path(subject) == STANDARD_INPUT else subject} -o RUN"
    if report_folder(run.path) is None:
        return f"handful evaluate {run.path}"
    return f"handful adapt {run.path} EXAMPLES"
