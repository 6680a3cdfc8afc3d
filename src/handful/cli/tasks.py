"""`handful tasks`: create, change and evaluate tasks on a server, and predict with them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from handful.cli import remote_tables
from handful.cli.application import command, group
from handful.cli.options import JsonOption, limits_of, takes
from handful.cli.remote import (
    SENT,
    SERVER,
    ExpectedOption,
    TaskArgument,
    VersionOption,
    as_json,
    connected,
    show_notes,
    show_task,
    task_called,
)
from handful.cli.tables import PredictionLines
from handful.cli.terminal import out, print_csv, print_json, print_json_list
from handful.data_options import DataOptions
from handful.errors import UserError, count_of

if TYPE_CHECKING:
    from handful.client.records import RemoteScores
    from handful.workflows.raw_examples import RawExamples

tasks = group("tasks", "Create, change, roll back and erase tasks on a server of `handful serve`, and predict.")

FilesArgument = Annotated[
    list[Path], typer.Argument(metavar="FILES", help="Labeled examples: folders of class folders, tables, npz files.")
]
EstimateOption = Annotated[
    bool, typer.Option("--estimate", help="Also estimate the score of the task, by leave-one-out.")
]


@command("handful tasks create 'shelf 12' new-customer/", within=tasks)
@takes(SENT)
@takes(SERVER, "server")
def create(
    server: dict[str, Any],
    data: dict[str, Any],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name for the task; unique among your tasks.")],
    files: FilesArgument,
    model: Annotated[str | None, typer.Option(help="Name of the model; required if the server has several.")] = None,
    forget: Annotated[
        bool,
        typer.Option(
            "--forget-examples", help="Do not keep the examples on the server. The task can then not be changed."
        ),
    ] = False,
    estimate: EstimateOption = False,
    json: JsonOption = False,
) -> None:
    """Create a task on the server from a few labeled examples."""
    given = _examples(files, data)
    with connected(server) as client:
        made = client.create(name, given.inputs, given.labels, model=model, keep_examples=not forget, estimate=estimate)
    show_task(made, json)


@command("handful tasks predict 'shelf 12' inbox/ --json", within=tasks)
@takes(SENT)
@takes(SERVER, "server")
def predict(
    server: dict[str, Any],
    data: dict[str, Any],
    task: TaskArgument,
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUTS", help="Images, tables, npz files or folders of them.")
    ],
    version: VersionOption = None,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="Number of most probable classes in --json and --csv; default: all."),
    ] = None,
    json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Predict with a task on the server, one line per input."""
    from handful.workflows.raw_examples import raw_inputs

    if json and csv:
        raise UserError("Give --json or --csv, not both.")
    no_limits = data.pop("no_limits")
    given = raw_inputs(inputs, DataOptions(**data), limits_of(no_limits))
    with connected(server) as client:
        made = client.predict(task_called(client, task).id, given.inputs, version=version, top=top)
    show_notes(made)
    rows = [{"id": id_} | one.to_json() for id_, one in zip(given.ids, made.predictions, strict=True)]
    if json:
        print_json_list([rows])
    elif csv:
        print_csv([rows])
    else:
        out.print(PredictionLines().text(rows))


@command("handful tasks evaluate 'shelf 12'", within=tasks)
@takes(SENT)
@takes(SERVER, "server")
def evaluate(
    server: dict[str, Any],
    data: dict[str, Any],
    task: TaskArgument,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILES]", help="Labeled examples as for `create`; default: the task's own, by leave-one-out."
        ),
    ] = None,
    version: VersionOption = None,
    json: JsonOption = False,
) -> None:
    """Evaluate a task on labeled examples, or on its own by leave-one-out."""
    given = _examples(files, data) if files else None
    with connected(server) as client:
        found = task_called(client, task)
        scores = client.evaluate(found.id, given and given.inputs, given and given.labels, version=version)
    show_notes(scores)
    if json:
        print_json(as_json(scores))
        return
    out.print(Text(found.name, "bold"), f"version {scores.version}, {_scored_on(scores)}")
    for one in scores.estimates:
        out.print(f"  {remote_tables.estimate(one)}")
    if scores.confusion is not None:
        out.print()
        out.print(remote_tables.confusion(scores.confusion), soft_wrap=False)


@command("handful tasks add 'shelf 12' more/", within=tasks)
@takes(SENT)
@takes(SERVER, "server")
def add(
    server: dict[str, Any],
    data: dict[str, Any],
    task: TaskArgument,
    files: FilesArgument,
    expected: ExpectedOption = None,
    estimate: EstimateOption = False,
    json: JsonOption = False,
) -> None:
    """Add examples, which may be of new classes. Makes a new version."""
    given = _examples(files, data)
    with connected(server) as client:
        found = task_called(client, task).id
        changed = client.add(found, given.inputs, given.labels, expected=expected, estimate=estimate)
    show_task(changed, json)


@command("handful tasks correct 'shelf 12' more/", within=tasks)
@takes(SENT)
@takes(SERVER, "server")
def correct(
    server: dict[str, Any],
    data: dict[str, Any],
    task: TaskArgument,
    files: FilesArgument,
    expected: ExpectedOption = None,
    estimate: EstimateOption = False,
    json: JsonOption = False,
) -> None:
    """Correct the labels of inputs, or add them as examples. Makes a new version."""
    given = _examples(files, data)
    with connected(server) as client:
        found = task_called(client, task).id
        changed = client.correct(found, given.inputs, given.labels, expected=expected, estimate=estimate)
    show_task(changed, json)


@command("handful tasks remove 'shelf 12' EXAMPLE", within=tasks)
@takes(SERVER, "server")
def remove(
    server: dict[str, Any],
    task: TaskArgument,
    example: Annotated[
        str, typer.Argument(metavar="EXAMPLE", help="Id of an example, as `tasks show --examples` lists it.")
    ],
    expected: ExpectedOption = None,
    json: JsonOption = False,
) -> None:
    """Remove an example. Makes a new version; earlier ones keep it (see `tasks erase`)."""
    with connected(server) as client:
        changed = client.remove(task_called(client, task).id, example, expected=expected)
    show_task(changed, json)


def _examples(files: list[Path], data: dict[str, Any]) -> "RawExamples":
    from handful.workflows.raw_examples import raw_examples

    no_limits = data.pop("no_limits")
    return raw_examples(files, DataOptions(**data), limits_of(no_limits))


def _scored_on(scores: "RemoteScores") -> str:
    if scores.by == "leave-one-out":
        return f"on its own {count_of(scores.examples, 'example')}, by leave-one-out"
    return f"on {count_of(scores.examples, 'given example')}"
