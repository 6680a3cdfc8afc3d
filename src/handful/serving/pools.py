"""Threads for work on tensors, a fixed number that live long."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


class Pool:
    """Threads that run pieces of work, each with one core for an operation of PyTorch.

    name: of the threads.
    threads: how many.
    """

    def __init__(self, name: str, threads: int) -> None:
        self.threads = threads
        self._executor = ThreadPoolExecutor(threads, f"handful-{name}")
        self._since: dict[int, float] = {}
        self._open: set[Future[Any]] = set()

    def submit(self, work: Callable[[], Result]) -> "Future[Result]":
        """Have a thread run this; `RuntimeError` once the pool is closed."""
        future = self._executor.submit(self.run, work)
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    def run(self, work: Callable[[], Result]) -> Result:
        """Run this as a thread of the pool does, but in the one that calls."""
        thread = threading.get_ident()
        self._since[thread] = time.monotonic()
        try:
            if torch.get_num_threads() != 1:  # a thread has the number that was set last, wherever that was
                torch.set_num_threads(1)
            return work()
        finally:
            del self._since[thread]

    @property
    def busy_for(self) -> float:
        """Seconds for which the piece of work has run that was started first; 0.0 if none runs."""
        return max((time.monotonic() - since for since in list(self._since.values())), default=0.0)

    def close(self, seconds: float | None = None) -> bool:
        """Finish what was handed in, and end the threads.

        seconds: after which threads that hang are left; None: none is.

        Returns whether all was finished.
        """
        self._executor.shutdown(wait=False)
        finished = not wait(list(self._open), seconds).not_done
        if finished:
            self._executor.shutdown()
        return finished
