"""`handful predict`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from handful.cli import tables
from handful.cli.application import command
from handful.cli.options import (
    FILE,
    DeviceOption,
    JsonOption,
    NoLimitsOption,
    TrustOption,
    limits_of,
    takes,
)
from handful.cli.terminal import out, print_csv, print_json
from handful.data_options import DataOptions
from handful.errors import UserError


@command("handful predict new-customer.task photo.png --json")
@takes(FILE)
def predict(
    data: dict[str, Any],
    task: Annotated[Path, typer.Argument(help="An adapted task.")],
    inputs: Annotated[Path, typer.Argument(help="A file or folder of images, a table, an npz file.")],
    model: Annotated[Path | None, typer.Option(help="The meta-model, if it was moved.")] = None,
    device: DeviceOption = "cpu",
    trust: TrustOption = None,
    no_limits: NoLimitsOption = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Predict with an adapted task."""
    from handful.workflows.predict import predict_from_file

    if as_json and as_csv:
        raise UserError("Give --json or --csv, not both.")
    rows = predict_from_file(
        task, inputs, model, device=device, trust=trust or (), limits=limits_of(no_limits), options=DataOptions(**data)
    )
    if as_json:
        print_json(rows)
    elif as_csv:
        print_csv(rows)
    else:
        out.print(tables.predictions(rows))
