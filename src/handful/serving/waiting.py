"""Requests that wait for a free thread: bounded, and taken fairly between tenants."""

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from handful.errors import DataError, count_of

Waiter = TypeVar("Waiter", bound="Waits")


@dataclass(eq=False)
class Waits:
    """A request that may have to wait.

    tenant: whose it is.
    rows: of input, in which its cost is counted; one at least.
    nbytes: that it holds in memory.
    since, until: when it came, and when it is too late for it, in seconds on one clock.
    """

    tenant: str
    rows: int
    nbytes: int
    since: float
    until: float

    def late(self, now: float) -> bool:
        """Whether more than half of its time is over."""
        return now - self.since > (self.until - self.since) / 2


class Waiting(Generic[Waiter]):
    """Requests in one queue for each tenant. Not safe to use from several threads.

    Tenants take turns by cost: next is the one that had the fewest rows since it began to wait. Within a tenant the
    oldest is next, unless half of its time is over: then the newest is, which can still be answered in time.

    rows, nbytes: the most that may wait, of all tenants together.

    Attributes:
        count, rows, nbytes: of what waits now.
    """

    def __init__(self, rows: int, nbytes: int) -> None:
        self._most_rows, self._most_bytes = rows, nbytes
        self._queues: dict[str, _Queue[Waiter]] = {}
        self._turns: list[_Queue[Waiter]] = []  # a heap; a queue leaves it when its turn comes and it is empty
        self._time = 0
        self.count = self.rows = self.nbytes = 0

    @property
    def mostly_of_one(self) -> bool:
        """Whether one tenant has more than half of the rows that wait."""
        return 2 * max((queue.rows for queue in self._queues.values()), default=0) > self.rows

    def check_size(self, waiter: Waiter) -> None:
        """Raise `DataError` for a request that is larger than all that may wait: it could never be taken in."""
        if waiter.rows > self._most_rows or waiter.nbytes > self._most_bytes:
            raise DataError(
                f"The request has {count_of(waiter.rows, 'input')} in {waiter.nbytes:,} bytes. At most "
                f"{self._most_rows:,} in {self._most_bytes:,} bytes are allowed. Send several smaller requests.",
                code="payload-too-large",
            )

    def admits(self, waiter: Waiter) -> bool:
        """Whether the queue has room, or its tenant has less than an equal share of it."""
        if self._fits(waiter):
            return True
        return self._share(waiter.tenant, waiter) * len(self._queues.keys() | {waiter.tenant}) <= 1

    def add(self, waiter: Waiter) -> list[Waiter]:
        """Let a request wait that is admitted; returns those that leave for it, the newest of the largest tenants."""
        leaving = []
        while not self._fits(waiter):
            largest = max(self._queues, key=self._share)
            newest = next(reversed(self._queues[largest].waiters))
            self.discard(newest)
            leaving.append(newest)
        queue = self._queues.get(waiter.tenant)
        if queue is None:
            queue = self._queues[waiter.tenant] = _Queue(waiter.tenant, self._time)
            heapq.heappush(self._turns, queue)
        queue.waiters[waiter] = None
        self._count(queue, waiter, 1)
        return leaving

    def discard(self, waiter: Waiter) -> bool:
        """Let a request wait no longer; returns whether it did."""
        queue = self._queues.get(waiter.tenant)
        if queue is None or waiter not in queue.waiters:
            return False
        del queue.waiters[waiter]
        self._count(queue, waiter, -1)
        return True

    def take(self, rows: int, now: float) -> list[Waiter]:
        """The next requests, of so many rows together; or the next one alone, where it has more."""
        taken: list[Waiter] = []
        while self._turns:
            queue = self._turns[0]
            self._time = queue.had
            if not queue.waiters:
                del self._queues[heapq.heappop(self._turns).tenant]
                continue
            chosen = queue.chosen(now)
            if taken and chosen.rows > rows:
                break
            self.discard(chosen)
            queue.had += chosen.rows
            heapq.heapreplace(self._turns, queue)
            rows -= chosen.rows
            taken.append(chosen)
        return taken

    def rows_before(self, waiter: Waiter) -> int:
        """At most so many rows are taken before a new request: those of its tenant, and as many of each other one."""
        queue = self._queues.get(waiter.tenant)
        own, others = (queue.rows, len(self._queues) - 1) if queue else (0, len(self._queues))
        return min(self.rows, own + others * (own + waiter.rows))

    def _fits(self, waiter: Waiter) -> bool:
        return self.rows + waiter.rows <= self._most_rows and self.nbytes + waiter.nbytes <= self._most_bytes

    def _share(self, tenant: str, more: Waiter | None = None) -> float:
        queue = self._queues.get(tenant)
        rows, nbytes = (queue.rows, queue.nbytes) if queue else (0, 0)
        if more is not None:
            rows, nbytes = rows + more.rows, nbytes + more.nbytes
        return max(rows / self._most_rows, nbytes / self._most_bytes)

    def _count(self, queue: "_Queue[Waiter]", waiter: Waiter, sign: int) -> None:
        self.count += sign
        self.rows += sign * waiter.rows
        self.nbytes += sign * waiter.nbytes
        queue.rows += sign * waiter.rows
        queue.nbytes += sign * waiter.nbytes


@dataclass(eq=False)
class _Queue(Generic[Waiter]):
    """What waits of one tenant, in order.

    had: rows that were taken of it, and before it began to wait of others.
    """

    tenant: str
    had: int
    waiters: dict[Waiter, None] = field(default_factory=dict)
    rows: int = 0
    nbytes: int = 0

    def __lt__(self, other: "_Queue[Waiter]") -> bool:
        return self.had < other.had

    def chosen(self, now: float) -> Waiter:
        """The one that is next."""
        oldest = next(iter(self.waiters))
        return next(reversed(self.waiters)) if oldest.late(now) else oldest
