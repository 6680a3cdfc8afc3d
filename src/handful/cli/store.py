"""`handful store`: manage the store of a server."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from handful.cli.application import FAILED, command, group
from handful.cli.options import JsonOption, TrustOption
from handful.cli.terminal import out, print_json
from handful.errors import count_of

store = group("store", "Back up, restore, upgrade and verify the store of a server. Run it on the server's machine.")

StoreArgument = Annotated[
    Path, typer.Argument(metavar="STORE", help="Folder of the store: the --data of `handful serve`.")
]


@command("handful store backup ./store -o backup.sqlite3", within=store)
def backup(
    folder: StoreArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="File for the backup; only its owner can read it.")],
) -> None:
    """Back a store up to one file, even while a server uses it."""
    from handful.serving.backups import backup as copy

    made = copy(folder, output)
    out.print(f"Written: {made}, {made.stat().st_size / 1024:,.0f} kB.")


@command("handful store restore backup.sqlite3 -o ./restored", within=store)
def restore(
    file: Annotated[Path, typer.Argument(metavar="BACKUP", help="A file made by `handful store backup`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the store; new or empty.")],
) -> None:
    """Restore a store from a backup, into a new folder."""
    from handful.serving.backups import restore as restored

    made = restored(file, output)
    out.print(f"Restored: {made}. Next: handful serve --model RUN --data {made}")


@command("handful store upgrade ./store", within=store)
def upgrade(
    place: Annotated[
        str,
        typer.Argument(metavar="STORE", help="Folder of the store, or postgresql://... as the owner of the tables."),
    ],
    role: Annotated[
        str | None,
        typer.Option("--role", help="PostgreSQL role of the server; required for a new database."),
    ] = None,
) -> None:
    """Upgrade a store to the schema of this version, after a backup. Stop its server first."""
    from handful.serving.opening import upgrade as upgraded

    copy = upgraded(place, role=role)
    before = "" if copy is None else f" Backup of the old one: {copy}."
    out.print(f"The store has the schema of this version.{before}")


@command("handful store verify ./store", within=store)
def verify(
    place: Annotated[str, typer.Argument(metavar="STORE", help="Folder of the store, a backup, or postgresql://...")],
    every: Annotated[
        int, typer.Option("--every", min=0, help="Re-adapt one in so many versions and compare the results; 0: none.")
    ] = 1,
    trust: TrustOption = None,
    json: JsonOption = False,
) -> None:
    """Check a store or a backup without changing it, even while in use; exit code 1 if damaged."""
    from handful.serving.verification import verify as verified

    found = verified(place, every=every, trust=trust or ())
    if json:
        print_json(asdict(found))
    else:
        out.print(
            f"Checked {count_of(found.tasks, 'task')} of {count_of(found.tenants, 'tenant')} with "
            f"{count_of(found.versions, 'version')}, re-adapted {found.adapted:,} of them: "
            f"{count_of(len(found.findings), 'problem') if found.findings else 'no problems'} found."
        )
        for finding in found.findings:
            out.print(str(finding))
    if found.findings:
        raise typer.Exit(FAILED)
