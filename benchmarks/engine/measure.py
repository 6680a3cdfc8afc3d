"""The driver: starts workers, gives them turns, compares their times, memory and meta-gradients."""

import json
import os
import select
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import child
from benchmarks.engine.rows import IMPLEMENTATIONS, REFERENCE, MemoryRow, Row
from benchmarks.engine.workloads import Workload

Gradient = dict[str, NDArray[np.float64]]

TOLERANCE = 1e-8
"""Largest relative difference of two float64 meta-gradients that count as equal."""

PATIENCE = 300
"""Seconds in which a worker answers, compiling included."""


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds, and seconds of steps per implementation in each. quick: leave out the slow."""

    rounds: int = 5
    turn_seconds: float = 2.5
    quick: bool = False


@dataclass
class Result:
    """What one implementation did in a row.

    status: "measured", "not installed" or "failed", with the reason. milliseconds: median over rounds of the median
    over a round's steps. ratio, ratio_range: how many times as fast as the fastest PyTorch peer, median and extremes
    over rounds. aims: ratios that were aimed at, with those reached. first_seconds: the first call, with what compiles
    in it. gradient_difference: the largest over weights, relative, from the reference. peak_mib: of one meta-step, over
    what the process held before.
    """

    status: str = "measured"
    reason: str = ""
    milliseconds: float | None = None
    round_milliseconds: list[float] = field(default_factory=list)
    steps: int = 0
    first_seconds: float | None = None
    ratio: float | None = None
    ratio_range: list[float] = field(default_factory=list)
    aims: list[dict[str, Any]] = field(default_factory=list)
    gradient_difference: float | None = None
    peak_mib: float | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def stop(self, status: str, reason: str) -> None:
        """Take part no further."""
        self.status, self.reason = status, reason

    @property
    def running(self) -> bool:
        """Whether it still takes part."""
        return self.status == "measured"


class Worker:
    """The other end of `worker.py`."""

    def __init__(self, workload: Workload, implementation: str, dtype: str, threads: int) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `close`
        self.process = subprocess.Popen(
            child.command("benchmarks.engine.worker", workload.key, implementation, dtype, str(threads)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment(threads),
        )

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for the answer."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # if it has died, `answer` says of what
            print(command, file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Its next answer; `failed` where it died or takes too long."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            self.process.kill()
            return {"failed": f"no answer for {PATIENCE} s"}
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)  # type: ignore[no-any-return]
        self.errors.seek(0)
        last = self.errors.read().strip().splitlines()[-1:]
        return {"failed": f"the process ended with {self.process.wait()}: {''.join(last)}"}

    def close(self) -> None:
        """End it; between its turns it has nothing to save."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()


class Crew:
    """The workers of a row by implementation; whoever cannot go on gets a reason in its result and is left out."""

    def __init__(self, workload: Workload, names: Iterable[str], dtype: str, threads: int, results: dict[str, Result]):
        self.results = results
        self.workers = {name: Worker(workload, name, dtype, threads) for name in names}
        for name, worker in self.workers.items():
            self._accept(name, worker.answer())

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *exception: object) -> None:
        for name in list(self.workers):
            self.dismiss(name)

    def dismiss(self, name: str) -> None:
        """End one worker."""
        self.workers.pop(name).close()

    def ask(self, name: str, command: str) -> dict[str, Any] | None:
        """One worker's answer, or None where it takes part no further."""
        if not self.results[name].running:
            return None
        return self._accept(name, self.workers[name].ask(command))

    def _accept(self, name: str, answer: dict[str, Any]) -> dict[str, Any] | None:
        result = self.results[name]
        for status in ("not installed", "failed"):
            if status in answer:
                result.stop(status, answer[status])
                return None
        result.versions = answer.get("versions", result.versions)
        return answer


class Gradients:
    """Float64 meta-gradients against those of the reference, which are computed once per workload."""

    def __init__(self) -> None:
        self._reference: dict[str, Gradient] = {}
        self._known: dict[tuple[str, str], float] = {}

    def check(self, workload: Workload, threads: int, results: dict[str, Result]) -> None:
        """Note each implementation's difference; a peer's does not depend on the threads."""
        key = workload.key
        for name, result in results.items():
            result.gradient_difference = self._known.get((key, name))
        names = [n for n, r in results.items() if r.running and r.gradient_difference is None and n != REFERENCE]
        if key not in self._reference:
            names.insert(0, REFERENCE)
        for name, gradient in meta_gradients(workload, names, threads):
            if isinstance(gradient, dict) and name == REFERENCE:
                self._reference[key] = gradient
            elif isinstance(gradient, dict):
                difference = difference_of(gradient, self._reference.get(key, {}))
                results[name].gradient_difference = difference
                if IMPLEMENTATIONS[name].peer:
                    self._known[key, name] = difference
                if not difference <= TOLERANCE:
                    results[name].stop("failed", f"its meta-gradient differs by {difference:.1e} from {REFERENCE}'s")
            elif name in results:
                results[name].stop("failed", f"no meta-gradient: {gradient}")


