"""What an event loop asks of a service: predictions in batches, changes, looks and more, each with its own queue."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from handful.errors import HandfulError, UserError
from handful.serving.lanes import Lane, LaneRequest
from handful.serving.pools import Pool
from handful.serving.predicting import Asked, Unread
from handful.serving.records import Predictions
from handful.serving.service import Service

Result = TypeVar("Result")

DEADLINE, LONGEST = 2.0, 60.0
"""Seconds for a request, where it does not say how many, and at the most."""
CHECK = 2.0
"""Seconds for a look at a key, before it is known what the request says."""
TOGETHER = 32
"""Rows that are predicted in one go: more would hardly take less time each, and others wait until they are done."""
BETWEEN_TENANTS = 8
"""The same while several tenants ask, and one of them more than all others: these wait for one of its batches."""
CHEAP = 0.001
"""Seconds of a row below which predictions are one thread's work."""
MAY_WAIT = 1 / 3
"""The part of its time that a prediction may be expected to wait: that is a guess, and `late` is a half."""
SCORES = 100
"""What the changes that wait may cost, by the rows that may: a score adapts a task so often."""


class Batcher:
    """Runs the requests of one event loop in a service's threads, in bounded queues that its tenants share.

    Predictions that wait are made together, whichever tenants and tasks they are of. A change runs by itself; once it
    has started it is waited for, whatever its deadline, since what it writes may be kept.

    service: whose tasks they are.
    predicting, adapting, converting: threads for each. A change waits for the disk most of the time.
    looking, checking: threads for what is short, and for looks at keys, which wait for no others: before it is known
        whose a request is, nobody's queue can hold it up.
    rows, nbytes: the most that may wait in each queue, where changes cost up to `SCORES` times as much.

    Attributes:
        lanes: "predict", "adapt", "convert", "look" and "check", with what was seen of them.
    """

    def __init__(
        self,
        service: Service,
        *,
        predicting: int = 2,
        adapting: int = 8,
        converting: int = 2,
        looking: int = 4,
        checking: int = 2,
        rows: int = 20_000,
        nbytes: int = 64 * 2**20,
    ) -> None:
        threads = {"predict": predicting, "adapt": adapting, "convert": converting, "look": looking, "check": checking}
        self._pools = {name: Pool(name, count) for name, count in threads.items()}

        def of_single_ones(name: str, most: int) -> Lane[Callable[[], Any], Any]:
            return Lane(self._pools[name], _done, rows=most, nbytes=nbytes, together=1, finishes=True)

        self._predictions: Lane[Asked | Unread, Predictions] = Lane(
            self._pools["predict"],
            service.predictor.predict,
            rows=rows,
            nbytes=nbytes,
            together=TOGETHER,
            between_tenants=BETWEEN_TENANTS,
            cheap=CHEAP,
            brief=service.predictor.seconds_of_row,
            may_wait=MAY_WAIT,
        )
        self.lanes: Mapping[str, Lane[Any, Any]] = {
            "predict": self._predictions,
            "adapt": of_single_ones("adapt", SCORES * rows),
            **{name: of_single_ones(name, rows) for name in ("convert", "look", "check")},
        }
        self._costliest, self._closing = SCORES * rows, False

    async def predict(
        self,
        tenant: str,
        task: str,
        inputs: Sequence[Any],
        *,
        version: int | None = None,
        top: int | None = None,
        deadline: float = DEADLINE,
        nbytes: int = 0,
    ) -> Predictions:
        """What `Service.predict` returns or raises, together with other requests.

        deadline: seconds for it, at most 60.
        nbytes: that the inputs hold in memory.

        Raises `OverloadedError` where that takes longer, at once if it is clear then, and `DataError` where the inputs
        are more than all that may wait.
        """
        self._check(deadline)
        asked = Asked(tenant, task, inputs, version, top)
        return await self._predictions.ask(asked, tenant=tenant, rows=len(inputs), nbytes=nbytes, seconds=deadline)

    def enter(
        self,
        tenant: str,
        task: str,
        read: Callable[[], Asked],
        *,
        rows: int,
        deadline: float,
        nbytes: int,
        then: Callable[[Predictions | Exception], None],
    ) -> LaneRequest[Any, Predictions]:
        """The same for a caller that does not wait here; `leave` has to follow.

        read: returns what is asked for of the task, by its head; what it raises is the answer.
        rows: of inputs.
        then: called with the answer or error, in the event loop.
        """
        self._check(deadline)
        asked = Unread(tenant, task, read)
        return self._predictions.enter(asked, tenant=tenant, rows=rows, nbytes=nbytes, seconds=deadline, then=then)

    def leave(self, request: LaneRequest[Any, Predictions]) -> None:
        """Nobody waits for a request any more, answered or not."""
        self._predictions.leave(request)

    async def adapt(
        self, tenant: str, cost: int, work: Callable[[], Result], *, deadline: float = DEADLINE, nbytes: int = 0
    ) -> Result:
        """What a change returns or raises, such as a call of `Service.create`.

        cost: examples that it adapts to, as often as it does; a change that costs more than all that may wait is taken
            where nothing waits.
        deadline, nbytes: as for `predict`, but a change that has started by then is waited for to its end, and one
            whose caller is cancelled goes on.
        """
        return await self._single("adapt", tenant, work, deadline, nbytes, min(cost, self._costliest))

    async def convert(
        self, tenant: str, work: Callable[[], Result], *, deadline: float = DEADLINE, nbytes: int = 0
    ) -> Result:
        """What a piece of work returns or raises that changes nothing, but reads or makes much content.

        deadline, nbytes: as for `adapt`.
        """
        return await self._single("convert", tenant, work, deadline, nbytes)

    async def look(
        self, tenant: str, work: Callable[[], Result], *, deadline: float = DEADLINE, nbytes: int = 0
    ) -> Result:
        """What a short piece of work returns or raises, such as a look at the store, or a block that is written.

        deadline, nbytes: as for `adapt`.
        """
        return await self._single("look", tenant, work, deadline, nbytes)

    async def check(self, token: str, work: Callable[[], Result]) -> Result:
        """What a look at a key returns or raises.

        token: the key, each of which has its own turn.
        """
        return await self._single("check", token, work, CHECK, 0)

    def check_beside(self, work: Callable[[], None]) -> None:
        """Have a look at a key that no request waits for."""
        with contextlib.suppress(RuntimeError):  # closed
            self._pools["check"].submit(work)

    async def _single(
        self, lane: str, tenant: str, work: Callable[[], Result], deadline: float, nbytes: int, rows: int = 1
    ) -> Result:
        self._check(deadline)
        asked = self.lanes[lane].ask(work, tenant=tenant, rows=rows, nbytes=nbytes, seconds=deadline)
        return cast(Result, await asked)

    @property
    def busy_for(self) -> Mapping[str, float]:
        """Seconds for which the piece of work has run that was started first, of each lane."""
        return {name: pool.busy_for for name, pool in self._pools.items()}

    async def close(self, seconds: float | None = None) -> bool:
        """Take no more requests, finish those that were taken, and end the threads.

        seconds: after which threads that hang are left; None: none is.

        Returns whether all was finished.
        """
        self._closing = True
        until = math.inf if seconds is None else time.monotonic() + seconds
        while not (finished := all(lane.idle for lane in self.lanes.values())) and time.monotonic() < until:
            await asyncio.sleep(0.01)
        for pool in self._pools.values():
            pool.close(None if finished else 0.0)
        return finished

    def _check(self, deadline: float) -> None:
        if self._closing:
            raise HandfulError("The service is closing.", code="closed")
        if not 0 < deadline <= LONGEST:
            raise UserError(f"The deadline is above 0 and at most {LONGEST:.0f} seconds, not {deadline:g}.")


def _done(work: Sequence[Callable[[], Result]]) -> list[Result | Exception]:
    return [one() for one in work]
