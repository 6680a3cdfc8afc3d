"""Clients that leave before they are answered."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from starlette.requests import ClientDisconnect
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
        raise _left() from None
    finally:
        left.cancel()


@contextlib.contextmanager
def while_sent() -> Iterator[None]:
    """Inside, the content of a request is received; `HandfulError` if the client leaves before its end."""
    try:
        yield
    except ClientDisconnect:
        raise _left() from None


def _left() -> HandfulError:
    return HandfulError("The client has disconnected.", code="client-left")


async def _then(receive: Receive, leave: Callable[[], object]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    leave()
