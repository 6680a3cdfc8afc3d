"""`handful tasks`: tasks on a server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from handful.cli import remote_tables
from handful.cli.application import command, group
from handful.cli.options import JsonOption, limits_of, takes
from handful.cli.remote import SENT, SERVER, TaskArgument, as_json, connected, id_called, task_called
from handful.cli.tables import PredictionLines
from handful.cli.terminal import err, out, print_csv, print_json, print_json_list
from handful.data_options import DataOptions
from handful.errors import UserError

if TYPE_CHECKING:
    from handful.client.records import RemotePredictions, RemoteTask
    from handful.workflows.raw_examples import RawExamples

tasks = group("tasks", "Create, predict, correct, roll back and erase tasks on a server of `handful serve`.")

FilesArgument = Annotated[
    list[Path], typer.Argument(metavar="FILES", help="Labeled examples: folders of class folders, tables, npz files.")
]
ExpectedOption = Annotated[
    int | None,
    typer.Option("--expected", min=1, help="Change the task only if it is at this version."),
]
VersionOption = Annotated[
    int | None, typer.Option("--version", min=1, help="A version; by default the one that predicts now.")
]


@command("handful tasks ls", name="ls", within=tasks)
@takes(SERVER, "server")
def list_tasks(
    server: dict[str, Any],
    deleted: Annotated[
        bool, typer.Option("--deleted", help="List those that are deleted and not yet erased, in place of the others.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the tasks, from the oldest."""
    with connected(server) as client:
        found = list(client.tasks(deleted=deleted))
    if json:
        print_json([as_json(task) for task in found])
    elif found:
        out.print(remote_tables.tasks(found), soft_wrap=False)
    elif deleted:
        err.print("No task is deleted.")
    else:
        err.print("There is no task yet. Next: handful tasks create NAME FILES")


@command("handful tasks show 'shelf 12' --examples", within=tasks)
@takes(SERVER, "server")
def show(
    server: dict[str, Any],
    task: TaskArgument,
    examples: Annotated[bool, typer.Option("--examples", help="Also list its examples, with their ids.")] = False,
    json: JsonOption = False,
) -> None:
    """Show a task with its versions."""
    with connected(server) as client:
        found = task_called(client, task)
        versions = list(client.versions(found.id))
        held = list(client.examples(found.id)) if examples else None
    if json:
        facts = as_json(found) | {"versions": as_json(versions)}
        print_json(facts if held is None else facts | {"support": as_json(held)})
        return
    out.print(Text(found.name, "bold"), f"({found.id})")
    out.print(f"\n{_described(found)}\n")
    out.print(remote_tables.versions(versions, found.version), soft_wrap=False)
    if held is not None:
        out.print()
        out.print(remote_tables.examples(held), soft_wrap=False)


