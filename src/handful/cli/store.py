"""`handful store`: the store of a server, on its own machine."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from handful.cli.application import FAILED, command, group
from handful.cli.options import JsonOption, TrustOption
from handful.cli.terminal import out, print_json

store = group("store", "Back up, restore, upgrade and verify the store of a server, on its own machine.")

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store, the --data of `serve`.")]


@command("handful store backup ./store -o backup.sqlite3", within=store)
def backup(
    folder: StoreArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="File for the copy, which its owner alone may read.")],
) -> None:
    """Copy a store into one file, also while a server uses it."""
    from handful.serving.backups import backup as copy

    made = copy(folder, output)
    out.print(f"Written: {made}, {made.stat().st_size / 1024:,.0f} kB.")


@command("handful store restore backup.sqlite3 -o ./restored", within=store)
def restore(
    file: Annotated[Path, typer.Argument(metavar="BACKUP", help="A file of `store backup`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the store; new or empty.")],
) -> None:
    """Make a store from a backup, in a new folder."""
    from handful.serving.backups import restore as restored

    made = restored(file, output)
    out.print(f"Restored: {made}. Next: handful serve --model RUN --data {made}")


@command("handful store upgrade ./store", within=store)
def upgrade(
    place: Annotated[
        str, typer.Argument(metavar="STORE", help="Folder of the store, or postgresql://... of the tables' owner.")
    ],
    role: Annotated[
        str | None,
        typer.Option("--role", help="Role of PostgreSQL that the server logs in as; needed for a new database."),
    ] = None,
) -> None:
    """Bring a store to the schema of this version while no server uses it; a folder is copied first."""
    from handful.serving.opening import upgrade as upgraded

    copy = upgraded(place, role=role)
    before = "" if copy is None else f" As it was before: {copy}."
    out.print(f"The store has the schema of this version.{before}")


@command("handful store verify ./store", within=store)
def verify(
    place: Annotated[str, typer.Argument(metavar="STORE", help="Folder of the store, a backup, or postgresql://...")],
    every: Annotated[
        int, typer.Option("--every", min=0, help="Adapt one of so many versions anew, and compare; 0: none.")
    ] = 1,
    trust: TrustOption = None,
    json: JsonOption = False,
) -> None:
    """Check a store or a backup without changing it, also in use; exit code 1 if something is wrong."""
    from handful.serving.verification import verify as verified

    found = verified(place, every=every, trust=trust or ())
    if json:
        print_json(asdict(found))
    else:
        out.print(
            f"Looked at {found.tasks:,} tasks of {found.tenants:,} tenants with {found.versions:,} versions, of which "
            f"{found.adapted:,} were adapted anew: "
            f"{f'{len(found.findings):,} things are wrong' if found.findings else 'all is well'}."
        )
        for finding in found.findings:
            out.print(str(finding))
    if found.findings:
        raise typer.Exit(FAILED)
