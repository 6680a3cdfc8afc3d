"""Running a function of one task over many: all at once, in chunks, or one by one; in turn or on several threads."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from handful.engine.plan import Plan

Tree = TypeVar("Tree")
Result = TypeVar("Result")


def chunks(trees: Tree, plan: Plan) -> Iterator[tuple[Tree, bool]]:
    """Split stacked trees `(count, ...)` as the plan says; with each part, whether it is one task without its axis."""
    count = count_of(trees)
    if plan.backend == "loop":
        for index in range(count):
            yield take(trees, index), True
    else:
        size = plan.size(count)
        for start in range(0, count, size):
            yield trees if size == count else take(trees, slice(start, start + size)), False


def over_parts(function: Callable[[Tree, bool], Result], trees: Tree, plan: Plan) -> Iterator[Result]:
    """`function(part, single)` of each of the parts of `chunks`, in their order, on the plan's threads."""
    parts = chunks(trees, plan)
    recording = torch.is_grad_enabled()

    def run(part: tuple[Tree, bool]) -> Result:
        with torch.set_grad_enabled(recording):  # a thread has a switch of its own
            return function(*part)

    # Fused attention can neither be differentiated twice nor batched.
    plain = sdpa_kernel(SDPBackend.MATH) if recording or plan.backend != "loop" else nullcontext()
    with plain, one_core_each() if plan.threads else nullcontext():
        yield from _pool(plan.threads).map(run, parts) if plan.threads else (function(*part) for part in parts)


@contextmanager
def one_core_each() -> Iterator[None]:
    """Operations use one core in here: results do not depend on how many there are, and threads do not fight for them.

    One task per thread is faster than two threads within an operation, which wait for each other at its end.
    """
    threads = torch.get_num_threads()
    token = _cores.set(cores())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _cores.reset(token)


_cores: ContextVar[int | None] = ContextVar("cores", default=None)


def cores() -> int:
    """How many cores there are for task threads: torch's threads, also where an operation may use but one of them."""
    return _cores.get() or torch.get_num_threads()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay, since each keeps the skeletons of the modules that it calls."""
    return ThreadPoolExecutor(threads, "handful-task", initializer=torch.set_num_threads, initargs=(1,))


def over_tasks(function: Callable[..., Any], stacked: tuple[Any, ...], plan: Plan) -> Any:
    """`function(*one)` for each task in the stacked arguments `(count, ...)`; results stacked `(count, ...)`."""

    def of_part(arguments: tuple[Any, ...], single: bool) -> Any:
        if single:
            return pytree.tree_map(lambda leaf: leaf.unsqueeze(0), function(*arguments))
        return torch.func.vmap(function)(*arguments)

    parts = list(over_parts(of_part, stacked, plan))
    return parts[0] if len(parts) == 1 else pytree.tree_map(lambda *leaves: torch.cat(leaves), *parts)


def stack(trees: list[Tree]) -> Tree:
    """Equal-shaped trees stacked along a new leading axis."""
    return pytree.tree_map(lambda *leaves: torch.stack(leaves), *trees)  # type: ignore[no-any-return]


def take(tree: Tree, index: int | slice) -> Tree:
    """One task, or a slice of them, of stacked trees."""
    return pytree.tree_map_only(Tensor, lambda leaf: leaf[index], tree)  # type: ignore[no-any-return]


def count_of(tree: Any) -> int:
    """The number of stacked tasks: the length of the leading axis."""
    return len(next(leaf for leaf in pytree.tree_iter(tree) if isinstance(leaf, Tensor)))
