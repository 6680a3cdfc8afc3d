"""Pools of threads: of one size, each with one core for an operation."""

import threading
import time

import pytest
import torch

from handful.serving.pools import Pool


@pytest.fixture
def pool():
    pool = Pool("test", 2)
    yield pool
    pool.close()


def in_all(pool, work):
    """What each of the pool's threads makes of some work."""
    together = threading.Barrier(pool.threads)

    def one():
        together.wait(5)
        return work()

    return [future.result(5) for future in [pool.submit(one) for _ in range(pool.threads)]]


def test_work_runs_in_the_same_threads_each_with_one_core(pool):
    torch.set_num_threads(2)
    try:
        assert in_all(pool, torch.get_num_threads) == [1, 1]
        first = set(in_all(pool, threading.get_ident))
        in_all(pool, lambda: torch.set_num_threads(2))  # by a library
        assert in_all(pool, torch.get_num_threads) == [1, 1]
        assert set(in_all(pool, threading.get_ident)) == first
    finally:
        torch.set_num_threads(1)


def test_an_error_is_the_answer_and_no_thread_s_end(pool):
    def fail():
        raise SystemExit("no")

    for _ in range(3):
        with pytest.raises(SystemExit):
            pool.submit(fail).result(5)
    assert in_all(pool, lambda: "here") == ["here", "here"]


def test_how_long_the_slowest_piece_of_work_has_run_is_seen(pool):
    assert pool.busy_for == 0.0
    end = threading.Event()
    slow = pool.submit(lambda: end.wait(5))
    time.sleep(0.02)
    pool.submit(lambda: None).result(5)
    assert pool.busy_for >= 0.02
    end.set()
    slow.result(5)
    assert pool.busy_for == 0.0


def test_a_closed_pool_has_finished_and_takes_no_more(pool):
    done = []
    pool.submit(lambda: (time.sleep(0.02), done.append(1)))
    pool.close()
    assert done == [1]
    with pytest.raises(RuntimeError):
        pool.submit(lambda: None)
