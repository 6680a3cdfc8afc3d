"""`handful tasks`: list, show, move, delete and erase tasks and their versions on a server."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from handful.cli import remote_tables
from handful.cli.application import command
from handful.cli.options import JsonOption, takes
from handful.cli.remote import (
    SERVER,
    ExpectedOption,
    TaskArgument,
    VersionOption,
    as_json,
    connected,
    deleted_called,
    described,
    id_called,
    show_task,
    task_called,
)
from handful.cli.tasks import tasks
from handful.cli.terminal import err, out, print_json
from handful.errors import UserError

NumberArgument = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Number of the version.")]


@command("handful tasks ls", name="ls", within=tasks)
@takes(SERVER, "server")
def list_tasks(
    server: dict[str, Any],
    deleted: Annotated[
        bool, typer.Option("--deleted", help="List the deleted tasks that are not yet erased instead.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the tasks, oldest first."""
    with connected(server) as client:
        found = list(client.tasks(deleted=deleted))
    if json:
        print_json([as_json(task) for task in found])
    elif found:
        out.print(remote_tables.tasks(found), soft_wrap=False)
    elif deleted:
        err.print("No task is deleted.")
    else:
        err.print("No tasks yet. Next: handful tasks create NAME FILES")


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
    out.print(f"\n{described(found)}\n")
    out.print(remote_tables.versions(versions, found.version), soft_wrap=False)
    if held is not None:
        out.print()
        out.print(remote_tables.examples(held), soft_wrap=False)


@command("handful tasks rename 'shelf 12' 'shelf 14'", within=tasks)
@takes(SERVER, "server")
def rename(
    server: dict[str, Any],
    task: TaskArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="New name; unique among your tasks.")],
    expected: ExpectedOption = None,
    json: JsonOption = False,
) -> None:
    """Rename a task. Makes no new version."""
    with connected(server) as client:
        changed = client.rename(task_called(client, task).id, name, expected=expected)
    show_task(changed, json)


@command("handful tasks rollback 'shelf 12' 1", within=tasks)
@takes(SERVER, "server")
def rollback(
    server: dict[str, Any],
    task: TaskArgument,
    version: NumberArgument,
    expected: ExpectedOption = None,
    json: JsonOption = False,
) -> None:
    """Switch a task to another version. No version is lost."""
    with connected(server) as client:
        changed = client.roll_back(task_called(client, task).id, version, expected=expected)
    show_task(changed, json)


@command("handful tasks pin 'shelf 12' 1", within=tasks)
@takes(SERVER, "server")
def pin(
    server: dict[str, Any],
    task: TaskArgument,
    version: NumberArgument,
    off: Annotated[bool, typer.Option("--off", help="Unpin it.")] = False,
    json: JsonOption = False,
) -> None:
    """Keep the state of a version ready to predict, however many versions follow."""
    with connected(server) as client:
        pinned = client.pin(task_called(client, task).id, version, not off)
    if json:
        print_json(as_json(pinned))
    else:
        out.print(f"Version {version} is {'pinned' if pinned.pinned else 'no longer pinned'}.")


@command("handful tasks readapt 'shelf 12'", within=tasks)
@takes(SERVER, "server")
def readapt(
    server: dict[str, Any], task: TaskArgument, expected: ExpectedOption = None, json: JsonOption = False
) -> None:
    """Re-adapt a task with the current model of its name, unless its score falls significantly."""
    with connected(server) as client:
        made = client.readapt(task_called(client, task).id, expected=expected)
    show_task(made, json)
    if not json:
        for when, score in (("before", made.before), ("after", made.after)):
            if score is not None:
                out.print(f"  {when}: {remote_tables.estimate(score)}")


@command("handful tasks delete 'shelf 12'", within=tasks)
@takes(SERVER, "server")
def delete(server: dict[str, Any], task: TaskArgument, expected: ExpectedOption = None) -> None:
    """Delete a task. It can be restored for 7 days; its name is free at once."""
    with connected(server) as client:
        found = task_called(client, task).id
        client.delete(found, expected=expected)
    out.print(f"Deleted. To restore it within 7 days: handful tasks restore {found}")


@command("handful tasks restore 'shelf 12'", within=tasks)
@takes(SERVER, "server")
def restore(server: dict[str, Any], task: TaskArgument, json: JsonOption = False) -> None:
    """Restore a task that was deleted in the last 7 days."""
    with connected(server) as client:
        restored = client.restore(deleted_called(client, task))
    show_task(restored, json)


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
    """Erase examples permanently from all versions of a task, and print a receipt."""
    if whole == bool(examples):
        raise UserError("Name the ids of the examples to erase, or use --whole-task.")
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
            out.print(f"  Remaining: version {receipt.version}, {receipt.digest}.")
        if receipt.remains is not None:
            out.print(f"  {receipt.remains}")


@command("handful tasks export 'shelf 12' -o shelf.task", within=tasks)
@takes(SERVER, "server")
def export(
    server: dict[str, Any],
    task: TaskArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="File for the adapted task.")],
    version: VersionOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Export a task to a file for `handful predict` or another server."""
    from handful.storage import write_bytes

    if output.exists() and not force:
        raise UserError(f"{output} already exists. Choose another name, or replace it with --force.")
    with connected(server) as client:
        content = client.export(task_called(client, task).id, version)
    write_bytes(output, content)
    out.print(f"Written: {output}, {len(content) / 1024:.0f} kB.")


@command("handful tasks import 'shelf 13' shelf.task", name="import", within=tasks)
@takes(SERVER, "server")
def import_task(
    server: dict[str, Any],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name for the task, which no other one of yours has.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="File made by `handful tasks export` or `handful adapt`.")
    ],
    json: JsonOption = False,
) -> None:
    """Import a task from a file. The server needs the task's model."""
    content = file.read_bytes()
    with connected(server) as client:
        made = client.import_task(name, content)
    show_task(made, json)
