"""Load on a server: clients that wait for each answer, and clients that send at a rate whatever comes back.

Requests are bytes that were made before, and of an answer only the status and the length are read, so that one core
offers several times what a server in Python takes.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvloop

COMES_AGAIN = 1.0
"""Seconds after which a client that was refused comes again: the least that `Retry-After` says."""


@dataclass
class Measured:
    """What a load met.

    seconds: from a request to its answer, by status. lasted: seconds of the whole load. cores: that it took itself.
    """

    seconds: dict[int, list[float]] = field(default_factory=dict)
    lasted: float = 0.0
    cores: float = 0.0
    broken: int = 0
    """Connections that ended before an answer."""

    def add(self, status: int, took: float) -> None:
        """Count one answer."""
        self.seconds.setdefault(status, []).append(took)

    @property
    def statuses(self) -> Counter[int]:
        """How many answers of each status came."""
        return Counter({status: len(took) for status, took in self.seconds.items()})

    @property
    def goodput(self) -> float:
        """Requests that were carried out, a second."""
        return sum(count for status, count in self.statuses.items() if status < 300) / self.lasted

    def percentile(self, percent: float, *statuses: int) -> float:
        """Milliseconds within which so many percent of the answers of these statuses came; by default 200 and 201."""
        took = list(itertools.chain.from_iterable(self.seconds.get(status, []) for status in statuses or (200, 201)))
        return float(np.percentile(took, percent)) * 1000 if took else float("nan")


class Connection:
    """One connection that is kept open, for one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> int:
        """The status of the answer to a request; `OSError` or `EOFError` where there is none."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lowered = head.lower()
            length = int(lowered.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            if b"connection: close" in lowered:
                self.close()
            return int(head[9:12])
        except (OSError, EOFError, asyncio.CancelledError):
            self.close()
            raise

    def close(self) -> None:
        """End the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def waiting(port: int, requests: Iterable[bytes], *, connections: int = 1, seconds: float = float("inf")) -> Measured:
    """The load of clients that each wait for an answer before they ask again, until requests or seconds are over."""
    measured, ahead = Measured(), iter(requests)

    async def client(until: float) -> None:
        connection = Connection(port)
        for request in ahead:
            if time.perf_counter() > until:
                break
            await _measured(measured, connection, request)
        connection.close()

    async def all_clients() -> None:
        until = time.perf_counter() + seconds
        await asyncio.gather(*(client(until) for _ in range(connections)))

    _timed(measured, all_clients)
    return measured


def at_rate(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, *, connections: int = 256, seed: int = 0
) -> Measured:
    """The load of many clients that send at random moments, so many requests a second, however long answers take.

    A moment at which all connections wait for answers passes as a request that found no connection: it is counted as
    broken. A connection on which a request was refused is used again after the time that its client was told.
    """
    measured, choose = Measured(), random.Random(seed)

    async def all_clients() -> None:
        own = [Connection(port) for _ in range(connections)]
        idle = list(own)
        running: set[asyncio.Task[None]] = set()
        until = time.perf_counter() + seconds
        due = time.perf_counter()

        async def one(connection: Connection, request: bytes) -> None:
            if await _measured(measured, connection, request) in (429, 503):
                asyncio.get_running_loop().call_later(COMES_AGAIN, idle.append, connection)
            else:
                idle.append(connection)

        while due < until:
            due += choose.expovariate(rate)
            if (ahead := due - time.perf_counter()) > 0.001:
                await asyncio.sleep(ahead)
            if not idle:
                measured.broken += 1
                await asyncio.sleep(0)
                continue
            task = asyncio.create_task(one(idle.pop(), choose.choice(requests)))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
        for connection in own:
            connection.close()

    _timed(measured, all_clients)
    return measured


async def _measured(measured: Measured, connection: Connection, request: bytes) -> int:
    """The status of the answer; 0: there was none."""
    begin = time.perf_counter()
    try:
        status = await connection.ask(request)
    except (OSError, EOFError):
        measured.broken += 1
        return 0
    measured.add(status, time.perf_counter() - begin)
    return status


def _timed(measured: Measured, load: Callable[[], Awaitable[Any]]) -> None:
    async def timed() -> None:
        begin, own = time.perf_counter(), time.process_time()
        await load()
        measured.lasted = time.perf_counter() - begin
        measured.cores = (time.process_time() - own) / measured.lasted

    uvloop.run(timed())
