"""Threads and the switches of the process: one core per operation, a pool for tasks, unfused attention."""

import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_here = threading.local()
_switching = threading.Lock()


@contextmanager
def one_core_each() -> Iterator[None]:
    """Within this context, operations use one core: results do not depend on the number of cores, and threads do not
    compete for them.

    One task per thread is faster than two threads within an operation, which wait for each other at its end. Other
    threads, those that start meanwhile too, have as many cores as before.
    """
    outer = getattr(_here, "cores", None)
    _here.cores, before = cores(), torch.get_num_threads()
    _set_threads_here(1)
    try:
        yield
    finally:
        with _switching:
            torch.set_num_threads(before)
        _here.cores = outer


def _set_threads_here(count: int) -> None:
    """How many cores an operation of this thread may use.

    PyTorch has one number per thread, but also gives the last one that was set to all threads that start later, so a
    thread of no other use sets the former one again.
    """
    with _switching:
        before = torch.get_num_threads()
        if before != count:
            torch.set_num_threads(count)
            again = threading.Thread(target=torch.set_num_threads, args=(before,))
            again.start()
            again.join()


def cores() -> int:
    """The number of cores for task threads: torch's threads, even if an operation may use only one."""
    return getattr(_here, "cores", None) or torch.get_num_threads()


_unfused = ExitStack()
_users = 0


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Within this context, attention is not fused, since fused attention can neither be differentiated twice nor
    batched.

    The switch is the whole process's: the first thread in turns it, and the last one out turns it back.
    """
    global _users
    with _switching:
        if not _users:
            _unfused.enter_context(sdpa_kernel(SDPBackend.MATH))
        _users += 1
    try:
        yield
    finally:
        with _switching:
            _users -= 1
            if not _users:
                _unfused.close()


@functools.cache
def task_threads(threads: int) -> ThreadPoolExecutor:
    """Threads that stay, since each keeps the skeletons of the modules that it calls."""
    return ThreadPoolExecutor(threads, "handful-task", initializer=_set_threads_here, initargs=(1,))


def _after_fork() -> None:
    """Reset after a fork: a child has the pools of tasks and of PyTorch's operations, but not their threads, and would
    wait for them."""
    task_threads.cache_clear()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
