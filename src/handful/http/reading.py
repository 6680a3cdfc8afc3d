"""The content of requests: counted while it comes, then read as the schema says."""

import base64
import binascii
import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from handful.errors import DataError, HandfulError
from handful.http.schemas import LabeledExample

Content = TypeVar("Content", bound=BaseModel)

MOST = 4 * 2**20
"""Bytes of a request's content."""


async def content_of(request: Request, schema: type[Content]) -> Content:
    """The JSON content of a request; `HandfulError` for what is none, `RequestValidationError` for another schema."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise DataError("The content is read as JSON. Send it as application/json.", code="unsupported-media")
    try:
        return schema.model_validate(read_json(await counted(request)))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(found) from None


async def counted(request: Request, most: int = MOST) -> bytes:
    """The bytes of a request's content; `DataError` as soon as there are more than `most`."""
    announced = request.headers.get("content-length", "0")
    content = bytearray()
    if int(announced) <= most:
        async for part in request.stream():
            content += part
            if len(content) > most:
                break
        else:
            return bytes(content)
    raise DataError(f"The content has more than {most:,} bytes. Send less at once.", code="payload-too-large")


def read_json(content: bytes) -> Any:
    """The value that JSON stands for; `DataError` where it is broken."""
    try:
        return json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise DataError("The content is no JSON.", code="invalid-json") from None


def _no_number(name: str) -> float:
    raise ValueError(name)


def input_of(value: Any) -> Any:
    """An input as the service takes it."""
    if isinstance(value, dict) and set(value) == {"image"}:
        try:
            return base64.b64decode(value["image"], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise DataError("An image is the base64 form of its file.", code="invalid-data") from None
    return value


def inputs_of(values: Sequence[Any]) -> list[Any]:
    """Inputs as the service takes them."""
    return [input_of(value) for value in values]


def labels_of(examples: Sequence[LabeledExample]) -> list[Any]:
    """Labels or values of examples; `DataError` where one has none, or both, or unlike the others."""
    kinds = [(example.label is not None, example.value is not None) for example in examples]
    for place, (label, value) in enumerate(kinds):
        if label == value or (label, value) != kinds[0]:
            raise DataError(
                "An example has a label or a value, and all examples the same of them.",
                code="missing-label",
                field=("examples", place),
            )
    return [example.value if example.label is None else example.label for example in examples]


@contextlib.contextmanager
def as_examples(list_name: str = "examples") -> Iterator[None]:
    """Errors of the service about inputs and labels name the examples of the content."""
    try:
        yield
    except HandfulError as error:
        match error.field:
            case ("inputs", place, *rest):
                error.field = (list_name, place, "input", *rest)
            case ("labels", place, *rest):
                error.field = (list_name, place, "label", *rest)
            case ("inputs" | "labels",):
                error.field = (list_name,)
        raise
