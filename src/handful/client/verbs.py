"""One definition for two faces: a method that plans requests, called by a blocking client or an awaited one."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from handful.client.calls import Call, Plan, ask
from handful.client.connection import Awaiting, Blocking
from handful.client.records import Page
from handful.errors import HandfulError

Given = ParamSpec("Given")
Result = TypeVar("Result")
Item = TypeVar("Item")


class verb(Generic[Given, Result]):  # noqa: N801 - a decorator
    """A method that is a plan: a blocking client returns its result, an awaited one what to await."""

    def __init__(self, plan: Callable[Concatenate[Any, Given], Plan[Result]]) -> None:
        self._plan = plan

    @overload
    def __get__(self, client: None, kind: type) -> Callable[Concatenate[Any, Given], Plan[Result]]: ...

    @overload
    def __get__(self, client: Blocking, kind: type) -> Callable[Given, Result]: ...

    @overload
    def __get__(self, client: Awaiting, kind: type) -> Callable[Given, Awaitable[Result]]: ...

    def __get__(self, client: Any, kind: type) -> Any:
        if client is None:
            return self._plan
        plan = MethodType(self._plan, client)

        @functools.wraps(plan)
        def method(*arguments: Any, **named: Any) -> Any:
            return client._carried_out(plan(*arguments, **named))

        return method


class listing(Generic[Given, Item]):  # noqa: N801 - a decorator
    """A method that is the call of a list's page `after` an item: a client iterates over the items of all pages."""

    def __init__(self, first: Callable[Concatenate[Any, Given], Call[Page[Item]]]) -> None:
        self._first = first

    @overload
    def __get__(self, client: None, kind: type) -> Self: ...

    @overload
    def __get__(self, client: Blocking, kind: type) -> Callable[Given, Iterator[Item]]: ...

    @overload
    def __get__(self, client: Awaiting, kind: type) -> Callable[Given, AsyncIterator[Item]]: ...

    def __get__(self, client: Any, kind: type) -> Any:
        if client is None:
            return self._first
        first = MethodType(self._first, client)
        iterated = _items if isinstance(client, Blocking) else _items_awaiting

        @functools.wraps(first)
        def method(*arguments: Any, **named: Any) -> Any:
            return iterated(client, first(*arguments, **named))

        return method


def _items(client: Blocking, page: Call[Page[Item]]) -> Iterator[Item]:
    after: str | int | None = None
    while True:
        found: Page[Item] = client._carried_out(ask(_following(page, after)))
        yield from found.data
        if not found.has_more:
            return
        after = _moved(after, found)


async def _items_awaiting(client: Awaiting, page: Call[Page[Item]]) -> AsyncIterator[Item]:
    after: str | int | None = None
    while True:
        found: Page[Item] = await client._carried_out(ask(_following(page, after)))
        for item in found.data:
            yield item
        if not found.has_more:
            return
        after = _moved(after, found)


def _following(page: Call[Page[Item]], after: str | int | None) -> Call[Page[Item]]:
    return page if after is None else replace(page, query={**page.query, "after": after})


def _moved(after: str | int | None, page: Page[Any]) -> str | int:
    """Where the next page begins; `HandfulError` if it is this one again, without end."""
    if page.next_after is None or page.next_after == after:
        raise HandfulError("The server repeats the same page of a list. Check its version.")
    return page.next_after
