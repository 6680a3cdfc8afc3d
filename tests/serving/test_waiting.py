"""The queue of what waits: bounded in rows and bytes, and fair between tenants."""

import pytest

from handful.errors import DataError
from handful.serving.waiting import Waiting, Waits


def waits(tenant="t", rows=1, nbytes=0, since=0.0, until=10.0):
    return Waits(tenant, rows, nbytes, since, until)


def added(waiting, *waiters):
    for waiter in waiters:
        assert waiting.admits(waiter)
        assert waiting.add(waiter) == []
    return list(waiters)


def counts(waiting):
    return waiting.count, waiting.rows, waiting.nbytes


def test_one_large_request_takes_the_room_of_many_small_ones():
    for waiters in ([waits(rows=3000)], [waits() for _ in range(3000)]):
        waiting = Waiting(3000, 100)
        added(waiting, *waiters)
        assert waiting.rows == 3000
        assert not waiting.admits(waits())
        assert waiting.discard(waiters[0])
        assert waiting.admits(waits(rows=waiters[0].rows))


@pytest.mark.parametrize("size", [{"rows": 11}, {"nbytes": 101}])
def test_what_is_larger_than_all_room_is_refused_at_once(size):
    waiting = Waiting(10, 100)
    waiting.check_size(waits(rows=10, nbytes=100))
    with pytest.raises(DataError, match=r"At most 10 in 100 bytes") as error:
        waiting.check_size(waits(**size))
    assert error.value.code == "payload-too-large"


def test_bytes_are_bounded_too():
    waiting = Waiting(10, 100)
    added(waiting, waits(nbytes=60))
    assert not waiting.admits(waits(nbytes=41))
    added(waiting, waits(nbytes=40))
    assert counts(waiting) == (2, 2, 100)


def test_requests_are_taken_in_their_order_and_once():
    waiting = Waiting(10, 100)
    first, second, third = added(waiting, waits(), waits(rows=2), waits())
    assert waiting.discard(second)
    assert not waiting.discard(second)
    assert waiting.take(10, 0.0) == [first, third]
    assert (waiting.take(10, 0.0), counts(waiting)) == ([], (0, 0, 0))


def test_a_batch_has_no_more_rows_than_asked_for_unless_its_first_request_has():
    waiting = Waiting(100, 100)
    large, one, two = added(waiting, waits(rows=50), waits(), waits(rows=2))
    assert waiting.take(2, 0.0) == [large]
    assert waiting.take(2, 0.0) == [one]
    assert waiting.take(2, 0.0) == [two]


def test_tenants_take_turns_by_rows_however_many_requests_one_has():
    waiting = Waiting(1000, 100)
    added(waiting, *(waits("many") for _ in range(500)))
    added(waiting, *(waits("large", rows=10) for _ in range(3)))
    added(waiting, *(waits("few") for _ in range(3)))
    order = [waiter.tenant for waiter in waiting.take(60, 0.0)]
    assert order[:9].count("few") == 3, "of whom the fewest rows were taken"
    assert [order.count(tenant) for tenant in ("many", "large", "few")] == [27, 3, 3]


def test_who_waits_again_has_no_credit_of_before():
    waiting = Waiting(1000, 100)
    added(waiting, *(waits("busy") for _ in range(100)))
    waiting.take(50, 0.0)
    added(waiting, *(waits("new") for _ in range(50)))
    assert [waiter.tenant for waiter in waiting.take(20, 0.0)].count("new") == pytest.approx(10, abs=1)


def test_after_a_stall_the_newest_of_a_tenant_is_first():
    waiting = Waiting(10, 100)
    old, new = added(waiting, waits(since=0.0, until=2.0), waits(since=1.5, until=3.5))
    other = added(waiting, waits("other", since=1.4, until=3.4))
    assert waiting.take(1, 1.6) == [new]
    assert waiting.take(1, 1.6) == other
    assert waiting.take(1, 1.6) == [old]


def test_a_tenant_with_less_than_its_share_is_admitted_in_place_of_the_newest_of_the_largest():
    waiting = Waiting(10, 100)
    many = added(waiting, *(waits("many") for _ in range(9)))
    middle = added(waiting, waits("middle"))
    few = waits("few", rows=2)
    assert waiting.admits(few)
    assert waiting.add(few) == [many[8], many[7]]
    assert counts(waiting) == (9, 10, 0)
    assert not waiting.admits(waits("many"))
    assert not waiting.admits(waits("few", rows=2)), "it has more than a third then"
    assert set(waiting.take(10, 0.0)) == {*many[:7], *middle, few}


def test_rows_before_a_request_are_those_of_its_tenant_and_as_many_of_others():
    waiting = Waiting(1000, 100)
    assert waiting.rows_before(waits("few")) == 0
    added(waiting, *(waits("many") for _ in range(500)))
    assert waiting.rows_before(waits("many")) == 500
    assert waiting.rows_before(waits("few", rows=3)) == 3
    added(waiting, waits("few", rows=5))
    assert waiting.rows_before(waits("few")) == 11
