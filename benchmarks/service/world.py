"""The model, the store and the server that the rows of this benchmark measure."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks import child
from handful import LEARNERS, MetaModel, Service, TaskSpec

WIDTH, WAY, SHOT = 512, 20, 5
ADMIN_KEY = "benchmark-" + "k" * 40
STARTS_WITHIN, STOPS_WITHIN = 120.0, 20.0
"""Seconds in which a server is ready, and in which it has ended after it was told to."""


def saved_model(folder: Path) -> Path:
    """A model on vectors, whose tasks have a prototype of 512 numbers for each class: 40 KiB for 20 classes."""
    spec = TaskSpec("classification", (WIDTH,), WAY, "permuted")
    MetaModel(LEARNERS["protonet"].build(spec, backbone="raw")).save_pretrained(folder / "model")
    return folder / "model"


def vectors(count: int, seed: int) -> np.ndarray:
    """Inputs `(count, 512)` of four digits, as a client would send them."""
    return np.random.default_rng(seed).standard_normal((count, WIDTH)).round(4)


def filled(folder: Path, tasks: int, way: int = WAY, tenant: str = "default") -> list[str]:
    """A store in a folder with so many tasks of one example for each class; returns their ids."""
    labels = [f"class {number}" for number in range(way)]
    with Service({"vectors": saved_model(folder)}, folder / "store") as service, ThreadPoolExecutor(32) as threads:

        def create(number: int) -> str:
            return service.create(f"task {number}", vectors(way, number), labels, tenant=tenant).id

        return list(threads.map(create, range(tasks)))


@dataclass
class Server:
    """A process that serves a store, and how to reach it."""

    process: subprocess.Popen[bytes]
    port: int
    seconds: float
    """From its start until it was ready."""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path, *options: str) -> Iterator[Self]:
        """A server of the model and the store in a folder, which ends with the context."""
        port, begin = free_port(), time.monotonic()
        command = child.command("handful", "serve", "--model", f"vectors={folder / 'model'}")
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--data", str(folder / "store"), "--port", str(port), *options],
                env=os.environ | {"HANDFUL_ADMIN_KEY": ADMIN_KEY},
                stdout=log,
                stderr=log,
            )
            server = cls(process, port, 0.0, {"authorization": f"Bearer {ADMIN_KEY}"})
            try:
                while not server.ready():
                    if process.poll() is not None or time.monotonic() - begin > STARTS_WITHIN:
                        raise SystemExit(f"The server did not start:\n{(folder / 'server.log').read_text()[-2000:]}")
                    time.sleep(0.02)
                server.seconds = time.monotonic() - begin
                yield server
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOPS_WITHIN)
                finally:
                    process.kill()
                    process.wait()

    def ready(self) -> bool:
        """Whether it takes requests."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def post(self, path: str, content: Any) -> Any:
        """What it answers to a request, as values; `HTTPError` where that is a problem."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(content).encode(),
            {"content-type": "application/json", **self.headers},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def request(self, path: str, content: Any, key: str = ADMIN_KEY, *, milliseconds: int = 2000) -> bytes:
        """A request as it goes over the wire. milliseconds: within which an answer is wanted."""
        body = json.dumps(content).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"X-Request-Timeout-Ms: {milliseconds}\r\n\r\n"
        )
        return head.encode() + body

    def predicts(self, ids: Sequence[str], count: int, seed: int = 0, *, milliseconds: int = 2000) -> list[bytes]:
        """Requests for the prediction of one input each within some time, over these tasks at random."""
        chosen = np.random.default_rng(seed).integers(len(ids), size=count)
        inputs = vectors(min(count, 200), seed).tolist()
        return [
            self.request(
                f"/v1/tasks/{ids[task]}/predict", {"inputs": [inputs[place % len(inputs)]]}, milliseconds=milliseconds
            )
            for place, task in enumerate(chosen)
        ]

    @property
    def resident(self) -> int:
        """Bytes of memory that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024


def free_port() -> int:
    """A port of this machine that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
