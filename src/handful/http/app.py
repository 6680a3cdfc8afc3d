"""The application: all routes over one service, and one shape for all that goes wrong."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from handful import __version__
from handful.errors import HandfulError
from handful.http import admin, examples, health, models, pages, predicting, tasks, versions
from handful.http.calls import Server
from handful.http.documents import openapi_of
from handful.http.limits import DEFAULTS, RequestLimits
from handful.http.middleware import Around
from handful.http.problems import Problem, of_error, of_framework, of_validation
from handful.http.purging import purge_hourly
from handful.http.short_way import ShortWay
from handful.http.telemetry import Telemetry
from handful.serving.batcher import Batcher
from handful.serving.service import Service

TEXT = """Tasks adapted from a few examples: created, predicted, corrected, rolled back and erased.

To try a request here, paste an API key after **Authorize**. Errors are problems (RFC 9457), whose `type` is the address
of a page of this server that explains them.
"""


PROBLEMS: dict[type[Exception], Any] = {
    HandfulError: of_error,
    RequestValidationError: of_validation,
    HTTPException: of_framework,
}
"""Errors with their own problems; all others are `problems.UNEXPECTED`."""


def make_app(service: Service, limits: RequestLimits = DEFAULTS, spool: Path | None = None) -> FastAPI:
    """The service behind HTTP, as an ASGI application.

    service: what does the work; it stays open.
    limits: of each request.
    spool: a folder for uploads while they are worked on; by default the system's for what is temporary.
    """
    spool = Path(tempfile.gettempdir()) if spool is None else spool
    app, server = routes(), Server(service, Batcher(service), limits, spool)
    app.state.ready, app.state.until, app.state.server, app.state.telemetry = True, None, server, Telemetry(server)
    app.state.short_way = ShortWay(server, app.state.telemetry.count)
    app.add_middleware(Around, count=app.state.telemetry.count)
    return app


def routes() -> FastAPI:
    """All routes, without a service."""
    app = FastAPI(
        title="handful",
        version=__version__,
        description=TEXT,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        lifespan=_until_closed,
    )
    for module in (tasks, examples, versions, predicting, models, admin, health, pages):
        app.include_router(module.router)
    for kind, problem in PROBLEMS.items():
        app.add_exception_handler(kind, _answering(problem))
    app.openapi = lambda: openapi_of(app)  # type: ignore[method-assign]
    return app


@contextlib.asynccontextmanager
async def _until_closed(app: FastAPI) -> AsyncIterator[None]:
    server: Server = app.state.server
    purging = asyncio.create_task(purge_hourly(server))
    yield
    purging.cancel()
    until = app.state.until
    await server.close(None if until is None else max(0.0, until - time.monotonic()))


def _answering(problem_of: Any) -> Any:
    async def answer(request: Request, error: Exception) -> Response:
        problem: Problem = problem_of(error)
        return problem.response(request.state.id)

    return answer
