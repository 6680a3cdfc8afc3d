"""Arguments of several commands: options of the user's data, and `--set`."""

import contextlib
import functools
import inspect
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from handful.data_options import DataOptions
from handful.errors import HandfulError, UserError, unknown_name
from handful.limits import LOCAL, UNLIMITED, Limits

if TYPE_CHECKING:
    from handful.workflows.experiment import Source

of_data = functools.partial(typer.Option, rich_help_panel="Your data")

TasksOption = Annotated[
    str,
    typer.Option(
        "--tasks", help="A data file, a folder of images or of tables, or a source of tasks (see `handful list`)."
    ),
]
STANDARD_INPUT = Path("-")
"""The name that stands for stdin."""

TrustOption = Annotated[
    list[str] | None,
    typer.Option(
        "--trust", help="Allow a network or encoder from this Python package, which runs its code; repeatable."
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        "--metric", help="Metric to score tasks by, such as auc, mae or cost:FILE; see docs/reference/cli.md."
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, mps, or auto (a GPU if available).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

NoLimitsOption = Annotated[
    bool | None, of_data("--no-limits", help="Read files of any size, even if they unpack to gigabytes.")
]


def _flags(wanted: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    """The options of the user's data, as flags, whose metadata satisfy `wanted`."""
    kinds = get_type_hints(DataOptions)
    return {
        option.name: Annotated[
            list[str] | None if option.default == () else kinds[option.name], of_data(help=option.metadata["help"])
        ]
        for option in fields(DataOptions)
        if wanted(option.metadata)
    }


COLUMNS = _flags(lambda option: not option["settled"])
"""Options that say what the columns of the user's data are."""

FILE = _flags(lambda option: option["of_file"])
"""Options that say how one file is written."""

DATA = _flags(lambda option: True) | {"no_limits": NoLimitsOption}
"""All options of the user's data; a trained model fixes those of splitting and encoding."""


@contextlib.contextmanager
def file_of(path: str | Path) -> Iterator[Path]:
    """The path of a file that can be read repeatedly: JSON lines from stdin are copied to a temporary one."""
    if Path(path) != STANDARD_INPUT:
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "stdin.jsonl").open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield Path(file.name)
        except HandfulError as error:
            error.message = error.message.replace(file.name, "Standard input")
            raise


def limits_of(no_limits: bool | None) -> Limits:
    """The limits on the size of the user's files."""
    return UNLIMITED if no_limits else LOCAL


def takes(options: dict[str, Any], parameter: str = "data") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add these options to a command, whose function receives their values as one dictionary."""

    def taking(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**given: Any) -> None:
            function(**{parameter: {name: given.pop(name) for name in options}}, **given)

        keyword = inspect.Parameter.KEYWORD_ONLY
        more = [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in options.items()]
        given = inspect.signature(function).parameters.values()
        own = [one.replace(kind=keyword) for one in given if one.name != parameter]
        command.__signature__ = inspect.Signature([*more, *own])  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in (*more, *own)}
        return command

    return taking


def source_of(tasks: str, data: dict[str, Any], seed: int = 0) -> "Source":
    """The source of tasks that the arguments name."""
    from handful.workflows.experiment import Source

    if os.path.exists(tasks):  # one path for one thing, from whatever folder it is opened again
        tasks = str(Path(tasks).resolve())
    for name in ("encoder", "test"):
        if (path := data.get(name)) and os.path.exists(path):
            data = data | {name: str(Path(path).resolve())}
    return Source(tasks, seed=seed, **data)


def assignments(given: list[str] | None) -> dict[str, dict[str, Any]]:
    """`--set [PART.]name=value` by part: "" (the learner), "backbone", "training". Values are JSON or texts."""
    parts: dict[str, dict[str, Any]] = {"": {}, "backbone": {}, "training": {}}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"--set takes NAME=VALUE, not {text!r}, as in --set inner_lr=0.05.")
        try:
            parsed = json.loads(value, parse_constant=str)  # NaN and Infinity are no JSON
        except ValueError:
            parsed = value
        part, dot, rest = name.partition(".")
        if dot and part not in parts:
            raise unknown_name("part in --set", part, [part for part in parts if part])
        parts[part if dot else ""][rest if dot else name] = parsed
    return parts
