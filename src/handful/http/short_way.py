"""The short way of a plain prediction by one task, past the framework, whose machinery costs more than all the rest.

It answers as the route in `predicting` does, and leaves to that route what is not plain: a request with problems, or a
large one.
"""

import re
import time
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handful.cells import too_large
from handful.errors import HandfulError
from handful.http.bodies import LARGE
from handful.http.calls import LEAST_SECONDS, Server
from handful.http.leaving import while_there
from handful.http.limits import RequestLimits
from handful.http.schemas import MOST_CLASSES, MOST_VERSIONS, Note
from handful.serving.batcher import DEADLINE, LONGEST
from handful.serving.keys import Identity
from handful.serving.records import Predictions

PATH = re.compile(r"/v1/tasks/(task_[0-9a-f]{32})/predict")
UNUSUAL = {b"transfer-encoding", b"expect"}
"""Headers of requests that are not plain."""
NUMBER = re.compile(rb"[0-9]{1,8}")
USUAL = b"%d" % (DEADLINE * 1000)
"""Milliseconds of a request that does not say how many."""


class Vectors(msgspec.Struct, forbid_unknown_fields=True):
    """The content of a plain request: `schemas.Predict` with vectors for inputs."""

    inputs: list[list[int | float]]
    version: Annotated[int, msgspec.Meta(ge=1, le=MOST_VERSIONS)] | None = None
    top: Annotated[int, msgspec.Meta(ge=1, le=MOST_CLASSES)] | None = None


_decoder, _encoder = msgspec.json.Decoder(Vectors), msgspec.json.Encoder()


class Route(NamedTuple):
    """What the log and metrics call the route of a request."""

    path: str


ROUTE = Route("/v1/tasks/{task}/predict")


class ShortWay:
    """Pure ASGI around an application: answers plain predictions by itself.

    server: what all requests share.
    """

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self.app, self.server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        plain = self._plain(scope)
        identity = None if plain is None else await self._identity(plain.token)
        if plain is None or identity is None:
            await self.app(scope, receive, send)
            return
        scope["route"], scope["state"]["identity"] = ROUTE, identity
        content, messages = await _received(receive)  # which may take long, so that a turn is taken afterwards
        made = None
        if content is not None:
            task = scope["path"].split("/")[3]
            made = await while_there(receive, self._in_turn(identity.tenant, task, content, plain.seconds))
        if made is None:
            await self.app(scope, _again(messages, receive), send)
            return
        answer = _encoder.encode(_shown(made))
        headers = [
            (b"cache-control", b"no-store"),
            (b"content-length", str(len(answer)).encode()),
            (b"content-type", b"application/json"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _identity(self, token: str) -> Identity | None:
        """Whose key it is; None where it is none."""
        try:
            return await self.server.identity(token)
        except HandfulError:
            return None

    async def _in_turn(self, tenant: str, task: str, content: bytes, seconds: float) -> Predictions | None:
        """What is predicted once it is this request's turn; None for content that is not plain."""
        until = time.monotonic() + seconds
        since = await self.server.turns.enter(tenant, seconds)
        try:
            asked = _read(content, self.server.limits)
            if asked is None:
                return None
            return await self.server.batcher.predict(
                tenant,
                task,
                asked.inputs,
                version=asked.version,
                top=asked.top,
                deadline=max(LEAST_SECONDS, until - since),
                nbytes=sum(one.nbytes for one in asked.inputs),
            )
        finally:
            self.server.turns.leave(tenant, since)

    def _plain(self, scope: Scope) -> "Plain | None":
        """What the head says of what may be a plain prediction; None for all else."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
            return None
        if not PATH.fullmatch(scope["path"]):
            return None
        headers = dict(scope["headers"])
        length, token = headers.get(b"content-length", b""), headers.get(b"authorization", b"")
        milliseconds = headers.get(b"x-request-timeout-ms", USUAL)
        if (
            headers.get(b"content-type") != b"application/json"
            or not NUMBER.fullmatch(length)
            or int(length) >= min(LARGE, self.server.limits.json_bytes)
            or not NUMBER.fullmatch(milliseconds)
            or not 1 <= int(milliseconds) <= LONGEST * 1000
            or not token.startswith(b"Bearer ")
            or len(headers) != len(scope["headers"])
            or not headers.keys().isdisjoint(UNUSUAL)
        ):
            return None
        return Plain(token[7:].decode("latin-1"), int(milliseconds) / 1000)


class Plain(NamedTuple):
    """What the head of a plain request says: the key of who asks, and within how many seconds."""

    token: str
    seconds: float


async def _received(receive: Receive) -> tuple[bytes | None, list[Message]]:
    """The content of a request, None where it does not come whole, and the messages that it came in."""
    messages = [await receive()]
    while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
        messages.append(await receive())
    if messages[-1]["type"] != "http.request":
        return None, messages
    return b"".join(message.get("body", b"") for message in messages), messages


def _again(messages: Sequence[Message], receive: Receive) -> Receive:
    """Receives these messages, then those that come."""
    rest = iter(messages)

    async def next_one() -> Message:
        for message in rest:
            return message
        return await receive()

    return next_one


class Asked(NamedTuple):
    """What a plain request asks for."""

    inputs: Sequence[np.ndarray]
    version: int | None
    top: int | None


def _read(content: bytes, limits: RequestLimits) -> Asked | None:
    """What is asked for; None where it is not plain, or something is wrong with it."""
    try:
        given = _decoder.decode(content)
    except (msgspec.DecodeError, ValueError):
        return None
    fields = 1 + (given.version is not None) + (given.top is not None)
    if content.count(b'"') != 2 * fields or not 1 <= len(given.inputs) <= limits.inputs:  # a field twice, or a null
        return None
    inputs = [np.array(row) for row in given.inputs]
    if any(row.dtype.kind not in "if" or not row.size or too_large(row).any() for row in inputs):
        return None
    return Asked(inputs, given.version, given.top)


def _shown(made: Predictions) -> dict[str, Any]:
    """What `schemas.Predictions` shows of them."""
    return {
        "task": made.task,
        "version": made.version,
        "model": {"name": made.model, "digest": made.model_digest},
        "predictions": [vars(one) for one in made.predictions],
        "notes": [Note.of(note).model_dump() for note in made.notes],
    }