def meta_gradients(workload: Workload, names: list[str], threads: int) -> Iterator[tuple[str, Gradient | str]]:
    """Each implementation's meta-gradient at the starting weights on the first batch, or why there is none."""
    outcomes = {name: Result() for name in names}
    with Crew(workload, names, "float64", threads, outcomes) as crew, tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder, "gradient.npz")
            if crew.ask(name, f"check {path}") is None:
                yield name, outcomes[name].reason
            else:
                with np.load(path) as arrays:
                    yield name, dict(arrays)
            crew.dismiss(name)  # a whole graph in doubles is large: only one at a time


def compare(row: Row, effort: Effort, gradients: Gradients) -> dict[str, Result]:
    """Time a row's implementations in turns: A B C A B C."""
    names = row.implementations
    results = {name: Result() for name in names}
    with Crew(row.workload, names, "float32", row.threads, results) as crew:
        for name in names:
            answer = crew.ask(name, "first")
            if answer is not None:
                results[name].first_seconds = answer["first_seconds"]
        for _ in range(effort.rounds):
            for name in names:
                answer = crew.ask(name, f"run {effort.turn_seconds}")
                if answer is not None:
                    results[name].round_milliseconds.append(1000 * statistics.median(answer["seconds"]))
                    results[name].steps += len(answer["seconds"])
    gradients.check(row.workload, row.threads, results)
    rate(row, results)
    return results


def rate(row: Row, results: dict[str, Result]) -> None:
    """Medians, and ratios to the fastest PyTorch peer round by round."""
    measured = {name: result for name, result in results.items() if result.round_milliseconds}
    for result in measured.values():
        result.milliseconds = statistics.median(result.round_milliseconds)
    peers = [result for name, result in measured.items() if IMPLEMENTATIONS[name].peer and result.running]
    best = min(peers, key=lambda result: result.milliseconds or 0.0, default=None)
    for result in measured.values():
        if best is not None:
            result.ratio, result.ratio_range = times_as_fast(result, best)
    for aim in row.aims:
        other = best if aim.against is None else measured.get(aim.against)
        if other is not None and aim.of in measured:
            ratio, extremes = times_as_fast(measured[aim.of], other)
            measured[aim.of].aims.append(
                {"times": aim.times, "against": aim.against or "best PyTorch peer", "ratio": ratio, "range": extremes}
            )


def times_as_fast(own: Result, other: Result) -> tuple[float, list[float]]:
    """Median and extremes over rounds."""
    pairs = zip(other.round_milliseconds, own.round_milliseconds, strict=False)
    ratios = [theirs / mine for theirs, mine in pairs]
    return statistics.median(ratios), [min(ratios), max(ratios)]


def weigh(row: MemoryRow, gradients: Gradients) -> dict[str, Result]:
    """Peak memory and time of a meta-step in fresh processes, one after another."""
    results = {name: Result() for name in row.implementations}
    for name in row.implementations:
        with Crew(row.workload, [name], "float32", 1, results) as crew:
            answer = crew.ask(name, "memory")
            if answer is not None:
                results[name].peak_mib = answer["mib"]
                results[name].milliseconds = 1000 * statistics.median(answer["seconds"])
                results[name].steps = len(answer["seconds"])
    gradients.check(row.workload, 1, results)
    return results


def difference_of(gradient: Gradient, reference: Gradient) -> float:
    """The largest relative difference over weights; infinite where names or shapes differ.

    A weight whose gradient vanishes (a key's bias under softmax) has only rounding to compare, so that a thousandth of
    the whole gradient's norm is added to each weight's own.
    """
    if {n: a.shape for n, a in gradient.items()} != {n: a.shape for n, a in reference.items()} or not gradient:
        return float("inf")
    norm = np.linalg.norm
    whole = norm([norm(array) for array in reference.values()])
    return float(max(norm(gradient[n] - a) / (norm(a) + 1e-3 * whole) for n, a in reference.items()))


def environment(threads: int) -> dict[str, str]:
    """The same environment for every worker: equal threads, and malloc as it was found."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    xla = f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()} intra_op_parallelism_threads={threads}"
    return dict(os.environ) | counts | {"XLA_FLAGS": xla, "JAX_PLATFORMS": "cpu"}


def record(row: Row | MemoryRow, results: dict[str, Result]) -> dict[str, Any]:
    """A row and its results for the file."""
    return {
        "row": row.title,
        "group": row.group,
        "workload": asdict(row.workload),
        "threads": row.threads if isinstance(row, Row) else 1,
        "results": {name: asdict(result) for name, result in results.items()},
    }
