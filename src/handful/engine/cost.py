"""The cost of a meta-step in memory and operations, and the machine's capacity."""

import ctypes
import os
import statistics
import time
import weakref
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import flop_registry

from handful.engine.meta_gradient import MetaGradient
from handful.engine.plan import Plan
from handful.streams import Dispatch
from handful.types import Task, TaskSpec, take

M_TOP_PAD, M_MMAP_THRESHOLD = -2, -3
"""glibc's names for how much free memory is kept, and for the size from which memory is a mapping of its own."""
LARGE = 2**23
"""Bytes of a large tensor."""
GRAPHS_AT_MOST = 5 * 2**27
"""Bytes that graphs of a training may take on a CPU."""


def graph_bytes(function: Callable[[], object], limit: int | None = None) -> int:
    """The most bytes of tensors that autograd kept at one time while `function` ran, forward and backward.

    Counted from the tensors themselves, so it is the same on every run, which the memory of a process is not. A
    function that keeps more than `limit` is stopped there. Raises `RuntimeError` if `function` uses a `torch.func`
    transform, which allows no such count.
    """
    ledger = _Ledger(limit)
    with suppress(_LimitError), saved_tensors_hooks(lambda tensor: _Kept(tensor, ledger), lambda kept: kept.tensor):
        function()
    return ledger.peak


class _LimitError(Exception):
    """A graph that was too large to be finished."""


class _Ledger:
    """Storages that are kept, each counted once however many saved tensors share it."""

    def __init__(self, limit: int | None) -> None:
        self.holders: dict[int, int] = {}
        self.now = self.peak = 0
        self.limit = limit

    def add(self, storage: int, size: int) -> None:
        holders = self.holders.get(storage, 0)
        self.holders[storage] = holders + 1
        self.now += 0 if holders else size
        self.peak = max(self.peak, self.now)
        if self.limit is not None and self.now > self.limit:
            raise _LimitError

    def remove(self, storage: int, size: int) -> None:
        self.holders[storage] -= 1
        if not self.holders[storage]:
            del self.holders[storage]
            self.now -= size


class _Kept:
    """A saved tensor that updates the ledger when the graph releases it."""

    def __init__(self, tensor: Tensor, ledger: _Ledger) -> None:
        # Detached, as autograd gives it its history back: with it, a graph that is stopped would hold itself for good.
        self.tensor, self.ledger = tensor.detach(), ledger
        storage = tensor.untyped_storage()
        self.entry = storage.data_ptr(), storage.nbytes()
        ledger.add(*self.entry)

    def __del__(self) -> None:
        self.ledger.remove(*self.entry)


def live_bytes(function: Callable[[], object]) -> int:
    """The most bytes of new tensors that were alive at one time while `function` ran: the same on every run.

    What an operation takes within itself is not counted, nor is anything on other threads.
    """
    ledger = _Ledger(None)
    with _Watching(ledger):
        function()
    return ledger.peak


class _Watching(Dispatch):
    """Enters the results of all operations into a ledger, and strikes them out when they are gone."""

    def __init__(self, ledger: _Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger = ledger

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(results):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                entry = storage.data_ptr(), storage.nbytes()
                self.ledger.add(*entry)
                weakref.finalize(tensor, self.ledger.remove, *entry)
        return results


_query_bytes: weakref.WeakKeyDictionary[nn.Module, dict[Any, int]] = weakref.WeakKeyDictionary()


def query_bytes(learner: nn.Module, states: Hashable, predict: Callable[[Tensor], object], like: Tensor) -> int:
    """Bytes that each query of the shape and type of these `(n, *input_shape)` takes while it is predicted.

    states: what the states have in common for which it takes as much.
    predict: from one of them.

    Measured at first use, and then stored for the learner; 0 if it cannot be measured.
    """
    shape = like.shape[1:]
    key = states, shape, like.dtype, like.device
    known = _query_bytes.setdefault(learner, {})
    if key not in known:
        one, two = (like.new_zeros(count, *shape) for count in (1, 2))
        try:
            known[key] = live_bytes(lambda: predict(two)) - live_bytes(lambda: predict(one))
        except Exception:  # a network that cannot be watched, or an error that predicting itself will raise
            known[key] = 0
    return known[key]


def share_query_bytes(learner: nn.Module, copy: nn.Module) -> None:
    """Measurements of either apply to both, now and later."""
    _query_bytes[copy] = _query_bytes.setdefault(learner, {})


class Operations(NamedTuple):
    """Floating-point operations, those of convolutions apart: on a CPU these are faster than their count suggests."""

    products: float
    convolutions: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.products + self.convolutions

    def share_of_limit(self, most: "Operations", seconds: float) -> float:
        """The part of so many seconds that these take at the rates that the machine reaches (`operations_per_second`).

        At most 1.
        """
        return min(1.0, (self.products / most.products + self.convolutions / most.convolutions) / seconds)


def operations(
    learner: nn.Module, tasks: Task, spec: TaskSpec, noise: Any = None, *, limit: int | None = None
) -> Operations | None:
    """Floating-point operations of the meta-gradient of the first of these tasks: products and convolutions.

    Counted on the plain loop that keeps its whole graph: a plan that computes more than the algorithm needs gets no
    credit for it. None if that graph needs more than `limit` bytes, or if the loop fails while counting: a measurement
    never ends the measured work.
    """
    gradient = MetaGradient(learner, Plan("loop"))
    one, drawn = take((tasks, noise), slice(0, 1))
    if limit is not None:
        with suppress(RuntimeError):  # where bytes cannot be counted
            if graph_bytes(lambda: gradient(one, spec, drawn), limit) > limit:
                return None
    counter = _Operations()  # type: ignore[no-untyped-call]
    try:
        with counter:
            gradient(one, spec, drawn)
    except Exception:
        return None
    return Operations(counter.products, counter.convolutions)


class _Operations(Dispatch):  # type: ignore[no-untyped-call]
    """Counts as PyTorch's `FlopCounterMode`, without its hooks on modules: they fail under `torch.autograd.grad`."""

    products = convolutions = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            count = int(flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out))
            if "convolution" in func.overloadpacket.__name__:
                self.convolutions += count
            else:
                self.products += count
        return out


