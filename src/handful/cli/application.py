"""What commands share: the application, its exit codes, and how an error is printed."""

import errno
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from rich.text import Text

from handful.cli.flags import flag
from handful.cli.terminal import err, notes
from handful.errors import DataError, HandfulError, UserError

_application = functools.partial(
    typer.Typer,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app = _application(
    name="handful",
    help=(
        "Few-shot learning for people with many related small problems: meta-train once on the tasks that you have, "
        "then adapt to a new one from a handful of examples.\n\nStart with: handful quickstart"
    ),
)
OF_SERVICE = "The service"
"""The help panel of the commands about the service."""
FAILED, MISUSED, INTERRUPTED = 1, 2, 130
REFUSED = {
    *(errno.EACCES, errno.EBUSY, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.ENXIO, errno.EPERM, errno.EROFS, errno.ESTALE),
}
"""Codes of an `OSError` about a user's file; any other one is a bug of handful and shows its traceback."""

of_sizes = functools.partial(typer.Option, rich_help_panel="Task sizes")
of_learner = functools.partial(typer.Option, rich_help_panel="Learner")
of_training = functools.partial(typer.Option, rich_help_panel="Training")

Command = TypeVar("Command", bound=Callable[..., None])


def group(name: str, words: str) -> typer.Typer:
    """A group of commands, called as `handful NAME ...`.

    words: the help of the group.
    """
    made = _application(name=name, help=words)
    app.add_typer(made, rich_help_panel=OF_SERVICE)
    return made


def command(
    example: str, name: str | None = None, *, within: typer.Typer | None = None, panel: str | None = None
) -> Callable[[Command], Command]:
    """A command whose help ends with an example, and whose errors are one sentence and an exit code.

    within: its group, if any. panel: its heading in `handful --help`.
    """

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def guarded(*arguments: Any, **options: Any) -> None:
            try:
                with notes():
                    function(*arguments, **options)
            except KeyboardInterrupt:
                err.print("Interrupted.")
                raise typer.Exit(INTERRUPTED) from None
            except (RuntimeError, MemoryError) as error:
                from handful.engine.memory import out_of_memory

                if not out_of_memory(error):
                    raise
                err.print(Text("Error:", "bold red"), "Out of memory. Use less data, or process fewer inputs at once.")
                raise typer.Exit(FAILED) from None
            except OSError as error:
                if error.errno not in REFUSED or error.filename is None:
                    raise
                err.print(Text("Error:", "bold red"), f"{error.filename} cannot be read or written ({error.strerror}).")
                raise typer.Exit(FAILED) from None
            except HandfulError as error:
                misused = isinstance(error, UserError) and not isinstance(error, DataError)
                err.print(Text("Error:", "bold red"), error.spelled(flag))
                raise typer.Exit(MISUSED if misused else FAILED) from None

        (within or app).command(name, epilog=f"Example: {example}", rich_help_panel=panel)(guarded)
        return function

    return register