@command("handful tasks create 'shelf 12' new-customer/", within=tasks)
@takes(SENT)
@takes(SERVER, "server")
def create(
    server: dict[str, Any],
    data: dict[str, Any],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name for the task, which no other one of yours has.")],
    files: FilesArgument,
    model: Annotated[str | None, typer.Option(help="Name of the model; needed if the server has several.")] = None,
    forget: Annotated[
        bool, typer.Option("--forget-examples", help="The server keeps no examples; then the task cannot change.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Create a task on the server from a few labeled examples."""
    given = _examples(files, data)
    with connected(server) as client:
        made = client.create(name, given.inputs, given.labels, model=model, keep_examples=not forget)
    _show(made, json)


@command("handful tasks add 'shelf 12' more/", within=tasks)
@takes(SENT)
@takes(SERVER, "server")
def add(
    server: dict[str, Any],
    data: dict[str, Any],
    task: TaskArgument,
    files: FilesArgument,
    expected: ExpectedOption = None,
    json: JsonOption = False,
) -> None:
    """Add examples, also of new classes: a new version of the task."""
    given = _examples(files, data)
    with connected(server) as client:
        changed = client.add(task_called(client, task).id, given.inputs, given.labels, expected=expected)
    _show(changed, json)


@command("handful tasks correct 'shelf 12' more/", within=tasks)
@takes(SENT)
@takes(SERVER, "server")
def correct(
    server: dict[str, Any],
    data: dict[str, Any],
    task: TaskArgument,
    files: FilesArgument,
    expected: ExpectedOption = None,
    json: JsonOption = False,
) -> None:
    """Give inputs their right labels, whether they are among the examples or not: a new version of the task."""
    given = _examples(files, data)
    with connected(server) as client:
        changed = client.correct(task_called(client, task).id, given.inputs, given.labels, expected=expected)
    _show(changed, json)


@command("handful tasks predict 'shelf 12' inbox/ --json", within=tasks)
@takes(SENT)
@takes(SERVER, "server")
def predict(
    server: dict[str, Any],
    data: dict[str, Any],
    task: TaskArgument,
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUTS", help="Images, tables, npz files, folders of them.")],
    version: VersionOption = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="How many classes have a probability, in --json and --csv.")
    ] = None,
    json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Predict with a task on the server: a line for each input."""
    from handful.workflows.raw_examples import raw_inputs

    if json and csv:
        raise UserError("Give --json or --csv, not both.")
    no_limits = data.pop("no_limits")
    given = raw_inputs(inputs, DataOptions(**data), limits_of(no_limits))
    with connected(server) as client:
        made = client.predict(task_called(client, task).id, given.inputs, version=version, top=top)
    _note(made)
    rows = [{"id": id_} | one.to_json() for id_, one in zip(given.ids, made.predictions, strict=True)]
    if json:
        print_json_list([rows])
    elif csv:
        print_csv([rows])
    else:
        out.print(PredictionLines().text(rows))


@command("handful tasks rollback 'shelf 12' 1", within=tasks)
@takes(SERVER, "server")
def rollback(
    server: dict[str, Any],
    task: TaskArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Number of the version.")],
    expected: ExpectedOption = None,
    json: JsonOption = False,
) -> None:
    """Let another version of a task predict from now on; no version is lost."""
    with connected(server) as client:
        changed = client.roll_back(task_called(client, task).id, version, expected=expected)
    _show(changed, json)


@command("handful tasks erase 'shelf 12' EXAMPLE", within=tasks)
@takes(SERVER, "server")
def erase(
    server: dict[str, Any],
    task: TaskArgument,
    examples: Annotated[
        list[str] | None,
        typer.Argument(metavar="[EXAMPLES]", help="Ids of examples, as `tasks show --examples` lists them."),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole-task", help="Erase the task with all its examples and versions.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Erase examples from all versions of a task, for ever, and print a receipt for each."""
    if whole == bool(examples):
        raise UserError("Give the ids of the examples to erase, or --whole-task.")
    with connected(server) as client:
        found = id_called(client, task)
        receipts = [client.erase_task(found)] if whole else [client.erase(found, one) for one in examples or ()]
    if json:
        print_json(as_json(receipts))
        return
    for receipt in receipts:
        what = "The task" if receipt.version is None else f"The example {', '.join(receipt.examples)}"
        out.print(f"{what} is erased. Receipt {receipt.id}, {receipt.finished_at:%Y-%m-%d %H:%M:%S} UTC.")
        if receipt.version is not None:
            out.print(f"  What is left: version {receipt.version}, {receipt.digest}.")
        if receipt.remains is not None:
            out.print(f"  {receipt.remains}")


@command("handful tasks export 'shelf 12' -o shelf.task", within=tasks)
@takes(SERVER, "server")
def export(
    server: dict[str, Any],
    task: TaskArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="File for the adapted task.")],
    version: VersionOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Write a task of the server to a file, which `handful predict` and other servers read."""
    from handful.storage import write_bytes

    if output.exists() and not force:
        raise UserError(f"{output} is there already. Give another name, or --force to replace it.")
    with connected(server) as client:
        content = client.export(task_called(client, task).id, version)
    write_bytes(output, content)
    out.print(f"Written: {output}, {len(content) / 1024:.0f} kB.")


@command("handful tasks import 'shelf 13' shelf.task", name="import", within=tasks)
@takes(SERVER, "server")
def import_task(
    server: dict[str, Any],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name for the task, which no other one of yours has.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File of `tasks export` or `handful adapt`.")],
    json: JsonOption = False,
) -> None:
    """Make a task on the server from the file of one; the server needs its model."""
    content = file.read_bytes()
    with connected(server) as client:
        made = client.import_task(name, content)
    _show(made, json)


def _examples(files: list[Path], data: dict[str, Any]) -> "RawExamples":
    from handful.workflows.raw_examples import raw_examples

    no_limits = data.pop("no_limits")
    return raw_examples(files, DataOptions(**data), limits_of(no_limits))


def _show(task: "RemoteTask", json: bool) -> None:
    """Print what became of a task."""
    _note(task)
    if json:
        print_json(as_json(task))
    else:
        out.print(Text(task.name, "bold"), f"({task.id})")
        out.print(_described(task))


def _described(task: "RemoteTask") -> str:
    examples = "" if task.examples is None else f", adapted to {task.examples} examples"
    facts = [f"version {task.version} of the model {task.model.name}{examples}", remote_tables.predicted(task)]
    return "\n".join(f"  {fact}" for fact in facts)


def _note(answer: "RemoteTask | RemotePredictions") -> None:
    for note in answer.notes:
        times = f" ({note.count} times)" if note.count > 1 else ""
        err.print(Text("Note:", "yellow"), note.message + times)