def operations_per_second(like: Tensor) -> Operations:
    """The most that this machine was seen to do with all threads, on large tensors like this one.

    Of products: of matrices of 1024 rows. Of convolutions: of 64 channels with kernels of 3 x 3, in the faster order of
    the channels; counted as if each weight were multiplied with each pixel, which fast algorithms spare.
    """
    matrix = torch.ones(1024, 1024, dtype=like.dtype, device=like.device)
    images, kernel = matrix.view(16, 64, 32, 32), matrix[0, :64].view(64, 1, 1, 1).expand(64, 64, 3, 3).contiguous()
    images_last, kernel_last = (tensor.to(memory_format=torch.channels_last) for tensor in (images, kernel))
    with torch.no_grad():
        products = _undisturbed(lambda: matrix @ matrix)
        convolutions = min(
            _undisturbed(lambda: F.conv2d(images, kernel, padding=1)),
            _undisturbed(lambda: F.conv2d(images_last, kernel_last, padding=1)),
        )
    return Operations(2 * 1024**3 / products, 2 * 64 * 9 * images.numel() / convolutions)


def _undisturbed(run: Callable[[], Tensor]) -> float:
    """Seconds of a run that nothing else disturbs: the middle of the fastest half, as clocks jump, too."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        run().select(0, 0).sum().item()  # waits for the result
        times.append(time.perf_counter() - start)
    return statistics.median(sorted(times)[:10])


def peak_bytes(function: Callable[[], object]) -> int | None:
    """By how much the memory of this process grew at most while `function` ran; None if unknown.

    On Linux alone: it forgets the process's largest size so far.
    """
    give_back_memory()  # what is free, but not given back, would hide what the function takes
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _status("VmRSS")
    function()
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    line = next(line for line in _read("/proc/self/status").splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def memory_limit(device: torch.device) -> int:
    """Bytes that graphs may take: half of what is free. Only saved tensors are counted, and others exist."""
    return free_bytes(device) // 2


def training_limit(device: torch.device) -> int:
    """Bytes that the graphs of a training may take: as `memory_limit`, but on a CPU so few that the whole process needs
    at most 1.5 GB beside its data, whatever is free."""
    return memory_limit(device) if device.type == "cuda" else min(memory_limit(device), GRAPHS_AT_MOST)


def give_back_memory() -> None:
    """What is free goes back to the system, and large tensors from now on as soon as they are freed, as glibc can.

    Otherwise free memory lies scattered, and with photos a training holds a quarter more than it needs.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGE)
        library.malloc_trim(0)


def keep_memory() -> None:
    """Keep what is freed of smaller tensors for the next ones, as far as glibc can.

    By itself it gives back what a batch of predictions has freed, and to get it anew takes longer than to predict.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGE)
        library.mallopt(M_TOP_PAD, 2 * LARGE)


def resident_bytes() -> int | None:
    """Memory that this process holds now; None if unknown."""
    try:
        return _status("VmRSS")
    except StopIteration:  # not on Linux
        return None


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken: of the GPU, or of the machine and the container that the process runs in."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**32
    for line in _read("/proc/meminfo").splitlines():  # better where it exists: counts caches that can be given back
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    return min(free, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else free


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
