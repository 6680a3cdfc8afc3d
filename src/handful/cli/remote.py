"""What commands on a server share: which one, and the tasks on it by their names."""

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handful.cli.options import COLUMNS, NoLimitsOption
from handful.errors import UserError

if TYPE_CHECKING:
    from handful.client.client import Client
    from handful.client.records import RemoteTask

URL, KEY = "HANDFUL_URL", "HANDFUL_KEY"
PATIENCE = 300.0
"""Seconds for one command's requests: a person sees that it works on, and may interrupt it."""
ID = re.compile(r"task_[0-9a-f]{32}")

_of_server = functools.partial(typer.Option, rich_help_panel="Server")
SERVER: dict[str, Any] = {
    "url": Annotated[
        str | None, _of_server("--url", envvar=URL, help="Its address; http://127.0.0.1:8000 by default.")
    ],
    "key": Annotated[
        str | None,
        _of_server("--key", envvar=KEY, help="An API key. Better set the variable: others see what is typed here."),
    ],
    "allow_http": Annotated[
        bool | None, _of_server("--allow-http", help="Send the key without encryption to another machine.")
    ],
}
"""Options that say which server, and who asks."""

SENT = {name: COLUMNS[name] for name in ("label", "target", "text", "drop", "decimal", "dates", "encoding")} | {
    "no_limits": NoLimitsOption
}
"""Options of files whose content is sent as it is."""

TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="A task's name, or its id.")]


@contextlib.contextmanager
def connected(server: dict[str, Any]) -> Iterator["Client"]:
    """A client of the server that the options name."""
    from handful.client.client import Client

    if not server["key"]:
        raise UserError(f"The server wants an API key. Put it into the environment, as {KEY}, or give it by --key.")
    url = server["url"] or "http://127.0.0.1:8000"
    with Client(url, server["key"], timeout=PATIENCE, allow_http=bool(server["allow_http"])) as client:
        yield client


def id_called(client: "Client", name: str) -> str:
    """The id of the task of this name or id; an id may be that of a deleted task."""
    return name if ID.fullmatch(name) else task_called(client, name).id


def task_called(client: "Client", name: str) -> "RemoteTask":
    """The task of this name or id; `UserError` where there is none."""
    if ID.fullmatch(name):
        return client.get(name)
    found = next((task for task in client.tasks() if task.name == name), None)
    if found is None:
        raise UserError(f"The server has no task called {name!r}. `handful tasks ls` lists those that it has.")
    return found


def as_json(record: Any) -> Any:
    """What a server answered, as JSON has it."""
    import msgspec

    return msgspec.to_builtins(record)
