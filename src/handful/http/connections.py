"""Connections of clients, which may be slow, silent or hostile: uvicorn's, with deadlines and limits."""

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from handful.http.problems import Problem

HEAD, BODY, ANSWER = 10.0, 30.0, 30.0
"""Seconds in which a client sends a request's head, then its body, and reads on in the answer."""
HEAD_BYTES = 64 * 1024
MOST = 1000
"""Connections at a time."""


class Connection(HttpToolsProtocol):
    """One connection. A late head closes it, a late body is a 408, and an answer that nobody reads ends it."""

    _timer: TimerHandle | None = None
    _writing: TimerHandle | None = None
    _head_bytes: int | None = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        if len(self.connections) > MOST:
            self._refuse(Problem("overloaded", "Too many connections are open.", headers={"retry-after": "1"}))
        else:
            self._wait(HEAD, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._wait(None)
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, but not a head without end."""
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes is not None and self._head_bytes > HEAD_BYTES:
            self._refuse(Problem("payload-too-large", "The head of the request is too large.", status=431))

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._wait(HEAD, self.transport.abort)

    def on_headers_complete(self) -> None:
        """The head is there: the application runs, and the body is due."""
        self._head_bytes = None
        self._wait(BODY, self._body_late)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is there."""
        self._head_bytes = 0
        self._wait(None)
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client does not keep up with the answer."""
        super().pause_writing()
        self._writing = self.loop.call_later(ANSWER, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What was sent cannot be parsed."""
        self._refuse(Problem("invalid-request", "This is no request of HTTP/1.1.", status=400))

    def _wait(self, seconds: float | None, late: Any = None) -> None:
        """Do something once this time is over, in place of what was to be done before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, late)

    def _body_late(self) -> None:
        if self.cycle.response_started:
            self.transport.abort()
            return
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self._refuse(Problem("deadline-exceeded", "The content did not come in time.", status=408))

    def _refuse(self, problem: Problem) -> None:
        """Answer in place of the application, and close."""
        answer = problem.response("")
        head = [STATUS_LINE[answer.status_code]]
        for name, value in (*answer.raw_headers, (b"connection", b"close")):
            head += [name, b": ", value, b"\r\n"]
        self.transport.write(b"".join([*head, b"\r\n", bytes(answer.body)]))
        self.transport.close()
