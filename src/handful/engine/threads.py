"""Threads and the switches of the process: one core per operation, a pool for tasks, unfused attention."""

import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def one_core_each() -> Iterator[None]:
    """Operations use one core in here: results do not depend on how many there are, and threads do not fight for them.

    One task per thread is faster than two threads within an operation, which wait for each other at its end.
    """
    threads = torch.get_num_threads()
    token = _cores.set(cores())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _cores.reset(token)


_cores: ContextVar[int | None] = ContextVar("cores", default=None)


def cores() -> int:
    """How many cores there are for task threads: torch's threads, also where an operation may use but one of them."""
    return _cores.get() or torch.get_num_threads()


_unfused = ExitStack()
_users = 0
_switching = threading.Lock()


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Attention is spelled out in here, since the fused one can neither be differentiated twice nor batched.

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
    return ThreadPoolExecutor(threads, "handful-task", initializer=torch.set_num_threads, initargs=(1,))


if hasattr(os, "register_at_fork"):  # a child has the pool, but not its threads
    os.register_at_fork(after_in_child=task_threads.cache_clear)
