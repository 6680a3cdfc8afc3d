"""Bad company for a client that is measured, in a process of its own so that it takes nothing of that one's time.

    python -m benchmarks.service.noise PORT FILE loud CONNECTIONS       ask as fast as answers come
    python -m benchmarks.service.noise PORT FILE trickling CONNECTIONS  half of them silent, half sending byte by byte

FILE holds requests, one after another, each in a line of JSON. It goes on until it is killed.
"""

import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.service import load

PAUSE = 0.2
"""Seconds from a byte to the next one."""


async def trickle(port: int, request: bytes, connections: int) -> None:
    """Hold connections on which hardly anything comes, and open them anew when they are closed.

    They are not in step, as strangers are not: else all bytes of a fifth of a second came at one moment.
    """

    async def hold(number: int) -> None:
        await asyncio.sleep(PAUSE * number / connections)
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                for place in range(len(request)):
                    if writer.is_closing():
                        break
                    if number % 2:
                        writer.write(request[place : place + 1])
                    await asyncio.sleep(PAUSE)
                writer.close()

    await asyncio.gather(*(hold(number) for number in range(connections)))


def written(requests: Sequence[bytes], file: Path) -> Path:
    """The file with these requests."""
    file.write_text("\n".join(json.dumps(request.decode("latin-1")) for request in requests))
    return file


if __name__ == "__main__":
    port, file, kind, connections = sys.argv[1:]
    requests = [json.loads(line).encode("latin-1") for line in Path(file).read_text().splitlines()]
    if kind == "loud":
        load.waiting(int(port), itertools.cycle(requests), connections=int(connections))
    else:
        asyncio.run(trickle(int(port), requests[0], int(connections)))
