"""`handful adapt`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from handful.cli.application import command
from handful.cli.options import (
    FILE,
    DeviceOption,
    JsonOption,
    NoLimitsOption,
    TrustOption,
    file_of,
    limits_of,
    takes,
)
from handful.cli.terminal import err, out, print_json, score_text
from handful.data_options import DataOptions
from handful.errors import UserError, count_of


@command("handful adapt runs/photos new-customer/ -o new-customer.task")
@takes(FILE)
def adapt(
    data: dict[str, Any],
    base: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run, a meta-model, or an adapted task to add examples to.")
    ],
    examples: Annotated[
        Path,
        typer.Argument(
            help="Labeled examples: a folder of class folders, a table, an npz file; or -: rows in JSON on stdin."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File for the adapted task; default: new.task for examples in new.csv."),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            "--target",
            "--label",
            help="Column to predict, if the run was trained on tables with differing columns; default: the run's.",
        ),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="The meta-model of an adapted task, if you moved it.")] = None,
    forget: Annotated[bool, typer.Option("--forget-examples", help="Leave the examples out of the file.")] = False,
    device: DeviceOption = "cpu",
    trust: TrustOption = None,
    no_limits: NoLimitsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Adapt a meta-model to a new task from a handful of examples, or add examples and classes to a task."""
    from handful.evaluation.formatting import duration
    from handful.workflows.adapt import adapt_from_file

    with file_of(examples) as file:
        output = output or _named_like(file)
        adapted = adapt_from_file(
            base,
            file,
            model=model,
            target=column,
            keep_support=not forget,
            estimate=True,
            device=device,
            trust=trust or (),
            limits=limits_of(no_limits),
            options=DataOptions(**data),
        )
    adapted.save(output)
    size = output.stat().st_size
    facts = {
        "task": str(output),
        "examples": adapted.examples,
        "labels": adapted.labels,
        "estimate": adapted.estimate and adapted.estimate._asdict(),
        "adapt_seconds": adapted.adapt_seconds,
        "bytes": size,
        "holds_examples": adapted.holds_examples,
    }
    if forget and adapted.holds_examples:
        err.print("Note: the state of this learner contains values of every example, so the file still contains them.")
    if as_json:
        print_json(facts)
        return
    kinds = f" of {count_of(len(adapted.labels), 'class', 'classes')}" if adapted.labels else ""
    out.print(
        f"Adapted to {count_of(adapted.examples, 'example')}{kinds} in {duration(adapted.adapt_seconds)}: "
        f"{output}, {size / 1024:.0f} kB."
    )
    if own := adapted.estimate:
        of = f" ({own.groups} groups)" if own.groups < own.examples else ""
        out.print(
            f"{own.by.capitalize()} score on these examples{of}: {score_text(own.mean, own.metric, own.diverged)}."
        )
    out.print(f"Next: handful predict {output} INPUTS")


def _named_like(examples: Path) -> Path:
    """The file in the working directory for the task of these examples; `UserError` if it exists."""
    name = examples.resolve().name
    output = Path(f"{name.split('.')[0] or name}.task")
    if output.exists():
        raise UserError(f"{output} already exists.", hint="Set {path} to this file to replace it, or to another name.")
    return output
