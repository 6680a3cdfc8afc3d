"""One implementation of one workload in a process of its own: `measure.py` asks on stdin, it answers in JSON lines.

Between its turns it waits on stdin, so that the one that is measured has the machine to itself.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks.engine.rows import IMPLEMENTATIONS, MEMORY_ROWS, ROWS
from benchmarks.tiny import sized

MOST_STEPS = 2000


class Worker:
    """A prepared step and the number of the next batch."""

    def __init__(self, workload_key: str, implementation: str, dtype: str, threads: int) -> None:
        (self.workload, *_) = (row.workload for row in (*ROWS, *MEMORY_ROWS) if row.workload.key == workload_key)
        chosen = IMPLEMENTATIONS[implementation]
        module = importlib.import_module(f"benchmarks.engine.{chosen.module}")
        # After the imports, which may use all cores, and before any thread is made that would inherit it.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        self.versions = module.VERSIONS
        self.prepared = module.prepare(self.workload, dtype, **chosen.options)
        self.next = 0

    def timed_step(self) -> float:
        """Seconds of one meta-step on a fresh batch, whose making does not count."""
        batch = self.prepared.convert(self.workload.batch(self.next))
        self.next += 1
        start = time.perf_counter()
        self.prepared.step(batch)
        return time.perf_counter() - start

    def first(self) -> dict[str, Any]:
        """The first call, with whatever compiles in it, and one more to be warm."""
        return {"first_seconds": self.timed_step(), "second_seconds": self.timed_step()}

    def run(self, budget: str) -> dict[str, Any]:
        """Steps for about so many seconds, at least one."""
        seconds: list[float] = []
        while not seconds or (sum(seconds) < float(budget) and len(seconds) < MOST_STEPS):
            seconds.append(self.timed_step())
        return {"seconds": seconds}

    def check(self, path: str) -> dict[str, Any]:
        """Save the meta-gradient at the starting weights on the first batch."""
        np.savez(path, **self.prepared.meta_gradient(self.prepared.convert(self.workload.batch(0))))
        return {}

    def memory(self) -> dict[str, Any]:
        """The peak of resident memory in one meta-step, over what the prepared process held before; then its time."""
        batch = self.prepared.convert(self.workload.batch(0))
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far, that of the imports, is forgotten
        self.prepared.step(batch)
        grown = _resident("VmHWM") - before
        return {"mib": grown, **self.run(sized("5", "0"))}


def _resident(field: str) -> float:
    """A field of this process's memory in MiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1024


def serve(answers: TextIO) -> None:
    """Answer commands until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workload")
    parser.add_argument("implementation")
    parser.add_argument("dtype")
    parser.add_argument("threads", type=int)

    def answer(make: Callable[[], dict[str, Any]]) -> None:
        try:
            reply = make()
        except Exception as error:  # the driver reports it beside the others' results
            package_missing = isinstance(error, ModuleNotFoundError) and error.name and "." not in error.name
            reply = {"not installed" if package_missing else "failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)

    worker: Worker

    def start() -> dict[str, Any]:
        nonlocal worker
        given = parser.parse_args()
        worker = Worker(given.workload, given.implementation, given.dtype, given.threads)
        return {"versions": worker.versions}

    answer(start)
    for line in sys.stdin:
        command, *arguments = line.split()
        ask: Callable[..., dict[str, Any]] = getattr(worker, command)
        answer(lambda ask=ask, arguments=arguments: ask(*arguments))


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    serve(own)
