"""Routes of tasks as a whole: made, looked at, deleted, and moved as files."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from handful.errors import ArtifactError, DataError
from handful.http.answers import response_of, response_of_file
from handful.http.calls import IdempotencyKey, Predicting, Seen, Writing, cost_of, etag
from handful.http.documents import takes, takes_file
from handful.http.places import After, Deleted, Erase, Limit, OfVersion, TaskId
from handful.http.reading import Source, as_examples, content_of, counted, uploads_made_of
from handful.http.schemas import CreateTask, Name, Receipt, Rename, Task, TaskPage

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])

FILE = "application/octet-stream"


@router.post("", status_code=201, response_model=Task, **takes(CreateTask, upload=True))
async def create_task(call: Writing, key: IdempotencyKey = None) -> Response:
    """Adapt a new task to examples, and keep it."""

    def read(given: CreateTask, source: Source) -> tuple[CreateTask, list[Any], list[Any]]:
        return given, *source.examples(given.examples, call.service.model(given.model))

    given, inputs, labels = await uploads_made_of(call, CreateTask, read)
    with as_examples():
        record = await call.change(
            call.service.create,
            given.name,
            inputs,
            labels,
            model=given.model,
            keep_examples=given.keep_examples,
            estimate=given.estimate,
            cost=cost_of(len(inputs), scores=int(given.estimate)),
            idempotency_key=key,
        )
    return response_of(Task.of(record), 201, location=f"/v1/tasks/{record.id}", etag=etag(record))


@router.post("/import", status_code=201, response_model=Task, **takes_file(FILE))
async def import_task(call: Writing, name: Annotated[Name, Query()], key: IdempotencyKey = None) -> Response:
    """Make a task of the file of an adapted task, which may be from elsewhere. Its model has to be here."""
    content = await counted(call.request, call.server.limits.upload_bytes)
    try:
        record = await call.change(call.service.import_task, name, content, idempotency_key=key)
    except ArtifactError as error:  # the file is the caller's
        raise DataError(error.message, hint=error.hint) from error
    return response_of(Task.of(record), 201, location=f"/v1/tasks/{record.id}", etag=etag(record))


@router.get("", response_model=TaskPage)
async def list_tasks(call: Predicting, limit: Limit = 100, after: After = "", deleted: Deleted = False) -> Response:
    """Tasks that are not deleted, or those that are, a page of them, from the oldest."""
    records = await call.look(call.service.tasks, limit=limit + 1, after=after, deleted=deleted)
    page, more = records[:limit], len(records) > limit
    return response_of(
        TaskPage(data=[Task.of(one) for one in page], has_more=more, next_after=page[-1].id if more else None)
    )


@router.get("/{task}", response_model=Task)
async def get_task(task: TaskId, call: Predicting) -> Response:
    """A task, and the version that predicts for it."""
    record = await call.look(call.service.get, task)
    return response_of(Task.of(record), etag=etag(record))


@router.patch("/{task}", response_model=Task, **takes(Rename))
async def rename_task(task: TaskId, call: Writing, seen: Seen) -> Response:
    """Give a task another name; it is no new version."""
    given = await content_of(call, Rename)
    record = await call.change(call.service.rename, task, given.name, expected=seen)
    return response_of(Task.of(record), etag=etag(record))


@router.delete("/{task}", status_code=204, responses={200: {"model": Receipt, "description": "It is erased."}})
async def delete_task(task: TaskId, call: Writing, seen: Seen, erase: Erase = False) -> Response:
    """Delete a task, which can be restored for 7 days; or erase it at once, also after it was deleted."""
    if erase:
        return response_of(Receipt.of(await call.change(call.service.erase_task, task, expected=seen)))
    await call.change(call.service.delete, task, expected=seen)
    return Response(status_code=204)


@router.post("/{task}/restore", response_model=Task)
async def restore_task(task: TaskId, call: Writing) -> Response:
    """Bring back a task that was deleted in the last 7 days; a conflict where another one has its name now."""
    record = await call.change(call.service.restore, task)
    return response_of(Task.of(record), etag=etag(record))


@router.get(
    "/{task}/export",
    response_class=Response,
    responses={200: {"content": {FILE: {}}, "description": "The file."}},
)
async def export_task(task: TaskId, call: Predicting, version: OfVersion = None) -> Response:
    """A version as the file of an adapted task, with its examples where they are kept; handful and import read it."""
    export = partial(call.service.export, task, version, tenant=call.identity.tenant)
    content = await call.convert(export)
    return response_of_file(content, FILE, f"{task}.task")
