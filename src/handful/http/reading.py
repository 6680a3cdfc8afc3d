"""The content of requests, read as the schema of a route says."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from handful.errors import DataError, HandfulError
from handful.http.bodies import LARGE, collected, read_json, too_large
from handful.http.calls import Call
from handful.http.json_inputs import examples_of
from handful.http.schemas import LabeledExample

Content = TypeVar("Content", bound=BaseModel)
Made = TypeVar("Made")


async def content_of(call: Call, schema: type[Content]) -> Content:
    """The JSON content of a request; `HandfulError` for what is none, `RequestValidationError` for another schema."""
    return await made_of(call, schema, lambda content: content)


async def made_of(call: Call, schema: type[Content], make: Callable[[Content], Made]) -> Made:
    """What is made of the JSON content of a request, in another thread where there is much of it; see `content_of`."""
    request = call.request
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise DataError("The content is read as JSON. Send it as application/json.", code="unsupported-media")
    content = await counted(request, call.server.limits.json_bytes)

    def read() -> Made:
        try:
            given = schema.model_validate(read_json(content, call.server.limits))
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            raise RequestValidationError(found) from None
        return make(given)

    return read() if len(content) < LARGE else await call.server.run(read)


async def counted(request: Request, most: int) -> bytes:
    """The bytes of a request's content; `DataError` as soon as it is clear that they are more than `most`."""
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdecimal() and (len(announced) > 18 or int(announced) > most):
        raise too_large("The content", most)
    content = await collected(request.stream(), most)
    request.state.size = len(content)
    return content


def examples_read(
    call: Call, examples: Sequence[LabeledExample], targets: Sequence[str]
) -> tuple[list[Any], list[Any]]:
    """Inputs and labels of a request's examples as the service takes them. targets: that are predicted, if any."""
    return examples_of(examples, targets or None, call.server.limits)


@contextlib.contextmanager
def as_examples() -> Iterator[None]:
    """Errors of the service about inputs and labels name the examples of the content."""
    try:
        yield
    except HandfulError as error:
        match error.field:
            case ("inputs", place, *rest):
                error.field = ("examples", place, "input", *rest)
            case ("labels", place, *rest):
                error.field = ("examples", place, "label", *rest)
            case ("inputs" | "labels",):
                error.field = ("examples",)
        raise
