"""`handful doctor`."""

from typing import Annotated, Any

import typer

from handful.cli import tables
from handful.cli.application import FAILED, command
from handful.cli.flags import flag
from handful.cli.options import (
    DATA,
    JsonOption,
    TrustOption,
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
    shot: Annotated[int | None, typer.Option(help="Examples to learn from.")] = None,
    query_shot: Annotated[int | None, typer.Option(help="Examples to be scored on.")] = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for what makes few-shot scores too good to be true."""
    from handful.workflows.diagnose import checkup

    findings = [
        finding | {"hint": spelled(finding["hint"], flag)}
        for finding in checkup(source_of(subject, data), way, shot, query_shot, trust=trust or ())
    ]
    if as_json:
        print_json(findings)
    else:
        out.print(tables.findings(findings))
    if any(finding["status"] == "problem" for finding in findings):
        raise typer.Exit(FAILED)
