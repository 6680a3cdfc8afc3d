"""Responses in JSON: small ones at once, large ones made in another thread and sent in pieces.

No piece takes the event loop long to make, to write, or to let go of.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from handful.http.calls import Call
from handful.http.schemas import Note
from handful.serving.records import Predictions

JSON = "application/json"
NO_STORE = {"cache-control": "no-store"}

NUMBERS = 10_000
"""Numbers that are encoded in one go, in about a millisecond; a response with more of them is large."""
PIECE = 256 * 2**10
"""Bytes that are written in one go."""

_encoder = msgspec.json.Encoder()


class InPieces(Response):
    """A response whose content is sent piece by piece, as the client reads it."""

    def __init__(self, pieces: Sequence[bytes], media_type: str, headers: dict[str, str] | None = None) -> None:
        self._pieces = pieces
        length = {"content-length": str(sum(map(len, pieces)))}
        super().__init__(headers=length | (headers or {}), media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def response_of(content: BaseModel, status: int = 200, **headers: str) -> Response:
    """A response in JSON.

    headers: with underscores for hyphens.
    """
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(content.model_dump_json(), status, NO_STORE | named, JSON)


def response_of_file(content: bytes, media_type: str, name: str) -> Response:
    """A response that is a file.

    name: under which it is kept.
    """
    pieces = [content[start : start + PIECE] for start in range(0, len(content), PIECE)]
    return InPieces(pieces, media_type, {"content-disposition": f'attachment; filename="{name}"'})


async def response_of_predictions(
    call: Call, made: list[Predictions], write: Callable[[list[Predictions]], Iterable[bytes]]
) -> Response:
    """A response with what tasks predict.

    made: empty afterwards.
    write: `of_one` or `of_each`.
    """
    large = sum(map(numbers_in, made)) > NUMBERS

    def content() -> list[bytes]:
        return joined(write(made))

    return InPieces(await call.convert(content) if large else content(), JSON, NO_STORE)


def numbers_in(made: Predictions) -> int:
    """How many numbers a response shows of some predictions, about."""
    first = made.predictions[0] if made.predictions else None
    each = len(first.probabilities) if first is not None and first.probabilities is not None else 1
    return each * len(made.predictions)


def of_one(made: list[Predictions]) -> Iterator[bytes]:
    """The predictions of one task in JSON, as `schemas.Predictions` says; the list has it no more afterwards."""
    one = made.pop()
    model = {"name": one.model, "digest": one.model_digest}
    notes = _encoder.encode([Note.of(note).model_dump() for note in one.notes])
    yield _encoder.encode({"task": one.task, "version": one.version, "model": model})[:-1] + b',"predictions":['
    left, together = list(one.predictions[::-1]), max(1, NUMBERS * len(one.predictions) // max(1, numbers_in(one)))
    del one  # so that each part goes by itself: no other thread runs while millions of numbers are let go of
    first = True
    while left:
        part = [vars(result) for result in left[: -together - 1 : -1]]
        del left[-together:]
        yield (b"" if first else b",") + _encoder.encode(part)[1:-1]
        first = False
    yield b'],"notes":' + notes + b"}"


def of_each(made: list[Predictions]) -> Iterator[bytes]:
    """The predictions of several tasks in JSON, as `schemas.PredictionsOfTasks` says; the list is empty afterwards."""
    made.reverse()
    sign = b"["
    while made:
        yield sign
        yield from of_one(made)
        sign = b","
    yield b"]"


def joined(parts: Iterable[bytes]) -> list[bytes]:
    """The same bytes in pieces that are worth to be sent."""
    pieces, last, size = list[bytes](), list[bytes](), 0
    for part in parts:
        last.append(part)
        size += len(part)
        if size >= PIECE:
            pieces.append(b"".join(last))
            last, size = [], 0
    return [*pieces, b"".join(last)] if last else pieces
