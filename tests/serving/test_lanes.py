"""A queue with its threads: batches, deadlines, refusals, and callers that leave."""

import asyncio
import math
import threading
import time

import pytest

from handful.errors import DataError, OverloadedError
from handful.serving import lanes
from handful.serving.lanes import Lane
from handful.serving.pools import Pool


class Slow:
    """Work that waits until it is let go, and keeps its batches."""

    def __init__(self, go=False):
        self.go, self.batches = threading.Event(), []
        if go:
            self.go.set()

    def __call__(self, batch):
        self.batches.append(list(batch))
        assert self.go.wait(10)
        return [ValueError(one) if one == "wrong" else f"{one}!" for one in batch]


@pytest.fixture
def run():
    """Runs `use(lane)` in an event loop, with a lane of one thread or more."""

    def of(work, use, threads=1, **options):
        pool = Pool("test", threads)
        options = {"rows": 100, "nbytes": 1000, "together": 10} | options
        try:
            return asyncio.run(use(Lane(pool, work, **options)))
        finally:
            if isinstance(work, Slow):
                work.go.set()
            pool.close()

    return of


def ask(lane, content, *, tenant="t", rows=1, nbytes=0, seconds=5.0):
    return asyncio.ensure_future(lane.ask(content, tenant=tenant, rows=rows, nbytes=nbytes, seconds=seconds))


async def started(lane, work, content="first", **options):
    """A request that the thread is busy with."""
    first = ask(lane, content, **options)
    while not work.batches:
        await asyncio.sleep(0.001)
    return first


def test_what_waits_when_a_thread_is_free_is_a_batch(run, monkeypatch):
    monkeypatch.setattr(lanes, "SECONDS", 10.0)
    work = Slow()

    async def use(lane):
        first = await started(lane, work)
        others = [ask(lane, number, tenant=f"t{number}") for number in range(12)]
        await asyncio.sleep(0)
        assert lane.waiting.count == 12
        assert not lane.idle
        work.go.set()
        assert await asyncio.gather(first, *others) == ["first!", *(f"{number}!" for number in range(12))]
        assert lane.idle
        return lane.seen

    seen = run(work, use)
    assert [len(batch) for batch in work.batches] == [1, 10, 2]
    assert (seen.taken, seen.rows, dict(seen.sizes)) == (13, 13, {1: 1, 10: 1, 2: 1})


@pytest.mark.parametrize(
    ("seconds", "tenants", "sizes"),
    [(60.0, ["loud"], [1, 4, 4, 2]), (60.0, ["one", "other"], [1, 10]), (0.0, ["loud"], [1, 10])],
)
def test_where_others_ask_batches_of_a_loud_tenant_are_short(seconds, tenants, sizes, run, monkeypatch):
    monkeypatch.setattr(lanes, "SECONDS", 10.0)
    monkeypatch.setattr(lanes, "SEVERAL", seconds)
    work = Slow()

    async def use(lane):
        first = await started(lane, work, tenant="guest")
        loud = [ask(lane, number, tenant=tenants[number % len(tenants)]) for number in range(10)]
        await asyncio.sleep(0)
        work.go.set()
        await asyncio.gather(first, *loud)

    run(work, use, between_tenants=4)
    assert [len(batch) for batch in work.batches] == sizes


def test_requests_that_come_at_once_are_one_batch_and_errors_are_their_own(run):
    work = Slow(go=True)

    async def use(lane):
        asked = (ask(lane, one) for one in ("a", "wrong", "b"))
        return await asyncio.gather(*asked, return_exceptions=True)

    first, wrong, last = run(work, use)
    assert (first, last, str(wrong)) == ("a!", "b!", "wrong")
    assert work.batches == [["a", "wrong", "b"]]


def test_work_that_fails_ends_neither_its_thread_nor_the_lane(run):
    failing = iter([MemoryError("none left"), SystemExit("bye"), StopIteration(), None])

    def work(batch):
        if (error := next(failing)) is not None:
            raise error
        return batch

    async def use(lane):
        for kind in (MemoryError, RuntimeError, RuntimeError):
            with pytest.raises(kind, match=r"none left|ended by"):
                await ask(lane, "a")
        assert await ask(lane, "a") == "a"
        assert lane.idle

    run(work, use)


