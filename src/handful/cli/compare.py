"""`handful compare`."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli import tables
from handful.cli.application import command
from handful.cli.options import (
    JsonOption,
)
from handful.cli.terminal import out, print_json


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
