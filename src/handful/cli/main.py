"""The command `handful`. Commands import slow modules when they run, to keep `--help` fast."""

import errno
import logging
import os
import sys
from typing import Annotated

import typer
from rich.text import Text

from handful import __version__

# An import registers its command; `handful --help` lists the commands in this order, the order in which they are used.
# isort: off
from handful.cli import (  # noqa: F401
    quickstart,
    list_members,
    train,
    evaluate,
    adapt,
    predict,
    compare,
    doctor,
    bench,
    serve,
    tasks,
    tasks_kept,
    keys,
    store,
)

# isort: on
from handful.cli.application import FAILED, REFUSED, app
from handful.cli.terminal import err, go_nowhere, out, write_any_sign


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Meta-learning and few-shot learning."""
    if show:
        out.print(__version__)
        raise typer.Exit


def main() -> None:
    """The command `handful`."""
    # Threads that spin while they wait take the processor from those that work: beside one busy program, a step on two
    # cores takes 2.2 times as long with 30,000 spins as with 1,000, which cost 0 to 7 % on an idle machine. Read when
    # torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if logging.lastResort is not None:
        logging.lastResort.setLevel(logging.ERROR)  # what libraries warn their own users of
    write_any_sign()
    try:
        try:
            app(prog_name="handful")
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in REFUSED | {errno.EPIPE}:
            raise
        go_nowhere(sys.stdout)
        if error.errno != errno.EPIPE:  # whoever reads has seen enough
            err.print(Text("Error:", "bold red"), f"Cannot write the output ({error.strerror}).")
        sys.exit(FAILED)
