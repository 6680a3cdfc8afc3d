"""One request as routes see it: who asks, and the service, whose methods run in threads of their own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from starlette.responses import Response

from handful.errors import UserError
from handful.http.authorization import token_of
from handful.http.limits import RequestLimits
from handful.serving.keys import Identity
from handful.serving.records import TaskRecord
from handful.serving.service import Service

Result = TypeVar("Result")


@dataclass(frozen=True)
class Server:
    """What all requests share.

    service: what does the work. limits: of each request. threads: in which the work runs.
    """

    service: Service
    limits: RequestLimits
    threads: Executor

    async def run(self, work: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """What a piece of work returns that may take long, done in another thread."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, partial(work, *arguments, **named))


@dataclass(frozen=True)
class Call:
    """A request of someone who may make it."""

    server: Server
    identity: Identity

    @property
    def service(self) -> Service:
        """Whose methods `look` and `change` run."""
        return self.server.service

    async def look(self, method: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """What a method of the service returns that changes nothing, for the tenant of this request."""
        return await self.server.run(method, *arguments, tenant=self.identity.tenant, **named)

    async def change(self, method: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """What a method of the service returns that changes something, in the name of the request's key."""
        return await self.look(method, *arguments, actor=self.identity.key, **named)


def allowed(scope: str) -> Any:
    """The call of a request whose key has a scope, as a dependency of a route."""

    async def call(request: Request) -> Call:
        server: Server = request.app.state.server
        identity = await server.run(server.service.keys.check, token_of(request.headers))
        identity.require(scope)
        request.state.identity = identity
        return Call(server, identity)

    call.scope = scope  # type: ignore[attr-defined]
    return Depends(call)


Predicting = Annotated[Call, allowed("predict")]
Writing = Annotated[Call, allowed("write")]
Administering = Annotated[Call, allowed("admin")]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Of your choice, unlike those of your other requests: sent again, the request is not repeated.",
    ),
]


async def _expected(
    if_match: Annotated[
        str | None,
        Header(alias="If-Match", description="The version that the task has to be at, as its ETag says, or *."),
    ] = None,
) -> int | None:
    """The version that If-Match names; None for any."""
    if if_match is None or if_match.strip() == "*":
        return None
    number = if_match.strip().removeprefix("W/").strip('"')
    if not number.isascii() or not number.isdecimal() or len(number) > 9:
        raise UserError("The task is at no such version.", code="version-conflict", field=("If-Match",))
    return int(number)


Expected = Annotated[int | None, Depends(_expected)]


async def _seen(request: Request, expected: Expected) -> int | None:
    if "if-match" not in request.headers:
        raise UserError(
            "Another change may have come between. Send If-Match with the version that you saw, or * for any.",
            code="precondition-required",
        )
    return expected


Seen = Annotated[int | None, Depends(_seen)]
"""The same where a request has to name one."""


def answer(content: BaseModel, status: int = 200, **headers: str) -> Response:
    """An answer in JSON. headers: with underscores for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(content.model_dump_json(), status, {"cache-control": "no-store", **named}, "application/json")


def etag(record: TaskRecord) -> str:
    """The tag of a task as it is: the number of its version."""
    return f'"{record.head.number}"'
