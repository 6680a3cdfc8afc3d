"""Which requests are under way at a time: an event loop goes through all of them in turn, whoever's they are."""

import asyncio
import time
from dataclasses import dataclass, field

from handful.errors import OverloadedError
from handful.serving.lanes import Seen

MOST, LEAST = 64, 8
"""Requests that are under way at a time, of all tenants together, and of each at least."""
KEPT = 0.95
"""How much of what was measured before counts beside the last request."""


class Turns:
    """Lets some requests of each tenant through; the others wait here, where they cost the event loop nothing.

    Without it a tenant with hundreds of requests makes every step of another's wait for a step of each of its own.
    Tenants that have requests share the places. All methods belong to the event loop.

    Attributes:
        seen: what became of requests since the start.
    """

    def __init__(self) -> None:
        self.seen = Seen()
        self._tenants: dict[str, _Tenant] = {}

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        return sum(len(own.waiting) for own in self._tenants.values())

    async def enter(self, tenant: str, seconds: float) -> float:
        """Wait until a request may go on; `leave` has to follow. Returns the time at which it went on.

        seconds: for which it can wait at the most.

        Raises `OverloadedError` where that is too short, at once if it is clear then.
        """
        own = self._tenants.setdefault(tenant, _Tenant())
        if own.waiting or own.under_way >= self._share():
            await self._wait(tenant, own, seconds)
        else:
            own.under_way += 1
        self.seen.taken += 1
        return time.monotonic()

    def leave(self, tenant: str, since: float) -> None:
        """A request has ended. since: when it went on."""
        own = self._tenants[tenant]
        own.seconds = KEPT * own.seconds + (1 - KEPT) * (time.monotonic() - since)
        self._free(tenant, own)

    def _free(self, tenant: str, own: "_Tenant") -> None:
        """A place of a tenant is free again."""
        own.under_way -= 1
        if not own.under_way and not own.waiting:
            del self._tenants[tenant]
        share = self._share()
        for other in self._tenants.values():
            other.go_on(share)

    def _share(self) -> int:
        return max(LEAST, MOST // max(1, len(self._tenants)))

    async def _wait(self, tenant: str, own: "_Tenant", seconds: float) -> None:
        if len(own.waiting) * own.seconds / self._share() > seconds:
            self.seen.refused += 1
            raise OverloadedError(
                "Nothing was done: so many requests wait that this one would not be answered in time.", retry_after=1
            )
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        own.waiting[turn] = None
        expiry = loop.call_later(seconds, _expire, turn)
        try:
            await turn
        except OverloadedError:
            self.seen.expired += 1
            raise
        except BaseException:
            self.seen.left += 1
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # it came, and nobody takes it
                self._free(tenant, own)
            raise
        finally:
            expiry.cancel()
            own.waiting.pop(turn, None)


@dataclass
class _Tenant:
    """The requests of one tenant: how many are under way, the turns of those that wait, and what one takes."""

    under_way: int = 0
    waiting: "dict[asyncio.Future[None], None]" = field(default_factory=dict)
    seconds: float = 0.0

    def go_on(self, share: int) -> None:
        """Let those go on that may."""
        while self.waiting and self.under_way < share:
            turn = next(iter(self.waiting))
            del self.waiting[turn]
            if not turn.done():
                self.under_way += 1
                turn.set_result(None)


def _expire(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_exception(
            OverloadedError("Nothing was done: the time for this request is over.", code="deadline-exceeded")
        )
