"""The short way of a plain prediction by one task, past the framework, whose machinery costs more than all the rest.

It answers as the route in `predicting` does, and leaves to that route what is not plain: a request with problems, a
large one, or one for another version than the head. While a request waits here, it costs the event loop nothing: it has
no task, and its content is read with those of its batch.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import simdjson
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from handful.cells import LARGEST
from handful.errors import HandfulError, OverloadedError
from handful.http.answers import of_one
from handful.http.bodies import AT_ONCE
from handful.http.calls import LEAST_SECONDS, Server
from handful.http.limits import RequestLimits
from handful.http.middleware import Count, at_the_end, id_of, trace_of, write_error, write_line
from handful.http.problems import STATUSES, UNEXPECTED, Problem, of_error
from handful.http.schemas import MOST_CLASSES
from handful.serving.batcher import DEADLINE, LONGEST
from handful.serving.keys import Identity
from handful.serving.lanes import LaneRequest
from handful.serving.predicting import Asked
from handful.serving.records import Predictions

PATH = re.compile(r"/v1/tasks/(task_[0-9a-f]{32})/predict")
ROUTE = "/v1/tasks/{task}/predict"
"""What the log and metrics call it."""
UNUSUAL = {b"transfer-encoding", b"expect"}
"""Headers of requests that are not plain."""
NUMBER = re.compile(rb"[0-9]{1,8}")
USUAL = b"%d" % (DEADLINE * 1000)
"""Milliseconds of a request that does not say how many."""

ROWS = 64
"""The most inputs of a plain request, whose response is made on the event loop."""

REFUSALS, BURST = 1000, 50
"""Refusals a second, and in a moment, beyond which clients that were refused are held back."""
HELD = 1.0
"""Seconds for which a client is held back at most, as in its `Retry-After`."""


class NotPlainError(Exception):
    """The content is not plain, or something is wrong with it: the route finds out."""


class Head(NamedTuple):
    """What the head of a plain request says: by which task, the key of who asks, and within how many seconds."""

    task: str
    token: str
    seconds: float
    headers: Mapping[bytes, bytes]

    @classmethod
    def of(cls, scope: HTTPScope, limits: RequestLimits) -> "Head | None":
        """The head of what may be a plain request; None for all else."""
        path = PATH.fullmatch(scope["path"])
        if path is None or scope["method"] != "POST" or scope["query_string"]:
            return None
        sent = list(scope["headers"])
        headers = dict(sent)
        length, token = headers.get(b"content-length", b""), headers.get(b"authorization", b"")
        milliseconds = headers.get(b"x-request-timeout-ms", USUAL)
        if (
            headers.get(b"content-type") != b"application/json"
            or not NUMBER.fullmatch(length)
            or int(length) >= min(AT_ONCE, limits.json_bytes)
            or not NUMBER.fullmatch(milliseconds)
            or not 1 <= int(milliseconds) <= LONGEST * 1000
            or not token.startswith(b"Bearer ")
            or len(headers) != len(sent)
            or not headers.keys().isdisjoint(UNUSUAL)
        ):
            return None
        return cls(path[1], token[7:].decode("latin-1"), int(milliseconds) / 1000, headers)


class ShortWay:
    """The short way of one application.

    server: what all requests share.
    count: see `Around`.
    """

    def __init__(self, server: Server, count: Count) -> None:
        self.server, self.count = server, count
        self._refused_until = 0.0

    def hold(self, cycle: RequestResponseCycle) -> None:
        """If many are refused, read on from a refused client only after a while, as its `Retry-After` asked.

        Reading and refusing a request takes a third of the time of serving it: without this, clients that retry at once
        would take the time of those who are served.
        """
        loop = asyncio.get_running_loop()
        self._refused_until = max(self._refused_until, loop.time()) + 1 / REFUSALS
        seconds = min(self._refused_until - loop.time() - BURST / REFUSALS, HELD)
        if seconds > 0:
            cycle.flow.pause_reading()
            loop.call_later(seconds, _read_on, cycle)

    def taken(self, cycle: RequestResponseCycle, otherwise: Callable[[], None]) -> "PlainRequest | None":
        """The request of a head that was read, if it goes this way.

        otherwise: lets the application answer it.
        """
        head = Head.of(cycle.scope, self.server.limits)
        return None if head is None else PlainRequest(self, cycle, head, otherwise)


class PlainRequest:
    """A request from its head to its response. All methods belong to the event loop.

    cycle: uvicorn's, which holds its content and takes its response.
    """

    def __init__(self, way: ShortWay, cycle: RequestResponseCycle, head: Head, otherwise: Callable[[], None]) -> None:
        self.cycle, self._way, self._head, self._otherwise = cycle, way, head, otherwise
        self._since, self._until, self._ended = time.perf_counter(), 0.0, False
        self._identity: Identity | None = None
        self._known: asyncio.Task[None] | None = None
        self._asked: LaneRequest[Any, Predictions] | None = None
        self._id: str = cycle.scope["state"].setdefault("id", id_of(head.headers))

    def received(self) -> None:
        """Its content is there: it is known whose it is, and it waits with others from now on."""
        if self._ended:
            return
        self._until = time.monotonic() + self._head.seconds
        held = self._way.server.held(self._head.token)
        if held is None:
            self._known = asyncio.get_running_loop().create_task(self._look_up())
        else:
            self._enter(held)

    def leave(self, status: int = STATUSES["client-left"]) -> None:
        """Nobody waits for its response any more.

        status: of the response that it has instead.
        """
        if not self._ended:
            self._drop()
            self._tell(status)

    def end(self) -> None:
        """The server ends, and does not wait for it."""
        if not self._ended:
            self._drop()
            self._refuse(at_the_end("POST", ROUTE))

    async def _look_up(self) -> None:
        try:
            identity = await self._way.server.identity(self._head.token)
        except Exception:  # the route finds out
            self._leave_to_route()
        else:
            self._enter(identity)

    def _enter(self, identity: Identity) -> None:
        content = bytes(self.cycle.body)
        rows = content.count(b"[") - 1
        if rows > ROWS:
            self._leave_to_route()
            return
        self._identity = identity
        try:
            self._asked = self._way.server.batcher.enter(
                identity.tenant,
                self._head.task,
                partial(_read, identity.tenant, self._head.task, content, self._way.server.limits),
                rows=rows,
                deadline=max(LEAST_SECONDS, self._until - time.monotonic()),
                nbytes=len(content),
                then=self._answer,
            )
        except HandfulError as error:
            self._refuse_for(error)

    def _answer(self, made: Predictions | Exception) -> None:
        self._leave_lane()
        if isinstance(made, Predictions):
            self._show(made)
        elif isinstance(made, NotPlainError):
            self._leave_to_route()
        elif isinstance(made, HandfulError):
            self._refuse_for(made)
        else:
            self._fail(made)

    def _show(self, made: Predictions) -> None:
        try:
            content = b"".join(of_one([made]))
        except Exception as error:
            self._fail(error)
        else:
            self._send(200, HEADERS, content)

    def _leave_to_route(self) -> None:
        self._ended = True
        self._otherwise()

    def _drop(self) -> None:
        """Do nothing more for it."""
        self._ended = True
        if self._known is not None:
            self._known.cancel()
        self._leave_lane()

    def _leave_lane(self) -> None:
        asked, self._asked = self._asked, None  # which holds this request: together they would wait for the collector
        if asked is not None:
            self._way.server.batcher.leave(asked)

    def _fail(self, error: Exception) -> None:
        """The response to an error that nobody thought of."""
        write_error(self._id, ROUTE, error)
        self._refuse(UNEXPECTED)

    def _refuse_for(self, error: HandfulError) -> None:
        self._refuse(of_error(error))
        if isinstance(error, OverloadedError):
            self._way.hold(self.cycle)

    def _refuse(self, problem: Problem) -> None:
        answer = problem.response(self._id)
        headers = [(name, value) for name, value in answer.raw_headers if name != b"content-length"]
        self._send(answer.status_code, headers, bytes(answer.body))

    def _send(self, status: int, headers: "list[tuple[bytes, bytes]]", content: bytes) -> None:
        """Write the response as `RequestResponseCycle.send` does."""
        cycle, trace = self.cycle, trace_of(self._head.headers)
        self._ended = cycle.response_started = cycle.response_complete = True
        lines = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            lines += name, b": ", value, b"\r\n"
        lines.append(b"content-length: %d\r\nx-request-id: %b\r\n" % (len(content), self._id.encode()))
        if trace is not None:
            lines.append(b"traceparent: %b\r\n" % trace[0])
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        cycle.transport.write(b"".join((*lines, b"\r\n", content)))
        if not cycle.keep_alive:
            cycle.transport.close()
        self._tell(status)
        cycle.on_response()

    def _tell(self, status: int) -> None:
        """Say in the log and metrics what became of it."""
        trace, took = trace_of(self._head.headers), time.perf_counter() - self._since
        self._way.count("POST", ROUTE, status, took)
        write_line(
            self._id,
            *("POST", ROUTE, status, took),
            key=None if self._identity is None else self._identity.key,
            trace=None if trace is None else trace[1].decode(),
        )


def _read_on(cycle: RequestResponseCycle) -> None:
    if not cycle.transport.is_closing():
        cycle.flow.resume_reading()


HEADERS = [(b"cache-control", b"no-store"), (b"content-type", b"application/json")]


def _read(tenant: str, task: str, content: bytes, limits: RequestLimits) -> Asked:
    """What is asked for; `NotPlainError` if it is not plain, or something is wrong with it.

    Numbers go from the text to the array, with no object of Python for each: that takes three times as long, and the
    garbage collector goes through such lists.
    """
    try:
        given: Any = simdjson.Parser().parse(content)
        top, rows = given.get("top"), given["inputs"]
        [width] = {len(row) for row in rows}
        vectors = np.frombuffer(rows.as_buffer(of_type="d")).reshape(len(rows), width)
    except Exception:  # of many classes, none of them simdjson's own
        raise NotPlainError from None
    if (
        len(given) != 1 + (top is not None)  # another field, a field twice, or a null
        or (top is not None and not (type(top) is int and 1 <= top <= MOST_CLASSES))
        or content.count(b"[") != 1 + len(rows)  # lists in the rows
        or not content.startswith(b"{")
        or not vectors.size
        or len(rows) > limits.inputs
        or not np.vdot(vectors, vectors) <= LARGEST**2  # else no number is beyond the largest
    ):
        raise NotPlainError
    return Asked(tenant, task, vectors, top=top)