def test_an_empty_queue_refuses_nothing_however_slow_it_was(run):
    async def use(lane):
        for _ in range(2):
            assert await ask(lane, "slow", seconds=0.5) == "slow"
        with pytest.raises(DataError, match="At most 100 in 1,000 bytes"):
            await ask(lane, "large", rows=101)

    run(lambda batch: (time.sleep(0.1), batch)[1], use)


def test_what_would_wait_for_too_long_is_refused_at_once_and_told_when_to_come_again(run):
    work = Slow(go=True)

    async def use(lane):
        work.go.clear()
        first = await started(lane, work)
        await asyncio.sleep(0.1)
        work.go.set()
        await first  # 0.1 seconds for a row
        work.go.clear()
        work.batches.clear()
        await started(lane, work)
        waiting = [ask(lane, "waits", rows=20)]
        await asyncio.sleep(0)
        begun = time.monotonic()
        with pytest.raises(OverloadedError, match="to finish this one in time") as error:
            await ask(lane, "late", seconds=1.5)
        assert time.monotonic() - begun < 0.05
        assert (error.value.code, error.value.retry_after) == ("overloaded", pytest.approx(3, abs=1))
        waiting.append(ask(lane, "patient", seconds=10))
        await asyncio.sleep(0)
        work.go.set()
        await asyncio.gather(*waiting)
        return lane.seen

    assert run(work, use).refused == 1


@pytest.mark.parametrize(("may_wait", "refused"), [(1.0, 0), (1 / 3, 1)])
def test_a_request_is_refused_where_it_may_wait_for_more_than_a_part_of_its_time(run, may_wait, refused):
    work = Slow(go=True)

    async def use(lane):
        await ask(lane, "measured")
        lane._rows, lane._between = 1.0, 0.1  # seconds for a row
        work.go.clear()
        work.batches.clear()
        await started(lane, work)
        asked = [ask(lane, "waits", rows=20), ask(lane, "about 2 seconds", seconds=3.0)]
        await asyncio.sleep(0)
        work.go.set()
        await asyncio.gather(*asked, return_exceptions=True)
        return lane.seen

    assert run(work, use, may_wait=may_wait).refused == refused


def test_where_there_is_no_room_the_largest_tenant_gives_way(run):
    work = Slow()

    async def use(lane):
        await started(lane, work)
        many = [ask(lane, number, tenant="many", rows=10) for number in range(10)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match=r"are waiting\.$"):
            await ask(lane, "more", tenant="many")
        few = ask(lane, "few", tenant="few")
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="other tenants have fewer"):
            await many[-1]
        work.go.set()
        assert await few == "few!"
        assert await asyncio.gather(*many[:-1]) == [f"{number}!" for number in range(9)]

    run(work, use)


def test_waiting_requests_expire_while_all_threads_are_stuck_and_the_newest_is_next(run):
    work = Slow()

    async def use(lane):
        stuck = await started(lane, work, seconds=0.1)
        begun = time.monotonic()
        old = [ask(lane, number, seconds=0.1) for number in range(3)]
        found = await asyncio.gather(stuck, *old, return_exceptions=True)
        assert time.monotonic() - begun < 0.4
        assert [one.code for one in found] == ["deadline-exceeded"] * 4
        late = ask(lane, "late", seconds=0.5)
        await asyncio.sleep(0.3)
        new = ask(lane, "new", rows=10)
        await asyncio.sleep(0)
        work.go.set()
        assert await asyncio.gather(late, new) == ["late!", "new!"]
        return lane.seen

    assert run(work, use).expired == 4
    assert work.batches == [["first"], ["new"], ["late"]], "what expired never ran"


EACH = 0.004
"""Seconds for a row, of which three times as many come as are worked off."""


