"""`handful compare`."""

from pathlib import Path
from typing import Annotated

import typer

from handful.cli import tables
from handful.cli.application import command
from handful.cli.options import JsonOption, TrustOption
from handful.cli.terminal import ProgressBars, out, print_json


@command("handful compare runs/protonet runs/maml")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Runs of `handful train` on the same data.")],
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two or more runs on the same test tasks, with paired intervals."""
    from handful.workflows.compare import compare as pair

    with ProgressBars() as bars:
        settings = pair(runs, trust=trust or (), on_event=bars.hear)
    if as_json:
        print_json(settings)
        return
    for setting in settings:
        out.print(tables.comparison(setting))
    out.print(f"Next: handful adapt {settings[0]['runs'][0]['run']} EXAMPLES")
