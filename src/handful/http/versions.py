"""Routes of a task's versions: what changed, and which of them predicts."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from handful.http.answers import response_of
from handful.http.calls import Expected, Predicting, Seen, Writing, cost_of, etag
from handful.http.documents import takes
from handful.http.places import AfterNumber, Limit, Number, TaskId
from handful.http.reading import Source, as_examples, content_of, uploads_made_of
from handful.http.schemas import Evaluate, Evaluation, Pin, Readapt, Readapted, RollBack, Task, Version, VersionPage

router = APIRouter(prefix="/v1/tasks/{task}", tags=["versions"])


@router.get("/versions", response_model=VersionPage)
async def list_versions(task: TaskId, call: Predicting, limit: Limit = 100, after: AfterNumber = 0) -> Response:
    """The versions of a task from the first, a page of them."""
    found = await call.look(call.service.versions, task, limit=limit + 1, after=after)
    page, more = found[:limit], len(found) > limit
    data = [Version.of(one) for one in page]
    return response_of(VersionPage(data=data, has_more=more, next_after=page[-1].number if more else None))


@router.get("/versions/{version}", response_model=Version)
async def get_version(task: TaskId, version: Number, call: Predicting) -> Response:
    """One version of a task."""
    return response_of(Version.of(await call.look(call.service.version, task, version)))


@router.post("/rollback", response_model=Task, **takes(RollBack))
async def roll_back(task: TaskId, call: Writing, seen: Seen) -> Response:
    """Let an earlier or later version predict from now on; no version is lost."""
    given = await content_of(call, RollBack)
    record = await call.change(call.service.roll_back, task, given.version, expected=seen)
    return response_of(Task.of(record), etag=etag(record))


@router.post("/versions/{version}/pin", response_model=Version, **takes(Pin))
async def pin_version(task: TaskId, version: Number, call: Writing) -> Response:
    """Keep the state of a version, so that it predicts at once however many follow; or let go of it again."""
    given = await content_of(call, Pin)
    return response_of(Version.of(await call.change(call.service.pin, task, version, given.pinned)))


@router.post("/readapt", response_model=Readapted, **takes(Readapt))
async def readapt(task: TaskId, call: Writing, expected: Expected) -> Response:
    """Move a task to the present model of its model's name, unless its score would fall significantly."""
    await content_of(call, Readapt)
    head = (await call.look(call.service.get, task)).head
    made = await call.change_once(
        call.service.readapt, task, expected=expected, cost=cost_of(head.examples or 1, scores=2)
    )
    return response_of(Readapted.shown(made), etag=etag(made.task))


@router.post("/evaluate", response_model=Evaluation, **takes(Evaluate, upload=True))
async def evaluate(task: TaskId, call: Predicting) -> Response:
    """Score a version on given examples, or on its own, each predicted by the task adapted without it."""
    head = (await call.look(call.service.get, task)).head

    def read(given: Evaluate, source: Source) -> tuple[int | None, list[Any] | None, list[Any] | None]:
        if given.examples is None and source.file is None:
            return given.version, None, None
        return given.version, *source.examples(given.examples, call.service.model_of(head))

    version, inputs, labels = await uploads_made_of(call, Evaluate, read)
    cost = cost_of(head.examples or 1, scores=1) if inputs is None else len(inputs)
    with as_examples():
        scores = await call.adapt(call.service.evaluate, task, inputs, labels, version=version, cost=cost)
    return response_of(Evaluation.of(scores))
