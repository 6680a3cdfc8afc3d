"""Routes of a task's versions: what changed, and which of them predicts."""

from fastapi import APIRouter
from starlette.responses import Response

from handful.http.calls import Predicting, Seen, Writing, answer, etag
from handful.http.documents import takes
from handful.http.places import AfterNumber, Limit, Number, TaskId
from handful.http.reading import content_of
from handful.http.schemas import RollBack, Task, Version, VersionPage

router = APIRouter(prefix="/v1/tasks/{task}", tags=["versions"])


@router.get("/versions", response_model=VersionPage)
async def list_versions(task: TaskId, call: Predicting, limit: Limit = 100, after: AfterNumber = 0) -> Response:
    """The versions of a task from the first, a page of them."""
    found = await call.look(call.service.versions, task, limit=limit + 1, after=after)
    page, more = found[:limit], len(found) > limit
    data = [Version.of(one) for one in page]
    return answer(VersionPage(data=data, has_more=more, next_after=page[-1].number if more else None))


@router.get("/versions/{version}", response_model=Version)
async def get_version(task: TaskId, version: Number, call: Predicting) -> Response:
    """One version of a task."""
    return answer(Version.of(await call.look(call.service.version, task, version)))


@router.post("/rollback", response_model=Task, **takes(RollBack))
async def roll_back(task: TaskId, call: Writing, seen: Seen) -> Response:
    """Let an earlier or later version predict from now on; no version is lost."""
    given = await content_of(call, RollBack)
    record = await call.change(call.service.roll_back, task, given.version, expected=seen)
    return answer(Task.of(record), etag=etag(record))
