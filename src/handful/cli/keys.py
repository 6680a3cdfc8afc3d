"""`handful keys`: API keys of a server."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from handful.cli import remote_tables
from handful.cli.application import command, group
from handful.cli.options import JsonOption, takes
from handful.cli.remote import SERVER, as_json, connected
from handful.cli.terminal import err, out, print_json
from handful.errors import UserError

if TYPE_CHECKING:
    from handful.client.records import RemoteKey

keys = group("keys", "List, create, rotate and revoke the API keys of a server. Needs an admin key.")

TenantOption = Annotated[str | None, typer.Option("--tenant", help="Tenant of the key; default: your own.")]
KeyArgument = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `keys ls` lists it.")]


@command("handful keys ls", name="ls", within=keys)
@takes(SERVER, "server")
def list_keys(server: dict[str, Any], tenant: TenantOption = None, json: JsonOption = False) -> None:
    """List the keys, from the oldest, without their secrets."""
    with connected(server) as client:
        found = list(client.keys(tenant=tenant))
    if json:
        print_json(as_json(found))
    else:
        out.print(remote_tables.keys(found), soft_wrap=False)


@command("handful keys create scanner --scope predict --until 2030-01-31", within=keys)
@takes(SERVER, "server")
def create(
    server: dict[str, Any],
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name for the key, such as its purpose.")],
    scope: Annotated[
        str, typer.Option("--scope", help="predict; write: also change tasks; admin: also manage keys.")
    ] = "predict",
    tenant: TenantOption = None,
    until: Annotated[
        str | None,
        typer.Option("--until", help="Day on which it expires (UTC), such as 2030-01-31; default: never."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Create a key and print it, this once."""
    expires = None if until is None else _day(until)
    with connected(server) as client:
        made = client.create_key(name, scope, tenant=tenant, expires_at=expires)
    _show(made, json)


@command("handful keys rotate ID --hours 1", within=keys)
@takes(SERVER, "server")
def rotate(
    server: dict[str, Any],
    id_: KeyArgument,
    hours: Annotated[
        float | None,
        typer.Option("--hours", min=0, help="Hours until the old key expires; default: 24."),
    ] = None,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Create a new key to replace another one, which expires after some hours."""
    with connected(server) as client:
        made = client.rotate_key(id_, overlap=None if hours is None else 3600 * hours, tenant=tenant)
    _show(made, json)


@command("handful keys revoke ID", within=keys)
@takes(SERVER, "server")
def revoke(server: dict[str, Any], id_: KeyArgument, tenant: TenantOption = None) -> None:
    """Revoke a key at once."""
    with connected(server) as client:
        client.revoke_key(id_, tenant=tenant)
    out.print(f"The key {id_} is revoked.")


def _day(written: str) -> datetime:
    """When a day begins."""
    try:
        return datetime.strptime(written, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise UserError(f"{written!r} is not a day.", hint="Write {until} as 2030-01-31.") from error


def _show(key: "RemoteKey", json: bool) -> None:
    if key.token is None:
        raise UserError(f"The answer with the key {key.id} was lost, and it is not shown again. Rotate it.")
    if json:
        print_json(as_json(key))
        return
    out.print(Text(key.name, "bold"), f"({key.id}, scope {key.scope})")
    out.print(key.token)
    err.print("Store it as a secret: it is not shown again.")
