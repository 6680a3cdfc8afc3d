"""One request as routes see it: who asks, and the service, whose methods run in threads of their own."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request

from handful.errors import HandfulError, OverloadedError, UserError
from handful.http.authorization import token_of
from handful.http.leaving import while_there
from handful.http.limits import RequestLimits
from handful.http.places import checked_task
from handful.serving.batcher import DEADLINE, LONGEST, Batcher
from handful.serving.keys import Identity
from handful.serving.log_lines import log_line
from handful.serving.records import Predictions, TaskRecord
from handful.serving.scoring import cost_of_score
from handful.serving.service import Service

Result = TypeVar("Result")

LEAST_SECONDS = 0.001
"""That are left for a request, so that its queue says when it is too late."""

LOOK_AGAIN = 0.3
"""Seconds before a key is to be looked at again, in which this is done beside its requests."""

log = logging.getLogger("handful.http")


@dataclass(frozen=True)
class Server:
    """What all requests share.

    service: what does the work.
    batcher: the queues of all that is done in threads.
    limits: of each request.
    spool: the folder for uploads.
    """

    service: Service
    batcher: Batcher
    limits: RequestLimits
    spool: Path
    _looking_up: "dict[str, asyncio.Future[Identity]]" = field(default_factory=dict, repr=False)
    _looking_again: set[str] = field(default_factory=set, repr=False)
    _shared: "dict[tuple[str, str, str], _Change]" = field(default_factory=dict, repr=False)

    async def identity(self, token: str) -> Identity:
        """Whose key this is; `UserError` where it is none, `OverloadedError` where that takes too long to look up."""
        held = self.held(token)
        if held is not None:
            return held
        if token not in self._looking_up:  # once for all requests that wait for it
            looking = asyncio.ensure_future(self.batcher.check(token, partial(self.service.keys.check, token)))
            looking.add_done_callback(lambda _: self._looking_up.pop(token))
            self._looking_up[token] = looking
        return await asyncio.shield(self._looking_up[token])

    def held(self, token: str) -> Identity | None:
        """Whose key this is where that was read a moment ago. It is read anew before that is over: who asks steadily
        never waits for it."""
        keys = self.service.keys
        held = keys.held(token)
        if held is not None and keys.seconds_held(token) < LOOK_AGAIN and token not in self._looking_again:
            self._looking_again.add(token)
            self.batcher.check_beside(partial(self._look_again, token))
        return held

    def _look_again(self, token: str) -> None:
        """In a thread. An error about the key goes to all requests that wait for it to be read."""
        with contextlib.suppress(Exception):
            self.service.keys.read(token)
        self._looking_again.discard(token)

    async def close(self, seconds: float | None = None) -> None:
        """Finish what was taken in, and end the threads.

        seconds: after which threads that hang are left; None: none is.
        """
        if not await self.batcher.close(seconds):
            log.error(log_line("hanging", seconds=self.busy_for))

    @property
    def busy_for(self) -> Mapping[str, float]:
        """Seconds for which the piece of work has run that was started first, of each kind of thread."""
        return {**self.batcher.busy_for, "write": self.service.store.busy_for}


@dataclass
class _Change:
    """A change that others wait for.

    terms: the key in whose name it is, and the version that it expects.
    work: makes it, in a thread.
    started: whether it runs, or has.
    answer: what it returns.
    wanted: how many requests wait for that.
    """

    terms: tuple[str, int | None]
    work: Callable[[], Any]
    started: bool = False
    answer: "asyncio.Future[Any]" = field(init=False)
    wanted: int = 0

    def run(self) -> Any:
        self.started = True
        return self.work()

    @contextlib.contextmanager
    def awaited(self, terms: tuple[str, int | None]) -> Iterator[None]:
        """Inside, a request waits. Once none does that wants the answer, what has not started is dropped."""
        own = int(terms == self.terms)
        self.wanted += own
        try:
            yield
        finally:
            self.wanted -= own
            if not self.wanted and not self.started:
                self.answer.cancel()


@dataclass(frozen=True)
class Call:
    """A request of someone who may make it. What has not started when the client leaves is not done.

    seconds: within which it wants an answer, once its content is there.
    """

    server: Server
    request: Request
    identity: Identity
    seconds: float

    @property
    def service(self) -> Service:
        """Whose methods `look` and `change` run."""
        return self.server.service

    @property
    def seconds_left(self) -> float:
        """What is left of the seconds, at least `LEAST_SECONDS`."""
        since: float = self.request.state.since
        return max(LEAST_SECONDS, self.seconds - (time.monotonic() - since))

    async def look(self, method: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """What a method of the service returns that changes nothing, for the tenant of this request."""
        return await self.run(method, *arguments, tenant=self.identity.tenant, **named)

    async def run(self, work: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """What a short piece of work returns, whoever it is about."""
        short = partial(work, *arguments, **named)
        return await self.server.batcher.look(self.identity.tenant, short, deadline=self.seconds_left)

    async def spool(self, work: Callable[..., Result], *blocks: bytes) -> Result:
        """What is made of blocks of the request's content, while others are still coming: its time has not begun."""
        short, size = partial(work, *blocks), sum(map(len, blocks))
        return await self.server.batcher.look(self.identity.tenant, short, deadline=self.seconds, nbytes=size)

    async def convert(self, work: Callable[[], Result]) -> Result:
        """What a piece of work returns that reads the request's content, or makes much for the answer to it."""
        asked = self.server.batcher.convert(
            self.identity.tenant, work, deadline=self.seconds_left, nbytes=_size(self.request)
        )
        return await while_there(self.request.receive, asked)

    async def change(self, method: Callable[..., Result], *arguments: Any, cost: int = 1, **named: Any) -> Result:
        """What a method of the service returns that changes something, in the name of the request's key.

        cost: examples that tasks are adapted to, in all.
        """
        return await self.adapt(method, *arguments, actor=self.identity.key, cost=cost, **named)

    async def adapt(self, method: Callable[..., Result], *arguments: Any, cost: int, **named: Any) -> Result:
        """What a method of the service returns that adapts to examples; cost: how many in all."""
        tenant, size = self.identity.tenant, _size(self.request)
        work = partial(method, *arguments, tenant=tenant, **named)
        asked = self.server.batcher.adapt(tenant, cost, work, deadline=self.seconds_left, nbytes=size)
        return await self._to_its_end(asked)

    async def _to_its_end(self, change: Awaitable[Result]) -> Result:
        """What a change returns, which may go on when this request does not."""
        try:
            return await while_there(self.request.receive, change)
        except asyncio.CancelledError:
            raise HandfulError(
                "The server is shutting down; this request may have been carried out. Check before you repeat it.",
                code="failed",
            ) from None

    async def change_once(self, method: Callable[..., Result], task: str, *, expected: int | None, cost: int) -> Result:
        """What a method of the service returns that changes a task.

        Requests for this that come meanwhile wait in no thread, each until its own deadline: those of the same key for
        the same have its answer, others come next, in their own name.
        """
        return await self._to_its_end(self._changed_once(method, task, expected, cost))

    async def _changed_once(self, method: Callable[..., Result], task: str, expected: int | None, cost: int) -> Result:
        tenant, actor, shared = self.identity.tenant, self.identity.key, self.server._shared
        key, terms = (method.__name__, tenant, task), (actor, expected)
        while (change := shared.get(key)) is not None:
            with change.awaited(terms):
                await asyncio.wait([change.answer], timeout=self.seconds_left)
                if change.started and change.terms == terms and not change.answer.cancelled():
                    return await asyncio.shield(change.answer)
            if not change.answer.done():
                raise OverloadedError(
                    "Nothing was done: the time for this request is over, and another change of the task is in "
                    "progress.",
                    code="deadline-exceeded",
                )
        change = shared[key] = _Change(terms, partial(method, task, tenant=tenant, actor=actor, expected=expected))
        change.answer = asyncio.ensure_future(
            self.server.batcher.adapt(tenant, cost, change.run, deadline=self.seconds_left)
        )
        change.answer.add_done_callback(lambda _: shared.pop(key))
        with change.awaited(terms):
            return await asyncio.shield(change.answer)

    async def predict(
        self,
        task: str,
        inputs: Sequence[Any],
        version: int | None = None,
        top: int | None = None,
    ) -> Predictions:
        """What a task predicts, together with other requests; see `Service.predict`."""
        return await while_there(self.request.receive, self._predicted(task, inputs, version, top))

    async def predict_each(
        self, wanted: Sequence[tuple[str, Sequence[Any], int | None, int | None]]
    ) -> list[Predictions]:
        """What several tasks predict, asked for as one each; the first error is that of all, and says whose it is."""
        total = max(1, sum(len(inputs) for _, inputs, _, _ in wanted))

        async def placed(
            place: int, task: str, inputs: Sequence[Any], version: int | None, top: int | None
        ) -> Predictions:
            try:
                return await self._predicted(checked_task(task), inputs, version, top, share=len(inputs) / total)
            except HandfulError as error:
                error.field = (place, *error.field)
                raise

        parts = [asyncio.ensure_future(placed(place, *one)) for place, one in enumerate(wanted)]
        try:
            return await while_there(self.request.receive, asyncio.gather(*parts))
        finally:
            for part in parts:
                part.cancel()

    async def _predicted(
        self, task: str, inputs: Sequence[Any], version: int | None, top: int | None, share: float = 1.0
    ) -> Predictions:
        """What a task predicts.

        share: how much of the request's content these inputs are.
        """
        return await self.server.batcher.predict(
            self.identity.tenant,
            task,
            inputs,
            version=version,
            top=top,
            deadline=self.seconds_left,
            nbytes=int(share * _size(self.request)),
        )