@pytest.mark.parametrize(
    ("stall", "seconds"),
    [(0.5, 0.2), pytest.param(5.0, 2.0, marks=pytest.mark.slow)],
    ids=["short", "as long as a disk"],
)
def test_a_stall_under_overload_is_waited_for_by_nobody_and_nothing_that_is_late_runs_after_it(run, stall, seconds):
    stalls, ages, told, lags = iter([stall]), [], [], []

    def work(batch):
        now = time.monotonic()
        ages.append([now - came for came in batch])
        time.sleep(next(stalls, 0.0) + EACH * len(batch))
        return batch

    async def one(lane):
        came, code = time.monotonic(), ""
        try:
            await lane.ask(came, tenant="t", rows=1, nbytes=0, seconds=seconds)
        except OverloadedError as error:
            code = error.code
        told.append((came - start, code, time.monotonic() - came))

    async def tick():
        while True:
            before = time.monotonic()
            await asyncio.sleep(EACH)
            lags.append(time.monotonic() - before)

    async def use(lane):
        ticking, asked, end = asyncio.ensure_future(tick()), [], 2 * stall
        while (now := time.monotonic() - start) < end:
            due = int(3 * now / EACH)
            asked += [asyncio.ensure_future(one(lane)) for _ in range(due - len(asked))]
            await asyncio.sleep(EACH)
        await asyncio.gather(*asked)
        ticking.cancel()

    start = time.monotonic()
    run(work, use, rows=1000)
    lag = 0.05 + 2 * max(lags)  # of a busy machine, where one may follow on another
    assert max(waited for _, _, waited in told) < seconds + lag, "nobody is told only after the stall"
    assert max(max(batch) for batch in ages) < seconds + lag, "what is over does not run"
    assert not [came for came, code, _ in told if not code and came < stall - seconds - lag]
    answered = [came for came, code, _ in told if not code and came > stall]
    assert len(answered) >= 0.5 * (stall - 2 * lag) / EACH, "work goes on at its pace"


def test_requests_whose_callers_have_left_never_start(run):
    work = Slow()

    async def use(lane):
        first = await started(lane, work)
        others = [ask(lane, number) for number in range(20)]
        await asyncio.sleep(0)
        for one in others[:19]:
            one.cancel()
        await asyncio.sleep(0)
        work.go.set()
        assert await asyncio.gather(first, others[19]) == ["first!", "19!"]
        assert all(one.cancelled() for one in others[:19])
        return lane.seen

    assert run(work, use).left == 19
    assert work.batches == [["first"], [19]]


def test_work_that_has_to_finish_is_waited_for_once_it_has_started(run):
    work = Slow()

    async def use(lane):
        first = await started(lane, work, seconds=0.05)
        second = ask(lane, "second", seconds=0.05)
        with pytest.raises(OverloadedError) as error:
            await second
        assert error.value.code == "deadline-exceeded"
        await asyncio.sleep(0.05)
        assert not first.done()
        work.go.set()
        assert await first == "first!"

    run(work, use, together=1, finishes=True)
    assert work.batches == [["first"]]


def test_work_that_has_started_goes_on_when_its_caller_leaves(run):
    work = Slow()

    async def use(lane):
        first = await started(lane, work)
        first.cancel()
        await asyncio.sleep(0)
        work.go.set()
        assert await ask(lane, "second") == "second!"

    run(work, use, together=1, finishes=True)
    assert work.batches == [["first"], ["second"]]


def test_batches_shrink_so_that_each_takes_a_tenth_of_a_second(run):
    sizes = []

    def work(batch):
        sizes.append(len(batch))
        time.sleep(0.02 * len(batch))
        return batch

    async def use(lane):
        await ask(lane, "measured")
        await asyncio.gather(*(ask(lane, number) for number in range(8)))

    run(work, use)
    assert sizes[0] == 1
    assert max(sizes) <= 5


def test_of_cheap_work_one_batch_runs_at_a_time_unless_it_takes_long(run, monkeypatch):
    monkeypatch.setattr(lanes, "SECONDS", 0.1)
    work = Slow(go=True)

    async def use(lane):
        assert await ask(lane, "measured") == "measured!"
        work.go.clear()
        work.batches.clear()
        first = await started(lane, work)
        second = ask(lane, "second")
        await asyncio.sleep(0.03)
        assert work.batches == [["first"]]
        await asyncio.sleep(0.2)
        assert work.batches == [["first"], ["second"]]
        work.go.set()
        assert await asyncio.gather(first, second) == ["first!", "second!"]

    run(work, use, threads=2, cheap=1.0)


