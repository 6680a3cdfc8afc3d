"""Clients that leave before they are answered."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.types import Receive

from handful.errors import HandfulError

Result = TypeVar("Result")


async def while_there(receive: Receive, answer: Awaitable[Result]) -> Result:
    """What is awaited; cancelled as soon as the client has left.

    receive: gave the request's content whole, so that what it gives next says that the client has left.

    Raises `HandfulError` then, which nobody sees but the log.
    """
    task = asyncio.current_task()
    assert task is not None, "this runs in a task"
    left = asyncio.ensure_future(_then(receive, task.cancel))
    try:
        return await answer
    except asyncio.CancelledError:
        if not left.done():
            raise
        task.uncancel()
        raise HandfulError("The client has left.", code="client-left") from None
    finally:
        left.cancel()


async def _then(receive: Receive, leave: Callable[[], object]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    leave()
