"""Connections of clients, which may be slow, silent or hostile: uvicorn's, with deadlines and limits."""

from asyncio import TimerHandle, Transport
from collections.abc import Sized
from functools import partial
from typing import Any, Literal

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from handful.http.middleware import UNMATCHED, new_id, write_line
from handful.http.problems import Problem
from handful.http.short_way import PlainRequest, ShortWay

HEAD, BODY, ANSWER = 10.0, 30.0, 30.0
"""Seconds in which a client sends a request's head, then its body, and reads on in the response."""
HEAD_BYTES = 64 * 1024
"""Of a head, and of all else that is no content, such as the sizes of chunks."""
MOST = 1000
"""Connections at a time."""


class Connection(HttpToolsProtocol):
    """One connection. A late head closes it, a late body is a 408, and a response that nobody reads ends it.

    Of requests that come before earlier ones are answered, few are read, and none is begun while the client does not
    read on in the responses.
    """

    _timer: TimerHandle | None = None
    _writing: TimerHandle | None = None
    _reading: Literal["", "head", "body"] = ""
    _advanced = False
    """Whether the data that came last began or ended a head or a body."""
    _bytes = 0
    _plain: PlainRequest | None = None
    _held: tuple[RequestResponseCycle, ASGI3Application] | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._short_way: ShortWay = self.config.app.state.short_way  # type: ignore[union-attr]
        self.flow = _Flow(transport, self.pipeline)
        if len(self.connections) > MOST:
            self._refuse(Problem("overloaded", "Too many connections are open.", headers={"retry-after": "1"}))
        else:
            self._wait(HEAD, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._wait(None)
        self._held = None
        self.resume_writing()
        if self._plain is not None:
            self._plain.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, but nothing without end, and wait for what is due then: a head, where only bytes came before it."""
        self._bytes += len(data)
        self._advanced = False
        super().data_received(data)
        if self._bytes > HEAD_BYTES:
            self._refuse(Problem("payload-too-large", "The head of the request is too large.", status=431))
        elif self._advanced:
            self._await()
        elif self._timer is None and self.timeout_keep_alive_task is None and not self._reading and not self._answering:
            self._wait(HEAD, self.transport.abort)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._reading, self._advanced = "head", True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, but none that comes after the content, where nobody has looked at it."""
        if self._reading == "body":
            raise ValueError("Trailers are not supported.")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there: the application runs, and the body is due."""
        super().on_headers_complete()
        self._bytes, self._reading, self._advanced = 0, "body", True

    def on_body(self, body: bytes) -> None:
        """Some of the body is there."""
        self._bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is there."""
        super().on_message_complete()
        self._bytes, self._reading, self._advanced = 0, "", True
        if self._plain is not None and self._plain.cycle is self.cycle:
            self._plain.received()

    def on_response_complete(self) -> None:
        """The response is there: what the client has begun to send meanwhile is due."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self.flow.resume_reading()  # what was the last in the pipeline has left it
            self._await()

    def pause_writing(self) -> None:
        """The client does not keep up with the response."""
        super().pause_writing()
        self._writing = self.loop.call_later(ANSWER, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again: what was held back meanwhile is due."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()
        held, self._held = self._held, None
        if held is not None:
            self._start_asgi_task(*held)

    def end(self) -> None:
        """The server ends: answer what goes the short way, and close."""
        if self._plain is not None:
            self._plain.end()
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What was sent cannot be parsed."""
        self._refuse(Problem("invalid-request", "This is not an HTTP/1.1 request.", status=400))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Of a request that is to be answered next, at least the head is there."""
        if self.flow.write_paused:
            self._held = cycle, app
            return
        otherwise = partial(super()._start_asgi_task, cycle, app)
        self._plain = self._short_way.taken(cycle, otherwise)
        if self._plain is None:
            otherwise()
        elif not cycle.more_body:
            self.loop.call_soon(self._plain.received)

    @property
    def _answering(self) -> bool:
        """Whether a request that was read, at least its head, is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _await(self) -> None:
        """Wait for the end of what is read now, unless other requests before it are to be answered first."""
        if self._reading == "body" and not self.pipeline:
            self._wait(BODY, self._body_late)
        elif self._reading == "head" and not self._answering:
            self._wait(HEAD, self.transport.abort)
        else:
            self._wait(None)

    def _wait(self, seconds: float | None, late: Any = None) -> None:
        """Do something once this time is over, in place of what was to be done before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, late)

    def _body_late(self) -> None:
        self._refuse(Problem("deadline-exceeded", "The content did not arrive in time.", status=408))

    def _refuse(self, problem: Problem) -> None:
        """Answer in place of the application, and close; only close where this would be read as another response."""
        if self.transport.is_closing():
            return
        begun = self._reading == "body"
        behind = self.pipeline or self._held is not None
        if self._answering != begun or behind or (begun and self.cycle.response_started):
            self.transport.abort()
            return
        state = self.cycle.scope["state"] if begun else {}
        answer = problem.response(state.setdefault("id", new_id()))
        if begun:  # the application ends then, and tells the log and metrics
            state["refused"] = answer.status_code
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self._plain is not None:
                self._plain.leave(answer.status_code)
        else:
            self.config.app.state.telemetry.count("", UNMATCHED, answer.status_code, 0.0)  # type: ignore[union-attr]
            write_line(state["id"], "", UNMATCHED, answer.status_code, 0.0)
        head = [STATUS_LINE[answer.status_code]]
        for name, value in (
            *answer.raw_headers,
            (b"x-request-id", state["id"].encode()),
            (b"connection", b"close"),
        ):
            head += [name, b": ", value, b"\r\n"]
        self.transport.write(b"".join([*head, b"\r\n", bytes(answer.body)]))
        self.transport.close()


class _Flow(FlowControl):
    """Reads nothing more while requests wait in the pipeline: each response would let in as much as can be read at
    once.

    pipeline: of the connection.
    """

    def __init__(self, transport: Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()
