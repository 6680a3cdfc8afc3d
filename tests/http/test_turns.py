"""Who waits for whom before a request goes on."""

import asyncio

import pytest

from handful.errors import OverloadedError
from handful.http import turns
from handful.http.turns import LEAST, MOST, Turns


def run(scenario):
    asyncio.run(scenario())


async def entered(gate, tenant, count):
    """So many requests that go on at once."""
    return [await asyncio.wait_for(gate.enter(tenant, 60), 5) for _ in range(count)]


def test_a_tenant_alone_has_all_places_and_the_next_one_waits_for_one_of_them():
    async def scenario():
        gate = Turns()
        since = await entered(gate, "loud", MOST)
        waiting = asyncio.ensure_future(gate.enter("loud", 60))
        await asyncio.sleep(0)
        assert not waiting.done()
        gate.leave("loud", since[0])
        await asyncio.wait_for(waiting, 5)

    run(scenario)


def test_another_tenant_goes_on_at_once_and_they_share_from_then_on():
    async def scenario():
        gate = Turns()
        loud = await entered(gate, "loud", MOST)
        waiting = [asyncio.ensure_future(gate.enter("loud", 60)) for _ in range(MOST)]
        await asyncio.sleep(0)
        await entered(gate, "guest", MOST // 2)
        for since in loud[: MOST // 2]:
            gate.leave("loud", since)
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting), "it has more than its share yet"
        gate.leave("loud", loud[-1])
        await asyncio.sleep(0)
        assert [one.done() for one in waiting] == [True] + [False] * (MOST - 1)
        for one in waiting:
            one.cancel()

    run(scenario)


def test_the_places_of_a_tenant_that_left_go_to_those_who_wait():
    async def scenario():
        gate = Turns()
        guests = await entered(gate, "guest", 1)
        loud = await entered(gate, "loud", MOST // 2)
        waiting = [asyncio.ensure_future(gate.enter("loud", 60)) for _ in range(MOST // 2)]
        await asyncio.sleep(0)
        gate.leave("guest", guests[0])
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        for since in loud:
            gate.leave("loud", since)

    run(scenario)


def test_many_tenants_have_a_few_places_each():
    async def scenario():
        gate = Turns()
        for number in range(MOST):
            await entered(gate, f"tenant {number}", LEAST)

    run(scenario)


def test_who_waits_too_long_is_told_so_and_takes_no_place(monkeypatch):
    async def scenario():
        monkeypatch.setattr(turns, "MOST", 8)
        gate = Turns()
        since = await entered(gate, "loud", 8)
        with pytest.raises(OverloadedError, match="time for this request is over") as error:
            await gate.enter("loud", 0.01)
        assert error.value.code == "deadline-exceeded"
        assert (gate.seen.taken, gate.seen.expired, gate.waiting) == (8, 1, 0)
        left = asyncio.ensure_future(gate.enter("loud", 60))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
        assert (gate.seen.left, gate.waiting) == (1, 0)
        for one in since:
            gate.leave("loud", one)
        assert not gate._tenants
        await entered(gate, "loud", 8)

    run(scenario)


def test_who_is_cancelled_as_its_turn_comes_gives_it_to_the_next():
    async def scenario():
        gate = Turns()
        since = await entered(gate, "loud", MOST)
        first, second = (asyncio.ensure_future(gate.enter("loud", 60)) for _ in range(2))
        await asyncio.sleep(0)
        gate.leave("loud", since[0])
        first.cancel()
        await asyncio.wait_for(second, 5)

    run(scenario)


def test_who_would_wait_too_long_is_refused_at_once():
    async def scenario():
        gate = Turns()
        since = await entered(gate, "loud", MOST)
        for one in since[1:]:
            gate.leave("loud", one - 40)  # each took that long
        await entered(gate, "loud", MOST - 1)
        waiting = [asyncio.ensure_future(gate.enter("loud", 60)) for _ in range(MOST)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="so many requests wait") as error:
            await gate.enter("loud", 1)
        assert error.value.code == "overloaded"
        assert (gate.seen.refused, gate.waiting) == (1, MOST)
        for one in waiting:
            one.cancel()
        gate.leave("loud", since[0])

    run(scenario)


def test_a_tenant_is_not_refused_for_how_long_requests_of_another_take():
    async def scenario():
        gate = Turns()
        for one in (await entered(gate, "slow", MOST))[1:]:
            gate.leave("slow", one - 1000)
        await entered(gate, "quick", MOST // 2)
        waiting = [asyncio.ensure_future(gate.enter("quick", 1)) for _ in range(2)]
        await asyncio.sleep(0)
        assert gate.waiting == 2
        for one in waiting:
            one.cancel()

    run(scenario)


def test_a_tenant_whose_last_request_is_cancelled_as_its_turn_comes_takes_no_share(monkeypatch):
    async def scenario():
        monkeypatch.setattr(turns, "LEAST", 1)
        monkeypatch.setattr(turns, "MOST", 1)
        gate = Turns()
        [since] = await entered(gate, "loud", 1)
        waiting = asyncio.ensure_future(gate.enter("loud", 60))
        await asyncio.sleep(0)
        gate.leave("loud", since)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not gate._tenants

    run(scenario)
