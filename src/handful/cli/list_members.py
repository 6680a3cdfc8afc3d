"""`handful list`."""

from typing import Annotated, Any

import typer
from rich.text import Text

from handful.cli import tables
from handful.cli.application import command
from handful.cli.options import (
    JsonOption,
)
from handful.cli.terminal import flowing, is_code, out, print_json


@command("handful list maml", name="list")
def list_members(
    name: Annotated[str | None, typer.Argument(help="A learner, source of tasks or backbone to describe.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List learners, sources of tasks and backbones, or describe one."""
    from handful.workflows.catalog import catalog, entry

    found: dict[str, Any] = catalog() if name is None else entry(name)
    if as_json:
        print_json(found)
    elif name is None:
        for noun, members in found.items():
            out.print(tables.members(noun, members))
            out.print()
    else:
        out.print(Text(name, "bold"), f"({found['noun']})")
        for block in flowing(found["text"]).split("\n\n"):
            out.print(f"\n{block}", soft_wrap=is_code(block))
        if found["options"]:
            out.print()
            out.print(tables.options(found["options"]))
