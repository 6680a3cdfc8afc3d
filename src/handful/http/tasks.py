"""Routes of tasks: made, looked at, changed."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from handful.http.calls import IdempotencyKey, Predicting, Writing, answer, etag
from handful.http.documents import takes
from handful.http.reading import as_examples, content_of, inputs_of, labels_of
from handful.http.schemas import CreateTask, Task, TaskPage

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])

Limit = Annotated[int, Query(ge=1, le=1000, description="The most that one page has.")]
After = Annotated[str, Query(max_length=64, description="The `next_after` of the page before.")]


@router.post("", status_code=201, response_model=Task, **takes(CreateTask))
async def create_task(request: Request, call: Writing, key: IdempotencyKey = None) -> Response:
    """Adapt a new task to examples, and keep it."""
    given = await content_of(request, CreateTask)
    inputs, labels = inputs_of([example.input for example in given.examples]), labels_of(given.examples)
    with as_examples():
        record = await call.change(
            call.service.create,
            given.name,
            inputs,
            labels,
            model=given.model,
            keep_examples=given.keep_examples,
            idempotency_key=key,
        )
    return answer(Task.of(record), 201, location=f"/v1/tasks/{record.id}", etag=etag(record))


@router.get("", response_model=TaskPage)
async def list_tasks(call: Predicting, limit: Limit = 100, after: After = "") -> Response:
    """Tasks that are not deleted, a page of them, from the oldest."""
    records = await call.look(call.service.tasks, limit=limit + 1, after=after)
    page, more = records[:limit], len(records) > limit
    return answer(
        TaskPage(data=[Task.of(one) for one in page], has_more=more, next_after=page[-1].id if more else None)
    )


@router.get("/{task}", response_model=Task)
async def get_task(task: str, call: Predicting) -> Response:
    """A task, and the version that predicts for it."""
    record = await call.look(call.service.get, task)
    return answer(Task.of(record), etag=etag(record))
