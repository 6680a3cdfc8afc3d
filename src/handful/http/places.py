"""Parts of paths and queries that several routes have."""

import re
from typing import Annotated

from fastapi import Depends, Path, Query

from handful.errors import UserError
from handful.http.schemas import MOST_VERSIONS

ID = re.compile(r"[a-z]{2,8}_[0-9a-f]{32}")


def checked_task(task: str) -> str:
    """The id of a task; `UserError` for what cannot be one, before a store is asked for it."""
    if not ID.fullmatch(task):
        raise UserError("The task does not exist.", code="not-found")
    return task


async def _task(task: str) -> str:
    return checked_task(task)


async def _example(example: str) -> str:
    if not ID.fullmatch(example):
        raise UserError("The task does not have this example.", code="not-found")
    return example


async def _key(key: str) -> str:
    if not ID.fullmatch(key):
        raise UserError("The key does not exist.", code="not-found")
    return key


TaskId = Annotated[str, Depends(_task)]
ExampleId = Annotated[str, Depends(_example)]
KeyId = Annotated[str, Depends(_key)]
Number = Annotated[int, Path(ge=1, le=MOST_VERSIONS)]
Limit = Annotated[int, Query(ge=1, le=1000, description="Largest number of entries on a page.")]
After = Annotated[str, Query(max_length=64, description="The `next_after` of the previous page.")]
AfterNumber = Annotated[int, Query(ge=0, le=MOST_VERSIONS, description="The `next_after` of the previous page.")]
OfVersion = Annotated[int | None, Query(alias="version", ge=1, le=MOST_VERSIONS, description="Default: the head.")]
Deleted = Annotated[bool, Query(description="List the deleted tasks that are not yet erased instead.")]
Erase = Annotated[bool, Query(description="Erase it from all versions and files, and return a receipt.")]