def test_the_event_loop_stands_still_for_cheap_work_but_not_for_long(run):
    work = Slow(go=True)

    async def use(lane):
        await ask(lane, "measured")
        loop, turned = asyncio.get_running_loop(), []
        quick = ask(lane, "quick")
        await asyncio.sleep(0)
        loop.call_soon(lambda: turned.append(len(work.batches)))
        assert await quick == "quick!"
        assert turned == [2], "nothing else ran before the batch"
        work.go.clear()
        stuck, begun = ask(lane, "stuck"), time.monotonic()
        await asyncio.sleep(0.001)
        assert lanes.PATIENCE * 0.9 < time.monotonic() - begun < 0.5
        work.go.set()
        assert await stuck == "stuck!"

    run(work, use, cheap=1.0)


def test_the_event_loop_runs_what_is_expected_to_take_little_time(run):
    seconds, threads = {"short": lanes.PATIENCE / 3, "cold": math.inf}, {}

    def work(batch):
        threads[tuple(batch)] = threading.current_thread()
        if "wrong" in batch:
            raise ValueError("wrong")
        return batch

    async def use(lane):
        await asyncio.gather(*(ask(lane, "short") for _ in range(2)))
        await asyncio.gather(*(ask(lane, "short") for _ in range(4)))
        await ask(lane, "short", rows=4)
        await ask(lane, "cold")
        with pytest.raises(ValueError, match="wrong"):
            await ask(lane, "wrong")
        assert lane.idle
        assert lane.seen.rows == 12

    run(work, use, brief=lambda contents: max(seconds.get(one, 0.0) for one in contents))
    here = {batch for batch, thread in threads.items() if thread is threading.current_thread()}
    assert here == {("short", "short"), ("wrong",)}
    assert set(threads) - here == {("short",) * 4, ("short",), ("cold",)}


def test_answers_to_cheap_work_are_given_as_it_ends_and_what_came_meanwhile_is_read_before_more(run, monkeypatch):
    monkeypatch.setattr(lanes, "PATIENCE", 10.0)
    loops, order = [], []

    def work(batch):
        for loop in loops:
            loop.call_soon_threadsafe(order.append, "came")
        return batch

    async def use(lane):
        await ask(lane, "measured")
        loops.append(asyncio.get_running_loop())
        size = {"tenant": "t", "rows": 1, "nbytes": 0, "seconds": 5.0}
        both = [lane.enter(one, **size, then=order.append) for one in ("first", "second")]
        while len(order) < 4:
            await asyncio.sleep(0)
        for one in both:
            lane.leave(one)

    run(work, use, threads=2, cheap=1.0, together=1)
    assert order == ["first", "came", "second", "came"]


def test_an_answer_that_cannot_be_given_concerns_its_request_alone(run):
    async def use(lane):
        found = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: found.append(context["exception"]))
        size = {"tenant": "t", "rows": 1, "nbytes": 0, "seconds": 5.0}
        broken, left = (lane.enter(one, **size, then=lambda answer: 1 / 0) for one in "ab")
        lane.leave(left)
        assert await ask(lane, "c") == "c!"
        assert [type(error) for error in found] == [ZeroDivisionError]
        lane.leave(broken)
        assert lane.idle

    run(Slow(go=True), use)


def test_what_goes_into_the_next_batch_is_not_refused_however_long_small_ones_took(run):
    work = Slow(go=True)

    async def use(lane):
        work.go.clear()
        first = await started(lane, work)
        await asyncio.sleep(0.03)
        work.go.set()
        await first  # 0.03 seconds for a row
        work.go.clear()
        work.batches.clear()
        await started(lane, work)
        others = [ask(lane, number, seconds=0.09) for number in range(3)]
        await asyncio.sleep(0)
        work.go.set()
        assert await asyncio.gather(*others) == ["0!", "1!", "2!"]

    run(work, use)


def test_the_time_between_batches_counts_for_those_that_wait(run):
    work = Slow(go=True)

    async def use(lane):
        many = [ask(lane, number) for number in range(30)]
        await asyncio.sleep(0)
        for one in many:
            one.add_done_callback(lambda _: time.sleep(0.01))  # the event loop is busy
        await asyncio.gather(*many)
        work.go.clear()
        await started(lane, work)
        waits = ask(lane, "waits", rows=80)
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="to finish this one in time"):
            await ask(lane, "late", seconds=0.2)
        work.go.set()
        await waits

    run(work, use)
