"""One call, sent until it is answered: which failures are tried again, when, and until when."""

import secrets
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx2

from handful.client.calls import Call
from handful.client.remote_errors import RemoteError, problem_of

REFUSED = {429, 503}
"""Statuses of answers to what was not carried out."""
LOST = {502, 504}
"""Of answers by something before the server, which lost it."""
UNSURE = " The request may have been carried out: check before you repeat it."
"""Said where it is lost whether a call was carried out that is not to be sent again."""
UNKNOWN = {"outcome-unknown", "deadline-exceeded"}
"""Kinds of problems after which it may have been carried out all the same."""
MEANWHILE = {"idempotency-in-progress"}
"""Kinds of problems that end once the same request, sent before, is carried out."""
NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
NO_TLS = ("WRONG_VERSION_NUMBER", "record layer failure", "PACKET_LENGTH_TOO_LONG")
"""What versions of OpenSSL say of a response without TLS."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0
"""Seconds between attempts: at most so many before the second, and twice as many before each further one."""
LONGEST_ASKED = 60.0
"""Seconds that a server can make a client wait, by Retry-After."""
LONGEST_DEADLINE = 60.0
"""Seconds that a server can be given for one request."""


@dataclass(frozen=True)
class Send:
    """A step: send the call.

    seconds: within which it has to be answered.
    """

    call: Call[Any]
    seconds: float


@dataclass(frozen=True)
class Wait:
    """A step: do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """What comes back.

    headers: with small letters.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes


Steps: TypeAlias = Generator[Send | Wait, Any, Any]


@dataclass(frozen=True)
class Patience:
    """How long a client tries.

    seconds: of one call of a verb, with all its attempts and waits.
    attempts: of one request.
    now: a clock, in seconds.
    drawn: a random number between two, by which clients that failed together do not come again together.
    """

    seconds: float = 60.0
    attempts: int = 6
    now: Callable[[], float] = time.monotonic
    drawn: Callable[[float, float], float] = secrets.SystemRandom().uniform

    def exchange(self, call: Call[Any], until: float) -> Steps:
        """The steps of one call, of which the last one returns its response.

        until: when its time is over, by the clock.

        Raises `RemoteError` if it is refused, or no attempt was answered.
        """
        for attempt in range(1, self.attempts + 1):
            asked, left = 0.0, until - self.now()
            try:
                reply = yield Send(call, max(left, 0.001))
                if 200 <= reply.status < 300:
                    return call.read(reply.content)
                error = problem_of(reply.status, reply.headers, reply.content)
                if error.status in LOST and not call.repeatable:
                    error.message += UNSURE
                asked, again = _retry_after(reply.headers), _again(call, error)
            except httpx2.TransportError as lost:
                error = _failed(lost, call)
                again = not _tls_fault(lost) and (isinstance(lost, NEVER_SENT) or call.repeatable)
            wait = self._wait(attempt, asked)
            if not again or attempt == self.attempts or self.now() + wait >= until:
                raise _counted(error, call.first)
            yield Wait(wait)

    def _wait(self, attempt: int, asked: float) -> float:
        """Seconds before the next attempt: what the server asked for at least, and some more by chance."""
        return asked + self.drawn(0, min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT))


def _again(call: Call[Any], error: RemoteError) -> bool:
    if error.slug in MEANWHILE:
        return True
    if error.status in REFUSED and error.slug not in UNKNOWN:
        return error.slug != "quota-exceeded"
    return call.repeatable and (error.status in REFUSED | LOST)


def _retry_after(headers: Mapping[str, str]) -> float:
    asked = headers.get("retry-after", "")
    return min(float(asked), LONGEST_ASKED) if asked.isascii() and asked.isdecimal() else 0.0


def _failed(lost: httpx2.TransportError, call: Call[Any]) -> RemoteError:
    """The error that a connection is which was not made, or broke."""
    reason = str(lost) or type(lost).__name__
    if isinstance(lost, NEVER_SENT):
        error = RemoteError(
            _tls_fault(lost) or f"The server cannot be reached ({reason}). Check that it is running, and its address.",
            code="unreachable",
        )
        error.slug = "not-ready"
        return error
    known = "" if call.repeatable else UNSURE
    late = isinstance(lost, httpx2.TimeoutException)
    code = "deadline-exceeded" if late else "failed"
    broke = f"The connection broke ({reason}).{_maybe_of_tls(lost)}{known}"
    error = RemoteError(f"The server did not respond in time.{known}" if late else broke, code=code)
    error.slug = "deadline-exceeded" if late else "outcome-unknown"
    return error


def _tls_fault(lost: httpx2.TransportError) -> str:
    """The message where TLS fails in a way that no other attempt changes; "" for other failures."""
    reason = str(lost)
    if any(said in reason for said in NO_TLS):
        return "The server does not use TLS at this port. Check the port; an address without TLS begins with http."
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        why = reason.rpartition("verify failed: ")[2].partition(" (_ssl")[0]
        if "expired" in why or "not yet valid" in why:
            return f"The server's certificate is not valid now ({why}). Renew it, or set the clock of this machine."
        return (
            f"The server's certificate is not trusted ({why}). If it is yours, name a file with the certificate in the "
            f"environment variable SSL_CERT_FILE."
        )
    return ""


def _maybe_of_tls(lost: httpx2.TransportError) -> str:
    """The way out where a server closed the connection at once, as those do with TLS that are sent none."""
    plain = isinstance(lost, httpx2.RemoteProtocolError) and lost.request.url.scheme == "http"
    return " If the server uses TLS, its address begins with https." if plain else ""


def _counted(error: RemoteError, first: int) -> RemoteError:
    """An error about one of some inputs, of which others come before."""
    match error.field:
        case ("inputs", int(place), *rest) if first:
            error = error.about(f"Of the inputs from number {first} on")
            error.field = ("inputs", first + place, *rest)
    return error
