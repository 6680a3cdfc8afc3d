"""Workers: processes that share each meta-step, and end with the same bits as one process alone.

Training uses only the group of `torch.distributed`, in which each process is a worker. `together` forms the group: from
processes that `torchrun` or another launcher has started, or from others that it starts itself.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch import distributed as dist

from handful.engine.meta_gradient import Leaf, branches
from handful.engine.plan import Plan
from handful.errors import HandfulError, UserError

PATIENCE = timedelta(days=7)
"""How long workers wait for the first one, which alone pre-trains and validates. A lost worker is detected by its
closed connections, not by its silence."""
STORE = "HANDFUL_STORE"
"""The environment variable with the file through which the started processes find one another."""
PEER_LOST_EXIT_CODE = 3
"""The exit code of a worker that ends because another one did."""
REASON_AFTER = 5.0
"""Seconds in which a dead process is distinguished from those that end because of it."""
RESUME = "Continue from the last checkpoint with {resume}."


class PeerError(HandfulError):
    """Training ended on another worker, and so on this one; the first worker reports why."""


class Workers:
    """This worker, and its communication with the others.

    rank: which one this is, counted from 0; only the first one prints, validates and writes.
    asked: whether this one was asked to stop.
    agreed: whether any of them was, before the last step, so that all stop after the same one.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count
        self.asked = self.agreed = False

    @classmethod
    def present(cls) -> Self:
        """Those of the group that `torch.distributed` has been initialized with, or this process alone."""
        return cls(dist.get_rank(), dist.get_world_size()) if _initialized() else cls()

    @property
    def first(self) -> bool:
        """Whether this is the one that prints, validates and writes."""
        return self.rank == 0

    def own(self, plan: Plan, tasks: int) -> range:
        """Which of a meta-batch's tasks are this worker's: those of its branches of the tree."""
        _, runs = branches(plan.parts(tasks), self.count)
        before, parts = sum(map(sum, runs[: self.rank])), sum(runs[self.rank])
        return range(tasks)[before * plan.size(tasks) : (before + parts) * plan.size(tasks)]

    def gather(self, sums: list[Leaf], *, most: int, losses: int) -> list[Leaf]:
        """See `handful.engine.meta_gradient.GradientExchange`. Raises `PeerError` if another worker is gone."""
        if self.count == 1:
            return sums
        rows = [_packed(leaf, losses, self.asked) for leaf in sums]
        rows += [torch.zeros_like(rows[0])] * (most - len(sums))
        mine = torch.stack(rows)
        heard = [torch.empty_like(mine) for _ in range(self.count)]
        with _hearing():
            dist.all_gather(heard, mine)
        everyone = torch.cat(heard)  # (workers * most, bytes)
        headers = everyone[:, :HEADER].clone().view(torch.int64)
        self.agreed = bool(headers[:, 1].any())
        filled = zip(everyone, headers[:, 0].tolist(), strict=True)
        return [_unpacked(row, count, losses, sums[0]) for row, count in filled if count]

    def share(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The first worker's tensors and facts, on each of them. Raises `PeerError` if another worker is gone."""
        facts_bytes = tensors_bytes = b""
        if self.first:
            # Copies, since safetensors refuses tensors that share memory, as tied weights do.
            copies = {n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
            facts_bytes, tensors_bytes = json.dumps(facts).encode(), save(copies)
        with _hearing():
            facts_bytes, tensors_bytes = _broadcast(facts_bytes), _broadcast(tensors_bytes)
            dist.barrier()  # one that ends before the others have heard it all would take its connections along
        return load(tensors_bytes), json.loads(facts_bytes)


HEADER = 16
"""Bytes of two integers before each sum: how many losses follow, and whether this worker was asked to stop."""


def _packed(leaf: Leaf, losses: int, asked: bool) -> Tensor:
    """One sum as bytes, with room for so many losses."""
    values, slopes = leaf
    header = torch.tensor([len(values), asked], dtype=torch.int64)
    room = values.new_zeros(losses - len(values))
    return torch.cat([_bytes(tensor) for tensor in (header, values, room, *slopes)])


def _unpacked(row: Tensor, count: int, losses: int, like: Leaf) -> Leaf:
    """The other way: `count` losses and their gradients, of the types and on the device of those of `like`."""
    sizes = [HEADER, losses * like[0].element_size(), *(slope.nbytes for slope in like[1])]
    _, values, *slopes = torch.split(row, sizes)  # cloned since a view of another type must begin at its own multiples
    return (
        values.clone().view(like[0].dtype)[:count].to(like[0].device),
        [s.clone().view(t.dtype).view(t.shape).to(t.device) for s, t in zip(slopes, like[1], strict=True)],
    )


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)


def _broadcast(content: bytes) -> bytes:
    """The first worker's content."""
    length = torch.tensor(len(content))
    dist.broadcast(length, 0)
    buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
    if dist.get_rank() != 0:
        buffer = torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(buffer, 0)
    return buffer.numpy().tobytes()


@contextmanager
def _hearing() -> Iterator[None]:
    """Errors of `torch.distributed` in this context mean that a worker is gone."""
    try:
        yield
    except RuntimeError as error:
        raise PeerError("Another worker is gone.", hint=RESUME) from error


def check_shared(plan: Plan | None, tasks: int, workers: int) -> None:
    """Raise `UserError` unless `workers` can share meta-batches of so many tasks, with the bits of one worker.

    plan: None if it is yet to be chosen.
    """
    if workers == 1:
        return
    if tasks < workers:
        raise UserError(
            f"A meta-batch of {tasks} tasks is too small for {workers} workers. Use {tasks} or fewer.",
            hint="Or give a larger {meta_batch_size}.",
        )
    if plan is None:
        return
    if plan.parts(tasks) < workers:
        raise UserError(
            f"The plan ({plan}) splits a meta-batch of {tasks} tasks into {plan.parts(tasks)}, too few for {workers} "
            f"workers. A suitable plan is {shared(plan, tasks, workers).written()}.",
            hint="Set it as {plan}, or lower {workers}.",
        )
    if not plan.threads:
        raise UserError(
            f"The plan ({plan}) runs a part on all cores, so the last bits would depend on a worker's number of cores. "
            f"With task threads it is {shared(plan, tasks, workers).written()}.",
            hint="Set it as {plan}.",
        )


def shared(plan: Plan, tasks: int, workers: int) -> Plan:
    """The plan most similar to this one that gives each worker a part, with its share of the cores."""
    if workers == 1:
        return plan
    plan = replace(plan, threads=max(1, (plan.threads or torch.get_num_threads()) // workers))
    if plan.backend == "loop":
        return plan
    return replace(plan, backend="chunks", chunk=min(plan.size(tasks), tasks // workers))


# Making the group


def place(asked: int | None = None) -> tuple[int, int]:
    """This process's rank and the number of workers: those that it was started with, or the first one of `asked`.

    Raises `UserError` if another number is requested than was started.
    """
    if asked is not None and asked < 1:
        raise UserError(f"The number of workers is at least 1, got {asked}.")
    if _initialized():
        rank, count = dist.get_rank(), dist.get_world_size()
    elif _launched():
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    else:
        return 0, asked or 1
    if asked not in (None, count):
        raise UserError(
            f"torchrun, or whatever set WORLD_SIZE in the environment, started {count} workers, but {asked} were "
            f"requested.",
            hint="Remove {workers}.",
        )
    return rank, count


@contextmanager
def together(count: int, entry: str, job: dict[str, Any]) -> Iterator[None]:
    """Within this context, this process and the others form the group of `torch.distributed`, unless it is the only
    one. Those that no launcher has started are started here, on this machine: each runs the Python code `entry`, reads
    `job` as one line of JSON from its standard input, comes to its own `together`, and ends with this process at the
    latest.
    """
    if count == 1 or _initialized():
        yield
    elif not _launched():
        with _others(count, entry, job):
            yield
    else:
        rank, file = int(os.environ["RANK"]), os.environ.get(STORE)
        store = _store(file, count) if file else None
        if store is not None:
            store.set(f"ready/{rank}", "")
        with _group(rank, count, store):
            yield


@contextmanager
def _group(rank: int, count: int, store: Any) -> Iterator[None]:
    with _loopback(), _hearing():
        dist.init_process_group("gloo", rank=rank, world_size=count, store=store, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _loopback() -> Iterator[None]:
    """Workers of one machine connect within it, whatever its name resolves to."""
    variable = "GLOO_SOCKET_IFNAME"
    here = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")] if here else []
    if variable in os.environ or not names:
        yield
        return
    os.environ[variable] = names[0]
    try:
        yield
    finally:
        del os.environ[variable]


@contextmanager
def _others(count: int, entry: str, job: dict[str, Any]) -> Iterator[None]:
    """Within this context, this process is the first worker of a group whose others are started here."""
    with tempfile.TemporaryDirectory(prefix="handful-") as folder, ExitStack() as stack:
        file = Path(folder) / "store"
        children = [stack.enter_context(_Child(rank, count, file, entry, job)) for rank in range(1, count)]
        store = _store(str(file), count)
        try:
            while not store.check([f"ready/{child.rank}" for child in children]):
                if any(child.process.poll() is not None for child in children):
                    raise PeerError("A worker ended before it was ready.")
                time.sleep(0.01)  # no waiting within torch, which would not hear Ctrl-C
            with _group(0, count, store):
                yield
        except PeerError as error:
            raise _reason(children, count) from error


class _Child:
    """A worker process that ends with this one, or where its block is left."""

    def __init__(self, rank: int, count: int, file: Path, entry: str, job: dict[str, Any]) -> None:
        self.rank = rank
        self.log = file.with_name(f"worker-{rank}.log")
        environment = {
            "RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            STORE: str(file),
            "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count)),
            "PYTHONPATH": os.pathsep.join(place for place in sys.path if place),
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", entry],
                env=os.environ | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C reaches this process, which tells the others to stop after the step
            )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # it ends where its standard input does
        try:
            self.process.wait(REASON_AFTER)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _reason(children: list[_Child], count: int) -> Exception:
    """Why training ended: the worker that did not end because of another one."""
    deadline = time.monotonic() + REASON_AFTER
    while time.monotonic() < deadline:
        for child in children:
            code = child.process.poll()
            if code in (None, 0, PEER_LOST_EXIT_CODE):
                continue
            name = f"Worker {child.rank + 1} of {count}"
            if code < 0:
                why = ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
                return HandfulError(f"{name} was killed ({signal.Signals(-code).name}{why}).", hint=RESUME)
            said = child.log.read_text().strip()
            if "Traceback" in said:  # a fault of handful
                return RuntimeError(f"{name} failed:\n{said}")
            return HandfulError(f"{name} ended: {said.splitlines()[-1] if said else f'exit code {code}'}")
        time.sleep(0.01)
    return HandfulError("A worker is gone.", hint=RESUME)


def job() -> dict[str, Any]:
    """In a process that `together` started: its job. The process ends with the one that started it."""
    line = sys.stdin.readline()

    def watch() -> None:
        sys.stdin.read()
        os._exit(PEER_LOST_EXIT_CODE)

    threading.Thread(target=watch, daemon=True).start()
    return json.loads(line)  # type: ignore[no-any-return]


def _launched() -> bool:
    """Whether a launcher has set the addresses of the other workers for this process."""
    return {"RANK", "WORLD_SIZE"} <= set(os.environ) and ("MASTER_ADDR" in os.environ or STORE in os.environ)


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def _store(file: str, count: int) -> Any:
    return dist.FileStore(file, count)  # type: ignore[attr-defined]
