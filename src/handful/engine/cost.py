"""How much memory a graph takes, and how much there is."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def graph_bytes(function: Callable[[], object]) -> int:
    """The most bytes of tensors that autograd kept at one time while `function` ran, forward and backward.

    Counted from the tensors themselves, so it is the same on every run, which the memory of a process is not. Raises
    `RuntimeError` where `function` uses a `torch.func` transform, which allows no such count.
    """
    ledger = _Ledger()
    with saved_tensors_hooks(lambda tensor: _Kept(tensor, ledger), lambda kept: kept.tensor):
        function()
    return ledger.peak


class _Ledger:
    """Storages that are kept, each counted once however many saved tensors share it."""

    def __init__(self) -> None:
        self.holders: dict[int, int] = {}
        self.now = self.peak = 0

    def add(self, storage: int, size: int) -> None:
        holders = self.holders.get(storage, 0)
        self.holders[storage] = holders + 1
        self.now += 0 if holders else size
        self.peak = max(self.peak, self.now)

    def remove(self, storage: int, size: int) -> None:
        self.holders[storage] -= 1
        if not self.holders[storage]:
            del self.holders[storage]
            self.now -= size


class _Kept:
    """A saved tensor that tells the ledger when the graph lets go of it."""

    def __init__(self, tensor: Tensor, ledger: _Ledger) -> None:
        self.tensor, self.ledger = tensor, ledger
        storage = tensor.untyped_storage()
        self.entry = storage.data_ptr(), storage.nbytes()
        ledger.add(*self.entry)

    def __del__(self) -> None:
        self.ledger.remove(*self.entry)


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
