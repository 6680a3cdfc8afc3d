"""The content of requests, read as the schema of a route says."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from handful.errors import DataError, HandfulError
from handful.http.bodies import AT_ONCE, collected, read_json, too_much
from handful.http.calls import Call
from handful.http.images import image_of
from handful.http.json_inputs import Image, examples_of, inputs_of
from handful.http.leaving import while_sent
from handful.http.limits import RequestLimits
from handful.http.schemas import LabeledExample
from handful.http.uploaded_files import examples_of_file, inputs_of_file
from handful.http.uploads import MEDIA as UPLOAD
from handful.http.uploads import Upload, uploaded
from handful.models.meta_model import MetaModel

Content = TypeVar("Content", bound=BaseModel)
Made = TypeVar("Made")


async def content_of(call: Call, schema: type[Content]) -> Content:
    """The JSON content of a request; `HandfulError` for what is none, `RequestValidationError` for another schema."""
    return await made_of(call, schema, lambda content: content)


async def made_of(call: Call, schema: type[Content], make: Callable[[Content], Made]) -> Made:
    """The parsed JSON content of a request, parsed in another thread if it is large; see `content_of`."""
    request = call.request
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise DataError("The content is read as JSON. Send it as application/json.", code="unsupported-media")
    content = await counted(request, call.server.limits.json_bytes)

    def read() -> Made:
        return make(_validated(schema, read_json(content, call.server.limits), call.server.limits))

    return read() if len(content) < AT_ONCE else await call.convert(read)


async def counted(request: Request, most: int) -> bytes:
    """The bytes of a request's content; `DataError` as soon as it is clear that they are more than `most`."""
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdecimal() and (len(announced) > 18 or int(announced) > most):
        raise too_much("The content", most)
    with while_sent():
        content = await collected(request.stream(), most)
    request.state.size, request.state.since = len(content), time.monotonic()
    return content


@dataclass(frozen=True)
class Source:
    """Where the inputs of a request are: in its JSON, with images in parts beside it, or in one file."""

    limits: RequestLimits
    upload: Upload | None = None

    def examples(self, given: Sequence[LabeledExample] | None, model: MetaModel) -> tuple[list[Any], list[Any]]:
        """Inputs and labels as the service takes them; `DataError` for none, or in two places."""
        if given is None or self.file is not None:
            return self._checked(examples_of_file(self._file_alone(given, "examples"), model, self.limits))
        return self._checked(examples_of(given, model.targets or None, self.limits, image=self._image))

    def inputs(self, given: Sequence[Any] | None, model: Callable[[], MetaModel]) -> list[Any]:
        """Inputs as the service takes them, as for `examples`.

        model: finds the one that reads a file.
        """
        if given is None or self.file is not None:
            return self._checked(inputs_of_file(self._file_alone(given, "inputs"), model(), self.limits))
        return self._checked(inputs_of(given, self.limits, image=self._image))

    @property
    def file(self) -> Path | None:
        """The uploaded file, if any."""
        return None if self.upload is None else self.upload.file

    @property
    def _image(self) -> Image:
        return image_of if self.upload is None else self.upload.image

    def _file_alone(self, given: object, what: str) -> Path:
        if given is not None or self.file is None:
            raise DataError(
                f"A request has {what}, or one uploaded file with them.", code="missing-value", field=(what,)
            )
        return self.file

    def _checked(self, found: Made) -> Made:
        if self.upload is not None:
            self.upload.check_used()
        return found


async def uploads_made_of(call: Call, schema: type[Content], make: Callable[[Content, Source], Made]) -> Made:
    """What is made of a request with inputs, in JSON or as an upload; see `made_of`."""
    media = call.request.headers.get("content-type", "")
    limits = call.server.limits
    if media.partition(";")[0].strip().lower() != UPLOAD:
        return await made_of(call, schema, lambda given: make(given, Source(limits)))
    async with contextlib.AsyncExitStack() as stack:
        with while_sent():
            sent = uploaded(call.request.stream(), media, call.server.spool, call.spool, limits)
            upload = await stack.enter_async_context(sent)
        call.request.state.size, call.request.state.since = upload.size, time.monotonic()
        return await call.convert(lambda: make(_validated(schema, upload.task, limits), Source(limits, upload)))


def _validated(schema: type[Content], value: Any, limits: RequestLimits) -> Content:
    examples = value.get("examples") if isinstance(value, dict) else None
    if isinstance(examples, list) and len(examples) > limits.inputs:
        raise too_much("The request", limits.inputs, "inputs", ("examples",))
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(found) from None


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
