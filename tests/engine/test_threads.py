"""The number of threads is each thread's own, and as it was when work is done."""

import os
import threading

import pytest
import torch

from handful.engine.threads import one_core_each, task_threads


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def on_a_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.usefixtures("three_threads")
def test_uses_that_overlap_leave_each_thread_and_later_ones_with_their_number():
    inside, left = threading.Barrier(2, timeout=20), threading.Event()
    counts = []

    def second():
        counts.append(torch.get_num_threads())
        with one_core_each():
            counts.append(torch.get_num_threads())
            inside.wait()
            left.wait(20)
        counts.append(torch.get_num_threads())

    thread = threading.Thread(target=second)
    with one_core_each():
        thread.start()
        inside.wait()
        assert on_a_thread(torch.get_num_threads) == 3
    assert torch.get_num_threads() == 3
    left.set()
    thread.join()
    assert counts == [3, 1, 3]
    assert on_a_thread(torch.get_num_threads) == 3


@pytest.mark.usefixtures("three_threads")
def test_task_threads_have_one_core_and_leave_other_threads_theirs():
    task_threads.cache_clear()
    assert task_threads(1).submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == on_a_thread(torch.get_num_threads) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("three_threads")
def test_a_forked_child_has_one_thread():
    here, there = os.pipe()
    child = os.fork()
    if not child:
        os.write(there, str(torch.get_num_threads()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(here, 9) == b"1"
    os.close(here)
    os.close(there)
