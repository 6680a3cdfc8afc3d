"""The rows of the benchmark: each measures one thing that the service promises, beside what was promised."""

import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import child
from benchmarks.service import load, noise, wrk
from benchmarks.service.world import (
    ADMIN_KEY,
    SHOT,
    WAY,
    Server,
    filled,
    free_port,
    saved_model,
    vectors,
)
from benchmarks.tiny import sized
from handful import MetaModel, TaskBank

CONNECTIONS = 64
HURRIED = 200
"""Milliseconds within which clients in a hurry want an answer: 900 that wait have more before them than that."""


class Found(NamedTuple):
    """What one row found. figures: by name. reached: whether that is what was aimed at."""

    figures: dict[str, float]
    reached: bool


class Row(NamedTuple):
    """One figure of the service."""

    name: str
    aim: str
    measure: Callable[[Path, bool], Found]
    """In an empty folder; True: the quick form."""
    limit: str = ""
    """What profiling found to limit it."""


ROWS: dict[str, Row] = {}


def _row(
    name: str, aim: str, limit: str = ""
) -> Callable[[Callable[[Path, bool], Found]], Callable[[Path, bool], Found]]:
    def add(measure: Callable[[Path, bool], Found]) -> Callable[[Path, bool], Found]:
        ROWS[name] = Row(name, aim, measure, limit)
        return measure

    return add


