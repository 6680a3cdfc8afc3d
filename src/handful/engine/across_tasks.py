"""Running a function of one task over many: all at once, in chunks, or one by one; in turn or on several threads."""

import functools
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from handful.engine.plan import Plan
from handful.errors import HandfulError

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


def over_parts(function: Callable[[Tree, bool], Result], trees: Tree, plan: Plan) -> Generator[Result, None, None]:
    """`function(part, single)` of each of the parts of `chunks`, in their order, on the plan's threads."""
    parts = chunks(trees, plan)
    recording = torch.is_grad_enabled()

    def run(part: tuple[Tree, bool]) -> Result:
        with torch.set_grad_enabled(recording):  # a thread has a switch of its own
            return function(*part)

    plain = unfused_attention() if recording or plan.backend != "loop" else nullcontext()
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


_unfused = ExitStack()
_users = 0
_switching = threading.Lock()


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Attention is spelled out in here, since the fused one can neither be differentiated twice nor batched.

    The switch is the whole process's: the first thread in turns it, and the last one out turns it back.
    """
    global _users
    with _switching:
        if not _users:
            _unfused.enter_context(sdpa_kernel(SDPBackend.MATH))
        _users += 1
    try:
        yield
    finally:
        with _switching:
            _users -= 1
            if not _users:
                _unfused.close()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay, since each keeps the skeletons of the modules that it calls."""
    return ThreadPoolExecutor(threads, "handful-task", initializer=torch.set_num_threads, initargs=(1,))


if hasattr(os, "register_at_fork"):  # a child has the pool, but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def over_tasks(
    function: Callable[..., Any], stacked: tuple[Any, ...], plan: Plan, learner: nn.Module | None = None
) -> Any:
    """`function(*one)` for each task in the stacked arguments `(count, ...)`; results stacked `(count, ...)`.

    learner: whose adapting or predicting this is. Where nothing is recorded, what `vmap` refuses of it (an operation
    without a batching rule) is run one by one, with a warning, and so is the learner from then on. None: what `vmap`
    raises is raised.
    """

    def run(plan: Plan) -> list[Any]:
        return list(over_parts(of_part, stacked, plan))

    def of_part(arguments: tuple[Any, ...], single: bool) -> Any:
        if single:
            return pytree.tree_map(lambda leaf: leaf.unsqueeze(0), function(*arguments))
        return torch.func.vmap(function)(*arguments)

    one_by_one = replace(plan, backend="loop")
    if learner in _one_by_one:
        plan = one_by_one
    refusal = ""
    try:
        parts = run(plan)
    except RuntimeError as error:
        refusable = plan.backend != "loop" and learner is not None and not torch.is_grad_enabled()
        if not refusable or isinstance(error, HandfulError) or out_of_memory(error):
            raise
        refusal = str(error) or type(error).__name__
    if learner is not None and refusal:
        parts = run(one_by_one)  # raises an error of the function's own, which has nothing to do with `vmap`
        _note_refusal(learner, refusal)
    return parts[0] if len(parts) == 1 else pytree.tree_map(lambda *leaves: torch.cat(leaves), *parts)


_one_by_one: weakref.WeakSet[Any] = weakref.WeakSet()
"""Learners of which `vmap` refused something."""
_noting = threading.Lock()


def _note_refusal(learner: nn.Module, refusal: str) -> None:
    with _noting:
        known = learner in _one_by_one
        _one_by_one.add(learner)
    if not known:
        warnings.warn(
            f"{type(learner).__name__} adapts and predicts one task after another, which is slower than all at once: "
            f"vmap refuses an operation of it or of its network ({refusal.splitlines()[0]}).",
            stacklevel=3,
        )


@contextmanager
def enough_memory(work: str, way_out: str) -> Iterator[None]:
    """Where memory runs out in here, a `HandfulError` says in which work, and the way out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise HandfulError(f"The memory does not suffice for {work}. {way_out}") from error


def out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether memory did not suffice; the error of PyTorch on a CPU has no type of its own."""
    words = "out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED"
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(each in str(error) for each in words)


def stack(trees: list[Tree]) -> Tree:
    """Equal-shaped trees stacked along a new leading axis."""
    return pytree.tree_map(lambda *leaves: torch.stack(leaves), *trees)  # type: ignore[no-any-return]


def take(tree: Tree, index: int | slice) -> Tree:
    """One task, or a slice of them, of stacked trees."""
    return pytree.tree_map_only(Tensor, lambda leaf: leaf[index], tree)  # type: ignore[no-any-return]


def count_of(tree: Any) -> int:
    """The number of stacked tasks: the length of the leading axis."""
    return len(next(leaf for leaf in pytree.tree_iter(tree) if isinstance(leaf, Tensor)))