def _size(request: Request) -> int:
    """Bytes that a request's content holds."""
    return getattr(request.state, "size", 0)


Deadline = Annotated[
    int,
    Header(
        alias="X-Request-Timeout-Ms",
        ge=1,
        le=int(LONGEST * 1000),
        description=(
            "Milliseconds for the request: if the result would be later, it is refused, unless it is already being "
            "written."
        ),
    ),
]


def allowed(scope: str) -> Any:
    """The call of a request whose key has a scope, as a dependency of a route."""

    async def call(request: Request, milliseconds: Deadline = int(DEADLINE * 1000)) -> Call:
        server: Server = request.app.state.server
        identity = await server.identity(token_of(request.headers))
        identity.require(scope)
        request.state.identity, request.state.since = identity, time.monotonic()
        return Call(server, request, identity, milliseconds / 1000)

    return Depends(call)


Predicting = Annotated[Call, allowed("predict")]
Writing = Annotated[Call, allowed("write")]
Administering = Annotated[Call, allowed("admin")]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="A key of your choice, unique per request: a request sent again with it is not carried out twice.",
    ),
]


async def _expected(
    if_match: Annotated[
        str | None,
        Header(alias="If-Match", description="The required version of the task, as in its ETag, or *."),
    ] = None,
) -> int | None:
    """The version that If-Match names; None for any."""
    if if_match is None or if_match.strip() == "*":
        return None
    number = if_match.strip().removeprefix("W/").strip('"')
    if not number.isascii() or not number.isdecimal() or len(number) > 9:
        raise UserError("The task is not at that version.", code="version-conflict", field=("If-Match",))
    return int(number)


Expected = Annotated[int | None, Depends(_expected)]


async def _seen(request: Request, expected: Expected) -> int | None:
    if "if-match" not in request.headers:
        raise UserError(
            "Another change may have been made meanwhile. Send If-Match with the version that you read, or * for any.",
            code="precondition-required",
        )
    return expected


Seen = Annotated[int | None, Depends(_seen)]
"""The same where a request has to name one."""


def cost_of(examples: int, *, scores: int) -> int:
    """What it costs to adapt a task to examples, and to score it on them so many times, each without itself."""
    return examples + scores * cost_of_score(examples)


def etag(record: TaskRecord) -> str:
    """The tag of a task as it is: the number of its version."""
    return f'"{record.head.number}"'