@_row(
    "create",
    "a task of 25 vectors, 5-way, durable: p50 <= 15 ms, p99 <= 60 ms",
    "about two thirds are processor time in the server, half of it for checking, adapting and encoding the examples, "
    "half for the 15 statements of the transaction; the rest is the disk's sync",
)
def create(folder: Path, quick: bool) -> Found:
    """One client creates task after task over a connection that is kept open."""
    saved_model(folder)
    with Server.started(folder) as server:
        requests = [
            server.request("/v1/tasks", {"name": f"task {number}", "examples": _examples(number)})
            for number in range(sized(200 if quick else 1000, 5))
        ]
        load.waiting(server.port, requests[: len(requests) // 10])
        measured = load.waiting(server.port, requests[len(requests) // 10 :])
    _check(measured, 201)
    p50, p99 = measured.percentile(50), measured.percentile(99)
    return Found({"p50 ms": p50, "p99 ms": p99, "n": measured.statuses[201]}, p50 <= 15 and p99 <= 60)


@_row(
    "warm predict",
    "64 connections over 1,000 tasks: >= 0.6 of a bare route that reads by msgspec and echoes",
    "processor time of one core in Python, in many small parts: the largest are writing to the socket (a tenth), "
    "reading the numbers, and the line of the log with the metrics (less each)",
)
def warm(folder: Path, quick: bool) -> Found:
    """The service and a bare route take turns under wrk."""
    ids = filled(folder, sized(1000, 10))
    paths = [f"/v1/tasks/{id_}/predict" for id_ in ids]
    bodies = [{"inputs": [row]} for row in vectors(100, 0).tolist()]
    seconds = sized(3 if quick else 8, 1)
    with Server.started(folder) as server, _bare() as port:
        load.waiting(server.port, server.predicts(ids, 4 * len(ids)), connections=8)
        turns = [
            [
                wrk.rate(folder, at, paths, bodies, ADMIN_KEY, connections=CONNECTIONS, seconds=seconds)
                for at in (server.port, port)
            ]
            for _ in range(sized(3 if quick else 5, 1))
        ]
    failed = sum(rate.failed for turn in turns for rate in turn)
    if failed:
        raise SystemExit(f"{failed} requests failed.")
    ours, bares = (float(np.median([turn[place].requests for turn in turns])) for place in range(2))
    ratio = float(np.median([own.requests / bare.requests for own, bare in turns]))
    p99 = float(np.median([own.p99 for own, _ in turns]))
    return Found({"ratio": ratio, "requests/s": ours, "bare requests/s": bares, "p99 ms": p99}, ratio >= 0.6)


@_row("batched predict", "inside the process, 64 tasks together against one by one: >= 5 times as fast")
def batched(folder: Path, quick: bool) -> Found:
    """One input for each of 64 tasks, in one call of a bank and in 64 calls."""
    torch.set_num_threads(1)
    model = MetaModel.from_pretrained(saved_model(folder))
    bank: TaskBank[int] = TaskBank(model)
    for task in range(CONNECTIONS):
        rows = torch.from_numpy(vectors(WAY, task)).float()
        bank.put(task, model.adapt(rows, [f"class {number}" for number in range(WAY)], keep_support=False))
    requests = [(task, torch.from_numpy(vectors(1, task)).float()) for task in range(CONNECTIONS)]
    together, alone = [], []
    for _ in range(sized(50 if quick else 200, 2)):
        together.append(_seconds(lambda: bank.predict(requests)))
        alone.append(_seconds(lambda: [bank.predict([request]) for request in requests]))
    ratio = float(np.median(np.array(alone) / np.array(together)))
    figures = {"ratio": ratio, "together us/input": 1e6 * float(np.median(together)) / CONNECTIONS}
    return Found(figures, ratio >= 5)


@_row(
    "cold predict",
    "a state that is not in memory: p99 <= 5 ms more than one that is",
    "inside the process a cold state takes a quarter of that in processor time; the rest is waiting for the disk and "
    "for the cores, which the load shares",
)
def cold(folder: Path, quick: bool) -> Found:
    """One client predicts for each of many tasks, first right after the start, then again."""
    ids = filled(folder, sized(500 if quick else 3000, 10))
    with Server.started(folder) as server:
        load.waiting(server.port, server.predicts(ids[:20], 100))
        rest = ids[20:] or ids
        requests = [
            server.request(f"/v1/tasks/{id_}/predict", {"inputs": [row]})
            for id_, row in zip(rest, vectors(len(rest), 1).tolist(), strict=True)
        ]
        first, again = (load.waiting(server.port, requests) for _ in range(2))
    for one in (first, again):
        _check(one, 200)
    more = first.percentile(99) - again.percentile(99)
    figures = {"more ms": more, "cold p99 ms": first.percentile(99), "warm p99 ms": again.percentile(99)}
    return Found(figures, more <= 5)


@_row("10,000 tasks", "20-way heads of 512 numbers in memory: <= 1.0 GiB in all; ready in <= 10 s")
def many(folder: Path, quick: bool) -> Found:
    """A server that was asked for each of its tasks once."""
    ids = filled(folder, sized(10_000, 20))
    with Server.started(folder) as server:
        start = server.seconds
        row = vectors(1, 0)[0].tolist()
        measured = load.waiting(
            server.port,
            [server.request(f"/v1/tasks/{id_}/predict", {"inputs": [row]}) for id_ in ids],
            connections=8,
        )
        resident = server.resident / 2**30
    _check(measured, 200)
    return Found({"GiB": resident, "ready s": start, "tasks": len(ids)}, resident <= 1 and start <= 10)


@_row(
    "overload",
    "3 times capacity: goodput >= 90 % of the peak; refusals in 50 ms; memory +15 %; normal in 5 s",
    "slow refusals are of requests that were let in and missed their time, and of the first ones on the 900 "
    "connections that open at once; on open connections half are refused within 50 ms",
)
def overload(folder: Path, quick: bool) -> Found:
    """Clients that do not wait send three times what the server takes, first with time to wait, then with little."""
    ids = filled(folder, sized(1000, 10))
    seconds = sized(10.0 if quick else 60.0, 1.0)
    with Server.started(folder) as server:
        requests, hurried = (server.predicts(ids, 2000, milliseconds=most) for most in (2000, HURRIED))
        load.waiting(server.port, requests, connections=8)
        quiet = load.waiting(server.port, requests * 10, seconds=sized(4.0, 0.3))
        peak = load.waiting(server.port, requests * 1000, connections=CONNECTIONS, seconds=sized(8.0, 0.5))
        before = server.resident
        over, short = (
            load.at_rate(server.port, asked, 3 * peak.goodput, seconds, connections=900)
            for asked in (requests, hurried)
        )
        memory = server.resident / before - 1
        time.sleep(sized(5.0, 0.1))
        after = load.waiting(server.port, requests * 10, seconds=sized(4.0, 0.3))
    if odd := {*over.statuses, *short.statuses} - {200, 429, 503}:
        raise SystemExit(f"Under overload some requests were answered with {odd}.")
    goodput, in_time = over.goodput / peak.goodput, short.goodput / peak.goodput
    both = load.Measured(
        {status: over.seconds.get(status, []) + short.seconds.get(status, []) for status in (429, 503)}
    )
    refusals, normal = both.percentile(99, 503, 429), after.percentile(99) / quiet.percentile(99)
    offered = (sum(over.statuses.values()) + over.broken) / over.lasted / peak.goodput
    figures = {
        "goodput": goodput,
        f"goodput within {HURRIED} ms": in_time,
        "offered": offered,
        "peak requests/s": peak.goodput,
        "refused p99 ms": refusals,
        "refused": both.statuses[503] + both.statuses[429],
        "memory": memory,
        "p99 after": normal,
        "load's cores": over.cores,
    }
    reached = min(goodput, in_time) >= 0.9 and not refusals > 50 and memory <= 0.15 and normal <= 1.5
    return Found(figures, reached)


@_row(
    "fair shares",
    "one tenant at 10 times its share: another's p99 <= 2 times its quiet one",
    "a batch of the loud tenant that runs is not interrupted, and the load of both tenants runs on the same two cores",
)
def fair(folder: Path, quick: bool) -> Found:
    """A tenant asks at a steady rate, first alone, then beside one that sends as much as it can."""
    ids = filled(folder, sized(200, 5))
    with Server.started(folder) as server:
        key = _tenant(server, "guest")
        task = _created(server, "guest task", key)
        own = [server.request(f"/v1/tasks/{task}/predict", {"inputs": [row]}, key) for row in vectors(50, 2).tolist()]
        loud = server.predicts(ids, 2000)
        load.waiting(server.port, loud + own, connections=8)
        seconds, rate = sized(5.0 if quick else 20.0, 0.5), sized(40.0, 20.0)
        quiet = load.at_rate(server.port, own, rate, seconds)
        with _beside(server, folder, loud[:500], "loud", 10 * CONNECTIONS):
            beside = load.at_rate(server.port, own, rate, seconds)
    ratio = beside.percentile(99) / quiet.percentile(99)
    figures = {"ratio": ratio, "quiet p99 ms": quiet.percentile(99), "beside p99 ms": beside.percentile(99)}
    refused = sum(count for status, count in beside.statuses.items() if status != 200)
    return Found(figures | {"refused": refused}, ratio <= 2 and not refused)


@_row("slow clients", "200 connections that trickle or are silent: a good client's p99 <= 1.2 times as before")
def slow(folder: Path, quick: bool) -> Found:
    """A client asks one thing after another, first alone, then beside connections that hold the server's attention."""
    ids = filled(folder, sized(200, 5))
    seconds = sized(4.0 if quick else 15.0, 0.3)
    with Server.started(folder) as server:
        requests = server.predicts(ids, 1000) * 20
        load.waiting(server.port, requests[:1000], connections=8)
        before = load.waiting(server.port, requests, seconds=seconds)
        with _beside(server, folder, requests[:1], "trickling", 200):
            beside = load.waiting(server.port, requests, seconds=seconds)
        again = load.waiting(server.port, requests, seconds=seconds)
    quiet = min(before.percentile(99), again.percentile(99)), max(before.percentile(99), again.percentile(99))
    ratio = beside.percentile(99) / float(np.mean(quiet))
    return Found({"ratio": ratio, "quiet p99 ms": quiet[0], "beside p99 ms": beside.percentile(99)}, ratio <= 1.2)


def _examples(seed: int) -> list[dict[str, object]]:
    rows = vectors(5 * SHOT, seed).tolist()
    return [{"input": row, "label": f"class {place % 5}"} for place, row in enumerate(rows)]


def _check(measured: load.Measured, status: int) -> None:
    if measured.broken or set(measured.statuses) != {status}:
        raise SystemExit(f"Not all requests were answered with {status}: {measured.statuses}, {measured.broken} broken")


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _tenant(server: Server, name: str) -> str:
    """A key of a new tenant."""
    server.post("/v1/tenants", {"name": name})
    return str(server.post("/v1/keys", {"tenant": name, "scope": "write", "name": "benchmark"})["token"])


def _created(server: Server, name: str, key: str) -> str:
    own = Server(server.process, server.port, 0.0, {"authorization": f"Bearer {key}"})
    return str(own.post("/v1/tasks", {"name": name, "examples": _examples(0)})["id"])


@contextlib.contextmanager
def _bare() -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen(child.command("benchmarks.service.bare", str(port)))
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz"):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _beside(server: Server, folder: Path, requests: Sequence[bytes], kind: str, connections: int) -> Iterator[None]:
    """Bad company, see `noise`."""
    file = noise.written(requests, folder / "requests")
    command = child.command("benchmarks.service.noise", str(server.port), str(file), kind, str(connections))
    process = subprocess.Popen(command)
    try:
        time.sleep(sized(4.0, 1.0))  # it starts, and is refused for the first time
        yield
    finally:
        process.kill()
        process.wait()


def described(figures: dict[str, float]) -> str:
    """Figures in a line."""
    return ", ".join(f"{name} {json.dumps(round(value, 3))}" for name, value in figures.items())
