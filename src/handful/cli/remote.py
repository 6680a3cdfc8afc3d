"""What commands on a server share: connecting to it, finding tasks by name, and showing them."""

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from handful.cli import remote_tables
from handful.cli.flags import flag
from handful.cli.options import COLUMNS, NoLimitsOption
from handful.cli.terminal import err, out, print_json
from handful.errors import UserError, count_of

if TYPE_CHECKING:
    from handful.client.client import Client
    from handful.client.records import RemotePredictions, RemoteScores, RemoteTask

URL, KEY = "HANDFUL_URL", "HANDFUL_KEY"
PATIENCE = 300.0
"""Seconds for the requests of one command, which a person watches and can interrupt."""
ID = re.compile(r"task_[0-9a-f]{32}")

_of_server = functools.partial(typer.Option, rich_help_panel="Server")
SERVER: dict[str, Any] = {
    "url": Annotated[
        str | None, _of_server("--url", envvar=URL, help="Address of the server; default: http://127.0.0.1:8000.")
    ],
    "key": Annotated[
        str | None,
        _of_server("--key", envvar=KEY, help="API key. Prefer the variable: other users can see command lines."),
    ],
    "allow_http": Annotated[
        bool | None, _of_server("--allow-http", help="Allow sending the key unencrypted to another machine.")
    ],
}
"""Options that name the server and the API key."""

SENT = {name: COLUMNS[name] for name in ("label", "target", "text", "drop", "decimal", "dates", "encoding")} | {
    "no_limits": NoLimitsOption
}
"""Options for reading files whose content is sent unchanged."""

TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="Name or id of a task.")]
ExpectedOption = Annotated[
    int | None,
    typer.Option("--expected", min=1, help="Change the task only if it is at this version."),
]
VersionOption = Annotated[int | None, typer.Option("--version", min=1, help="A version; default: the current one.")]


@contextlib.contextmanager
def connected(server: dict[str, Any]) -> Iterator["Client"]:
    """A client of the server that the options name; in its errors, parts of a request are the options they are from."""
    from handful.client.client import Client
    from handful.client.remote_errors import RemoteError

    if not server["key"]:
        raise UserError(f"The server requires an API key. Set the environment variable {KEY}, or use --key.")
    url = server["url"] or "http://127.0.0.1:8000"
    with Client(url, server["key"], timeout=PATIENCE, allow_http=bool(server["allow_http"])) as client:
        try:
            yield client
        except RemoteError as error:
            if error.status == 401:
                raise UserError(
                    f"{url}: The API key is unknown, expired or revoked. Check {KEY}, or use --key."
                ) from error
            if error.status is None or (error.slug == "not-found" and not error.errors):
                raise error.about(url) from error
            for name in {one.get("pointer", "")[1:] for one in error.errors}:
                error.message = error.message.replace(f"/{name}", flag(name)) if name.isidentifier() else error.message
            raise


def id_called(client: "Client", name: str) -> str:
    """The id of the task of this name or id; an id may be that of a deleted task."""
    return name if ID.fullmatch(name) else task_called(client, name).id


def task_called(client: "Client", name: str) -> "RemoteTask":
    """The task of this name or id; `UserError` if none has it."""
    if ID.fullmatch(name):
        return client.get(name)
    found = next((task for task in client.tasks() if task.name == name), None)
    if found is None:
        raise UserError(f"The server has no task called {name!r}. List them with `handful tasks ls`.")
    return found


def deleted_called(client: "Client", name: str) -> str:
    """The id of the deleted task of this name or id; `UserError` if none has it, or several have the name."""
    if ID.fullmatch(name):
        return name
    found = [task.id for task in client.tasks(deleted=True) if task.name == name]
    if len(found) == 1:
        return found[0]
    many = "has several deleted tasks" if found else "has no deleted task"
    raise UserError(f"The server {many} called {name!r}. Use an id from `handful tasks ls --deleted`.")


def as_json(record: Any) -> Any:
    """A server's response as JSON values."""
    import msgspec

    return msgspec.to_builtins(record)


def show_task(task: "RemoteTask", json: bool) -> None:
    """Print a task after a change."""
    show_notes(task)
    if json:
        print_json(as_json(task))
    else:
        out.print(Text(task.name, "bold"), f"({task.id})")
        out.print(described(task))


def described(task: "RemoteTask") -> str:
    """A task in a few lines."""
    examples = "" if task.examples is None else f", adapted to {count_of(task.examples, 'example')}"
    facts = [f"version {task.version} of the model {task.model.name}{examples}", remote_tables.predicted(task)]
    if task.estimate is not None:
        facts.append(f"{remote_tables.estimate(task.estimate)}by leave-one-out")
    return "\n".join(f"  {fact}" for fact in facts)


def show_notes(answer: "RemoteTask | RemotePredictions | RemoteScores") -> None:
    """Print the server's notes on a request."""
    for note in answer.notes:
        times = f" ({note.count} times)" if note.count > 1 else ""
        err.print(Text("Note:", "yellow"), note.message + times)
