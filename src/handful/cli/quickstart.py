"""`handful quickstart`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from handful.cli.application import command
from handful.cli.interruption import Interruption
from handful.cli.terminal import ProgressBars, err, out


@command("handful quickstart")
def quickstart(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the run.")] = Path("runs/quickstart"),
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
) -> None:
    """Train, evaluate, adapt and predict in four minutes, on letters drawn from fonts."""
    from handful.workflows.quickstart import quickstart as run

    err.print(
        "Learning to read letters from one example each. It trains on Latin and Cyrillic letters in\n"
        "many type faces, and is tested on Georgian, Armenian, Greek and Lao, which it never saw.\n"
    )
    with ProgressBars() as bars, Interruption(bars.hear) as interruption:
        report, new = run(
            output,
            seed=seed,
            on_event=interruption.hear,
            stop=interruption.stop,
        )
    out.print(Text("The learner beside the baselines.", "bold"), report.verdict)
    out.print(
        Text("\nA new task.", "bold"),
        f"From 3 examples of each of 5 unseen letters ({new.examples}) it classifies {new.right} of {new.count} others "
        f"correctly "
        f"({new.inputs}). The adapted task is {new.task}, {new.task.stat().st_size / 1024:.0f} kB.",
    )
    out.print(Text("\nReport.", "bold"), f"{output / 'report.md'}, with pictures beside it.")
    out.print(
        Text("\nNext, with your own data", "bold"),
        "(a folder with one subfolder of images per class, or a table):\n"
        "  handful train --tasks FOLDER -o runs/mine\n"
        "  handful train --tasks TABLE.csv --task customer --target amount -o runs/mine\n"
        "  handful evaluate runs/mine\n"
        f"  handful adapt {output} {new.examples} -o my.task\n"
        f"  handful predict my.task {new.inputs}",
    )
