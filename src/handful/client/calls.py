"""One request to a server, as a value: what is sent, and what the response means."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote

import msgspec

from handful.errors import HandfulError

Answer = TypeVar("Answer")
Result = TypeVar("Result")

Plan: TypeAlias = Generator[Any, Any, Result]
"""What a verb sends, call by call, and in the end what it returns: it gives a `Call` or several, and gets the
responses. A face carries it out, in its own way."""


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request.

    answer: the type of the response; `bytes`: its raw content, None: no content.
    query: parameters behind the path; those that are None are left out.
    body: what is sent, see `handful.client.content`; None: nothing.
    in_parts: whether the server takes large images of the body in parts.
    content: bytes that are sent as they are, in place of a body.
    changes: whether it changes a task that is there.
    expected: the version that it then has to be at, else the server refuses; None: any.
    idempotency_key: by which the server recognizes a repeated request.
    repeatable: whether it may be sent again where it is unknown what became of it.
    first: the number of its first input among those of a call of several requests, which errors are counted from.
    """

    method: str
    path: str
    answer: Any
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    in_parts: bool = False
    content: bytes | None = None
    changes: bool = False
    expected: int | None = None
    idempotency_key: str | None = None
    repeatable: bool = False
    first: int = 0

    def headers(self) -> dict[str, str]:
        """What this request has in its head beside what all have."""
        found = {}
        if self.changes:
            found["If-Match"] = "*" if self.expected is None else f'"{self.expected}"'
        if self.idempotency_key is not None:
            found["Idempotency-Key"] = self.idempotency_key
        return found

    def read(self, content: bytes) -> Answer:
        """The response; `HandfulError` if it is none."""
        if self.answer is None or self.answer is bytes:
            return content if self.answer else None  # type: ignore[return-value]
        try:
            return msgspec.json.decode(content, type=self.answer)  # type: ignore[no-any-return]
        except (msgspec.DecodeError, RecursionError) as error:
            raise HandfulError(
                f"The server's response to {self.method} {self.path} is not valid ({error}). Check that the address is "
                f"that of a handful server of this version."
            ) from error


def ask(call: Call[Answer]) -> Generator[Call[Answer], Answer, Answer]:
    """Send one request, in a plan."""
    return (yield call)


def quoted(segment: str | int) -> str:
    """A part of a path, whatever is in it."""
    return quote(str(segment), safe="")
