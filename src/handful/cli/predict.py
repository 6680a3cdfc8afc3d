"""`handful predict`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from handful.cli import tables
from handful.cli.application import command
from handful.cli.options import (
    FILE,
    STANDARD_INPUT,
    DeviceOption,
    JsonOption,
    NoLimitsOption,
    TrustOption,
    limits_of,
    takes,
)
from handful.cli.terminal import err, out, print_csv, print_json_lines, print_json_list
from handful.data_options import DataOptions
from handful.errors import UserError


@command("handful predict new-customer.task photo.png --json")
@takes(FILE)
def predict(
    data: dict[str, Any],
    task: Annotated[Path, typer.Argument(help="An adapted task.")],
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Images, tables, npz files or folders of them; or -: JSON on stdin, one input per line."),
    ],
    model: Annotated[Path | None, typer.Option(help="The meta-model, if you moved it.")] = None,
    device: DeviceOption = "cpu",
    trust: TrustOption = None,
    no_limits: NoLimitsOption = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Predict with an adapted task, one line per input."""
    from handful.models.adapted_task import AdaptedTask
    from handful.workflows.predict import predict_from_files

    if as_json and as_csv:
        raise UserError("Give --json or --csv, not both.")
    piped = STANDARD_INPUT in inputs
    batches = predict_from_files(
        task,
        [path for path in inputs if path != STANDARD_INPUT],
        model,
        lines=sys.stdin.buffer if piped else None,
        device=device,
        trust=trust or (),
        limits=limits_of(no_limits),
        options=DataOptions(**data),
    )
    if as_json and piped:
        print_json_lines(batches)
    elif as_json:
        print_json_list(batches)
    elif as_csv:
        print_csv(batches)
    else:
        shown = tables.PredictionLines()
        for rows in batches:
            out.print(shown.text(rows))
        if not piped and AdaptedTask.load(task).support is not None:
            err.print(f"Next: where predictions are wrong, add examples: handful adapt {task} MORE -o TASK")
