"""A queue with the threads that work it off: bounded, with a deadline for each request."""

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from handful.errors import OverloadedError
from handful.serving.pools import Pool
from handful.serving.waiting import Waiting, Waits

Content = TypeVar("Content")
Answer = TypeVar("Answer")
_Ended: TypeAlias = tuple[Sequence[Answer | Exception], float]
"""The answers of a batch, and the seconds that it took."""

KEPT = 0.8
"""How much of what was measured before counts beside the last batch."""
SECONDS = 0.1
"""For which a batch should run at most, so that others do not wait for long."""
SEVERAL = 1.0
"""Seconds after a request of another tenant than the one before for which several tenants are said to ask."""
PATIENCE = 0.01
"""Seconds for which the event loop stands still for a batch at most."""


@dataclass
class Seen:
    """What became of the requests of a lane since the start.

    taken: how many were taken in.
    refused: on arrival, or for others that asked for less.
    expired: at their deadline.
    left: by their callers before they started.
    rows: that were worked off, in how many batches of how many requests, "sizes", in how many "seconds" of threads.
    """

    taken: int = 0
    refused: int = 0
    expired: int = 0
    left: int = 0
    rows: int = 0
    seconds: float = 0.0
    sizes: Counter[int] = field(default_factory=Counter)


class Lane(Generic[Content, Answer]):
    """Requests of one kind, which wait in the event loop and are worked off in batches by a pool of threads.

    No request waits for others to come: a free thread takes what waits. All methods belong to the event loop.

    pool: of as many threads as batches run at once.
    work: makes of a batch an answer or an error for each request, in their order.
    rows, nbytes: the most that may wait, see `Waiting`.
    together: the most rows of a batch; 1: each request runs alone.
    between_tenants: the same while several tenants ask and most of what waits is of one, so that the others wait for
        shorter batches; None: as many.
    cheap: seconds of a row below which one batch runs at a time, and the event loop waits for it, `PATIENCE` at most:
        such work is mostly Python's, of which one thread at a time runs, and threads that wait for one another at every
        step take twice as long.
    brief: seconds of a row of these, where they wait for nothing but a core; infinity where that is not known. A batch
        that is expected to take less than `PATIENCE` runs in the event loop's own thread: handing it to another one and
        waiting for that takes a tenth of the time of a prediction over HTTP.
    may_wait: the part of its time that a request may be expected to wait. Where that is more, it is refused at once.
    finishes: whether a request is answered as it ends once it has started, whatever its deadline: what was written
        cannot be said to have failed. Else it is given up at its deadline.

    Attributes:
        seen: what became of requests since the start.
    """

    def __init__(
        self,
        pool: Pool,
        work: Callable[[Sequence[Content]], Sequence[Answer | Exception]],
        *,
        rows: int,
        nbytes: int,
        together: int,
        between_tenants: int | None = None,
        cheap: float = 0.0,
        brief: Callable[[Sequence[Content]], float] | None = None,
        may_wait: float = 1.0,
        finishes: bool = False,
    ) -> None:
        self.seen = Seen()
        self._pool, self._work = pool, work
        self._together, self._cheap, self._may_wait, self._finishes = together, cheap, may_wait, finishes
        self._brief = brief
        self._between_tenants = min(together, between_tenants or together)
        self._tenant, self._several_until = "", 0.0
        self._waiting: Waiting[LaneRequest[Content, Answer]] = Waiting(rows, nbytes)
        self._free, self._starting = pool.threads, False
        self._again: asyncio.TimerHandle | None = None
        self._rows, self._seconds, self._between = 0.0, 0.0, 0.0
        self._since: float | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self._waiting.count and self._free == self._pool.threads

    @property
    def waiting(self) -> Waiting[Any]:
        """What waits now."""
        return self._waiting

    async def ask(self, content: Content, *, tenant: str, rows: int, nbytes: int, seconds: float) -> Answer:
        """The answer to a request, or raise the error about it. If this is cancelled before it starts, it never does.

        The arguments and errors are those of `enter`.
        """
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        then = partial(_settle, answered)
        request = self.enter(content, tenant=tenant, rows=rows, nbytes=nbytes, seconds=seconds, then=then)
        try:
            return await answered
        finally:
            self.leave(request)

    def enter(
        self,
        content: Content,
        *,
        tenant: str,
        rows: int,
        nbytes: int,
        seconds: float,
        then: Callable[[Answer | Exception], None],
    ) -> "LaneRequest[Content, Answer]":
        """A request that is answered later; `leave` has to follow.

        tenant: which others it shares with.
        rows, nbytes: its size.
        seconds: until its deadline.
        then: called with the answer or error, unless the request was left. Those of a batch are called as it ends,
            before the event loop reads what others have sent meanwhile.

        Raises `OverloadedError` at once where the deadline cannot be met, and `DataError` for a request that is too
        large. At its deadline an `OverloadedError` is its answer.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        if tenant != self._tenant:
            self._tenant, self._several_until = tenant, now + SEVERAL if self._tenant else 0.0
        request = LaneRequest[Content, Answer](tenant, max(1, rows), nbytes, now, now + seconds, content, then)
        self._take_in(request)
        request.expiry = loop.call_at(request.until, self._expire, request)
        self._start_soon(loop)
        return request

    def leave(self, request: "LaneRequest[Content, Answer]") -> None:
        """Nobody waits for a request any more; if it has not started, it never does."""
        request.answered = True
        if request.expiry is not None:
            request.expiry.cancel()
        if self._waiting.discard(request):
            self.seen.left += 1

    def _take_in(self, request: "LaneRequest[Content, Answer]") -> None:
        self._waiting.check_size(request)
        before = self._waiting.rows_before(request)
        seconds = self._wait(before) if before > self._most() else 0.0  # else it is in the next batch
        if self._waiting.count and seconds > self._may_wait * (request.until - request.since):
            raise self._refusal("too many requests are waiting to finish this one in time.")
        if self._waiting.count and not self._waiting.admits(request):
            raise self._refusal("too many requests are waiting.")
        self.seen.taken += 1
        for other in self._waiting.add(request):
            other.resolve(self._refusal("too many requests are waiting, and other tenants have fewer."))

    def _refusal(self, reason: str) -> OverloadedError:
        """The error of a request that is refused, and counted as such."""
        self.seen.refused += 1
        return OverloadedError(f"Nothing was done: {reason}", retry_after=self._retry_after)

    def _expire(self, request: "LaneRequest[Content, Answer]") -> None:
        """The deadline of a request is over."""
        if self._waiting.discard(request) or not self._finishes:
            self.seen.expired += 1
            request.resolve(
                OverloadedError(
                    "Nothing was done: the time for this request is over.",
                    code="deadline-exceeded",
                    retry_after=self._retry_after,
                )
            )

    @property
    def _retry_after(self) -> int:
        """Seconds after which what waits now is done."""
        return max(1, math.ceil(self._wait(self._waiting.rows)))

    @property
    def _pace(self) -> float:
        """Seconds of a thread for a row, by what was measured last; 0.0 at first."""
        return self._seconds / self._rows if self._rows else 0.0

    def _wait(self, rows: int) -> float:
        """Seconds until so many rows are worked off, by the time that passed last from one batch's end to the next."""
        return rows * self._between / self._rows if self._rows else 0.0

    def _start_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start batches once all has come that is there already."""
        if self._starting or not self._free:
            return
        if self._may_start():
            self._starting = True
            loop.call_soon(self._start, loop)
        elif self._again is None:
            self._again = loop.call_later(SECONDS, self._look_again, loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._starting = False
        while self._may_start() and (batch := self._waiting.take(self._most(), loop.time())):
            self._free -= 1
            self._since = self._since or loop.time()
            if self._is_brief(batch):
                self._finish(batch, loop, self._pool.run(partial(self._run, batch)))
                return
            try:
                running = self._pool.submit(partial(self._run, batch))
            except RuntimeError as error:  # the pool is closed
                self._finish(batch, loop, ([error] * len(batch), 0.0))
                return
            if self._is_cheap and wait([running], PATIENCE).done:
                self._finish(batch, loop, running.result())  # and answer, before others start
                return
            running.add_done_callback(partial(self._ended, batch, loop))
        if self._waiting.count:
            self._start_soon(loop)

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        """What waited for the one thread may have another now."""
        self._again = None
        if self._waiting.count:
            self._start_soon(loop)

    def _may_start(self) -> bool:
        """Whether a batch may run beside those that do."""
        alone = self._free == self._pool.threads
        return bool(self._free) and (alone or not self._is_cheap or self._pool.busy_for > SECONDS)

    @property
    def _is_cheap(self) -> bool:
        """Whether rows take little time, by what was measured last."""
        return 0.0 < self._pace < self._cheap

    def _is_brief(self, batch: "Sequence[LaneRequest[Content, Answer]]") -> bool:
        """Whether the event loop may run a batch itself."""
        if self._brief is None:
            return False
        return sum(one.rows for one in batch) * self._brief([one.content for one in batch]) < PATIENCE

    def _most(self) -> int:
        """Rows of a batch."""
        several = asyncio.get_running_loop().time() < self._several_until
        most = self._between_tenants if several and self._waiting.mostly_of_one else self._together
        return max(1, min(most, int(SECONDS / self._pace))) if self._pace else most

    def _run(self, batch: "Sequence[LaneRequest[Content, Answer]]") -> "_Ended[Answer]":
        """In a thread of the pool, or that of the event loop."""
        started = time.monotonic()
        answers: Sequence[Answer | Exception]
        try:
            answers = self._work([request.content for request in batch])
        except Exception as error:
            answers = [error] * len(batch)
        except BaseException as error:  # which would end the event loop
            answers = [RuntimeError(f"The work ended by {error!r}.")] * len(batch)
        return answers, time.monotonic() - started

    def _ended(
        self,
        batch: "Sequence[LaneRequest[Content, Answer]]",
        loop: asyncio.AbstractEventLoop,
        running: "Future[_Ended[Answer]]",
    ) -> None:
        """In a thread of the pool, or where it was quick in that of the event loop."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(self._finish, batch, loop, running.result())

    def _finish(
        self,
        batch: "Sequence[LaneRequest[Content, Answer]]",
        loop: asyncio.AbstractEventLoop,
        ended: "_Ended[Answer]",
    ) -> None:
        answers, seconds = ended
        rows, now = sum(request.rows for request in batch), loop.time()
        between = now - (self._since or now)
        self._since = now if self._waiting.count or self._free + 1 < self._pool.threads else None
        self._free += 1
        self._rows, self._seconds = KEPT * self._rows + rows, KEPT * self._seconds + seconds
        self._between = KEPT * self._between + between
        self.seen.sizes[len(batch)] += 1
        self.seen.rows += rows
        self.seen.seconds += seconds
        for request, answer in zip(batch, answers, strict=True):
            request.resolve(answer)
        self._start_soon(loop)


@dataclass(eq=False)
class LaneRequest(Waits, Generic[Content, Answer]):
    """A request.

    then: gets its answer.
    expiry: what ends it at its deadline.
    answered: whether it was, or was left.
    """

    content: Content
    then: Callable[[Answer | Exception], None]
    expiry: asyncio.TimerHandle | None = None
    answered: bool = False

    def resolve(self, answer: Answer | Exception) -> None:
        """Answer it, unless nobody waits for that any more."""
        if self.answered:
            return
        self.answered = True
        try:
            self.then(answer)
        except Exception as error:  # which concerns this request, and no other one of its batch
            context = {"message": "A request could not be answered.", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


def _settle(future: "asyncio.Future[Answer]", answer: Answer | Exception) -> None:
    if isinstance(answer, StopIteration):
        answer = RuntimeError("The work ended by StopIteration.")  # which no future takes
    if future.done():  # its caller was cancelled
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
