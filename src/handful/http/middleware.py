"""What surrounds every request: its id, its line in the log, and a response whatever happens."""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handful.errors import HandfulError
from handful.http.authorization import check_query
from handful.http.problems import UNEXPECTED, Problem, of_error
from handful.serving.log_lines import log_line

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
"""`traceparent` of W3C's Trace Context."""

PASSED_OVER = 64 * 2**20
"""Bytes of refused contents that are received all the same."""

READS, PREDICTS = ("GET", "HEAD"), "/predict"
"""Methods, and the end of the other routes, that change nothing."""

UNMATCHED = "unmatched"
"""The label for unknown paths, whose number is unlimited."""

PROCESS = secrets.token_hex(8)
"""What begins the ids that this process gives to requests."""
_numbers = itertools.count(1)

Count: TypeAlias = Callable[[str, str, int, float], None]

log = logging.getLogger("handful.http")


class Around:
    """Pure ASGI around an application: a request id, a line in the log, no key in an address, no error unanswered.

    count: gets method, route, status and seconds of each request.
    """

    def __init__(self, app: ASGIApp, count: Count) -> None:
        self.app, self.count = app, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, start, status = dict(scope["headers"]), time.perf_counter(), 0
        trace = trace_of(headers)
        request_id = scope.setdefault("state", {}).setdefault("id", id_of(headers))

        content = _Content(receive)

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400 and b"expect" not in headers:
                    await content.pass_over()
                marks = [(b"x-request-id", request_id.encode())]
                if trace is not None:
                    marks.append((b"traceparent", trace[0]))
                message["headers"] = [*message["headers"], *marks]
            await send(message)

        try:
            if scope["query_string"]:
                check_query(scope["query_string"])
            await self.app(scope, content.receive, marked)
        except HandfulError as error:
            await of_error(error).response(request_id)(scope, receive, marked)
        except asyncio.CancelledError:  # the server ends
            await at_the_end(scope["method"], template_of(scope)).response(request_id)(scope, receive, marked)
        except Exception as error:
            write_error(request_id, template_of(scope), error)
            if not status:
                await UNEXPECTED.response(request_id)(scope, receive, marked)
        finally:
            state = scope["state"]
            seen = scope["method"], template_of(scope), state.get("refused", status), time.perf_counter() - start
            self.count(*seen)
            identity = state.get("identity")
            write_line(request_id, *seen, key=identity and identity.key, trace=trace and trace[1].decode())


class _Content:
    """What is received of a request. A refused one is received to its end: else closing the connection may take the
    answer away from a client that is still sending."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._ended = receive, False

    async def receive(self) -> Message:
        """See ASGI."""
        message = await self._receive()
        self._ended = not message.get("more_body", False)
        return message

    async def pass_over(self) -> None:
        """Receive what is left, unless it is without end."""
        count = 0
        while not self._ended and count < PASSED_OVER:
            count += len((await self.receive()).get("body", b""))


def template_of(scope: Scope) -> str:
    """The route of a request as it is declared, such as "/v1/tasks/{task}"."""
    return str(getattr(scope.get("route"), "path", UNMATCHED))


def new_id() -> str:
    """The id of a request whose client gives it none."""
    return f"req_{PROCESS}{next(_numbers):08x}"


def write_line(
    request_id: str,
    method: str,
    route: str,
    status: int,
    seconds: float,
    key: str | None = None,
    trace: str | None = None,
) -> None:
    """Write the log line of a request: no label, input, path or query.

    route: its template.
    status: of its response; 0: none.
    seconds: its time.
    key: the id of its key.
    trace: the id of its trace.
    """
    if not log.isEnabledFor(logging.INFO):
        return
    line = log_line(
        "request",
        request=request_id,
        method=method,
        route=route,
        status=status,
        milliseconds=round(seconds * 1000, 3),
        key=key,
        trace=trace,
    )
    # As `log.info` does, which looks for the line of code first, for as long as all the rest here takes.
    log.handle(logging.LogRecord(log.name, logging.INFO, __file__, 0, line, (), None))


def write_error(request_id: str, route: str, error: BaseException) -> None:
    """Write to the log where an error comes from that nobody thought of."""
    log.error(log_line("error", request=request_id, route=route), exc_info=error)


def id_of(headers: Mapping[bytes, bytes]) -> str:
    """The id that a request has, or is given."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if REQUEST_ID.fullmatch(given) else new_id()


def trace_of(headers: Mapping[bytes, bytes]) -> re.Match[bytes] | None:
    """The `traceparent` of a request, with the id of its trace as group 1; None if it has none."""
    return TRACE.fullmatch(headers.get(b"traceparent", b""))


def at_the_end(method: str, route: str) -> Problem:
    """The error for a request that the stopping server did not finish; a change may still be made in a thread."""
    if method in READS or route.endswith(PREDICTS):
        return Problem("not-ready", "The server is shutting down.")
    return Problem("outcome-unknown", "The server stopped before or while the request was carried out.")
