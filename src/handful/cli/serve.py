"""`handful serve`."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from handful.cli.application import OF_SERVICE, command
from handful.cli.terminal import out
from handful.errors import UserError

if TYPE_CHECKING:
    from handful.serving.service import Service


def of_server(name: str, variable: str = "", **facts: Any) -> Any:
    """An option that has an environment variable too: --behind-proxy is HANDFUL_BEHIND_PROXY."""
    variable = variable or "HANDFUL_" + name.removeprefix("--").replace("-", "_").upper()
    return typer.Option(name, envvar=variable, show_envvar=True, **facts)


@command("handful serve --model runs/photos --data ./store", panel=OF_SERVICE)
def serve(
    model: Annotated[list[str], of_server("--model", help="A run or model; for several, NAME=PATH each. Repeatable.")],
    data: Annotated[
        Path, of_server("--data", "HANDFUL_DATA_FOLDER", help="Folder of the store; created if missing.")
    ] = Path("store"),
    store: Annotated[
        str | None,
        of_server(
            "--store",
            "HANDFUL_DATABASE",
            help="Address of a PostgreSQL database to use in place of the folder.",
        ),
    ] = None,
    host: Annotated[
        str,
        of_server("--host", help="Address to listen on; one that other machines reach needs TLS or --behind-proxy."),
    ] = "127.0.0.1",
    port: Annotated[int, of_server("--port", min=0, max=65535, help="Port; 0: any free one.")] = 8000,
    behind_proxy: Annotated[
        bool,
        of_server(
            "--behind-proxy", help="Serve without TLS behind your proxy, which has TLS and alone reaches this port."
        ),
    ] = False,
    tls_cert: Annotated[Path | None, of_server("--tls-cert", help="Certificate for TLS (PEM).")] = None,
    tls_key: Annotated[Path | None, of_server("--tls-key", help="Private key of the certificate (PEM).")] = None,
    admin_key: Annotated[
        str | None,
        of_server(
            "--admin-key",
            help="Your own admin key, 32 characters or more; by default the first start creates and prints one.",
        ),
    ] = None,
    trust: Annotated[
        list[str] | None,
        of_server(
            "--trust", help="Allow a network or encoder from this Python package, which runs its code; repeatable."
        ),
    ] = None,
) -> None:
    """Serve predictions over HTTP: tasks adapted from a few examples and kept in a store.

    Limits are environment variables HANDFUL_MAX_...; docs/reference/configuration.md lists them.
    """
    from handful.cli.serve_limits import limits_of
    from handful.http.app import make_app
    from handful.http.server import Address, end_soon, run
    from handful.http.uploads import emptied
    from handful.serving.service import Service

    address = Address(host, port, behind_proxy=behind_proxy, certificate=tls_cert, key=tls_key)
    address.check()
    models, limits = named_models(model), limits_of(os.environ)
    opened = partial(Service, max_bytes=limits.state_bytes, quotas=limits.quotas, trust=trust or ())
    with address.bound() as listener, written_log(), opened(models, store or data) as service:
        first = service.keys.first_admin(admin_key)
        url, key = address.url(listener), first.token if first else None
        run(
            make_app(service, limits.requests, spool=emptied(Path(data, "uploads"))),
            listener,
            address,
            lambda: welcome(service, url, key, Path(next(iter(models.values())))),
        )
        end_soon()


def named_models(given: list[str]) -> dict[str, str | Path]:
    """Paths of models by name; without a name, that of the folder."""
    models: dict[str, str | Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = Path(text).resolve().name, text
        if name in models:
            raise UserError(f"Two models have the name {name!r}.", hint="Give each a name: {model} NAME=PATH.")
        models[name] = path
    return models


@contextlib.contextmanager
def written_log() -> Iterator[None]:
    """Within this context, the log goes to stderr: a line of JSON for each request, alarm and error."""
    from handful.serving.log_lines import OTHERS, OURS, LineFormatter

    handler, logs = logging.StreamHandler(sys.stderr), [logging.getLogger(name) for name in (*OURS, *OTHERS)]
    handler.setFormatter(LineFormatter())
    before = [(log.level, log.propagate) for log in logs]
    for log in logs:
        log.addHandler(handler)
        log.propagate = False
        if log.name in OURS:
            log.setLevel(logging.INFO)
    try:
        yield
    finally:
        for log, (level, propagate) in zip(logs, before, strict=True):
            log.removeHandler(handler)
            log.setLevel(level)
            log.propagate = propagate


def welcome(service: "Service", url: str, key: str | None, run: Path | None = None) -> None:
    """Print where the server is, and what to send first.

    key: the admin key, if it was just created. run: that of the first model, for its example images.
    """
    from handful.http.first_steps import IMAGES, first_steps

    name, model = next(iter(service.models.items()))
    images = sorted(run.glob("new-task/examples/*/*.png")) if run else []
    create, predict = first_steps(model, name, url, (images[0], images[-1]) if images else IMAGES)
    out.print(Text("Serving", "bold"), f"{', '.join(service.models)} at {url}, API page: {url}/docs.")
    if key is not None:
        out.print(Text("\nAdmin key", "bold"), f"(not shown again):\n  {key}")
    out.print(Text("\nFirst steps", "bold"), "(in another terminal, in this folder):")
    out.print(f"  KEY={key or '...'}\n  {create}\n  TASK=...  # the id in the response\n  {predict}")
    sys.stdout.flush()
