"""Routes of a task's examples: each change of them makes a new version."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from fastapi import APIRouter
from starlette.responses import Response

from handful.http.answers import JSON, NO_STORE, InPieces, joined, response_of
from handful.http.calls import Expected, IdempotencyKey, Predicting, Writing, cost_of, etag
from handful.http.documents import takes
from handful.http.places import After, Erase, ExampleId, Limit, OfVersion, TaskId
from handful.http.reading import Source, as_examples, uploads_made_of
from handful.http.schemas import AddExamples, Example, ExamplePage, Receipt, Task
from handful.serving.records import ExamplesPage, LabeledInput, TaskRecord

router = APIRouter(prefix="/v1/tasks/{task}", tags=["examples"])

PAGE = 4 * 2**20
"""Bytes of the examples of one page, as they were given."""


@router.get("/examples", response_model=ExamplePage)
async def list_examples(
    task: TaskId, call: Predicting, version: OfVersion = None, limit: Limit = 100, after: After = ""
) -> Response:
    """The examples of a version as they were given, a page of them, of 4 MiB at most unless one alone has more; none
    where they are not kept."""

    def content() -> list[bytes]:
        tenant = call.identity.tenant
        record = call.service.get(task, tenant=tenant)
        found = call.service.examples_page(task, version, limit=limit, nbytes=PAGE, after=after, tenant=tenant)
        return joined(_written(found, record))

    return InPieces(await call.convert(content), JSON, NO_STORE)


@router.post("/examples", response_model=Task, **takes(AddExamples, upload=True))
async def add_examples(task: TaskId, call: Writing, expected: Expected, key: IdempotencyKey = None) -> Response:
    """Adapt a task anew to its examples and more of them, of which new classes may be."""
    return await _labeled(call.service.add, task, call, expected, key)


@router.post("/corrections", response_model=Task, **takes(AddExamples, upload=True))
async def correct(task: TaskId, call: Writing, expected: Expected, key: IdempotencyKey = None) -> Response:
    """Adapt a task anew with other labels for inputs that are among its examples; other inputs are added."""
    return await _labeled(call.service.correct, task, call, expected, key)


@router.delete("/examples/{example}", response_model=Task | Receipt)
async def remove_example(
    task: TaskId, example: ExampleId, call: Writing, expected: Expected, erase: Erase = False
) -> Response:
    """Adapt a task anew without an example, which earlier versions keep; or erase it, from all versions."""
    if erase:
        return response_of(Receipt.of(await call.change(call.service.erase, task, [example], expected=expected)))
    record = await call.change(call.service.remove, task, [example], expected=expected)
    return response_of(Task.of(record), etag=etag(record))


async def _labeled(change: Any, task: str, call: Writing, expected: int | None, key: str | None) -> Response:
    head = (await call.look(call.service.get, task)).head

    def read(given: AddExamples, source: Source) -> tuple[bool, list[Any], list[Any]]:
        return given.estimate, *source.examples(given.examples, call.service.model_of(head))

    estimate, inputs, labels = await uploads_made_of(call, AddExamples, read)
    with as_examples():
        record = await call.change(
            change,
            task,
            inputs,
            labels,
            expected=expected,
            estimate=estimate,
            idempotency_key=key,
            cost=cost_of(len(inputs) + (head.examples or 0), scores=int(estimate)),
        )
    return response_of(Task.of(record), etag=etag(record))


def _written(page: ExamplesPage, record: TaskRecord) -> Iterator[bytes]:
    """A page as `schemas.ExamplePage` says, one example after another: all at once take the event loop long."""
    sign = b'{"data":['
    for one in page.examples:
        yield sign + _shown(one, record).model_dump_json().encode()
        sign = b","
    end = ExamplePage(data=[], has_more=page.more, next_after=page.examples[-1].id if page.more else None)
    yield (b"" if page.examples else sign) + b"]," + end.model_dump_json(exclude={"data"}).encode()[1:]


def _shown(example: LabeledInput, record: TaskRecord) -> Example:
    """An example as it was given."""
    if isinstance(example.label, str):
        return Example(id=example.id, input=_input(example.input), label=example.label)
    targets = record.head.targets
    value = example.label[0] if len(targets) == 1 else dict(zip(targets, example.label, strict=True))
    return Example(id=example.id, input=_input(example.input), value=value)


def _input(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"image": base64.b64encode(value).decode()}
    return value.tolist() if isinstance(value, np.ndarray | torch.Tensor) else value
