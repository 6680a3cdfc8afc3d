"""Running a function of one task over many: all at once, in chunks, or one by one."""

import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from handful.engine.memory import out_of_memory
from handful.engine.plan import Plan
from handful.engine.threads import one_core_each, task_threads, unfused_attention
from handful.errors import HandfulError
from handful.notes import note
from handful.types import Tree, take

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
        yield from task_threads(plan.threads).map(run, parts) if plan.threads else (function(*part) for part in parts)


def over_tasks(
    function: Callable[..., Any], stacked: tuple[Any, ...], plan: Plan, learner: nn.Module | None = None
) -> Any:
    """`function(*one)` for each task in the stacked arguments `(count, ...)`; results stacked `(count, ...)`.

    learner: whose adapting or predicting this is. Without recording for gradients, a function that `vmap` refuses (an
        operation without a batching rule) runs one by one, with a note, and so does the learner from then on. None:
        errors of `vmap` are raised.
    """

    def run(plan: Plan) -> list[Any]:
        return list(over_parts(of_part, stacked, plan))

    def of_part(arguments: tuple[Any, ...], single: bool) -> Any:
        if single:
            return pytree.tree_map(lambda leaf: leaf.unsqueeze(0), function(*arguments))
        return torch.func.vmap(function)(*arguments)

    one_by_one = replace(plan, backend="loop")
    if learner is not None and _refused(learner).is_set():
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


_one_by_one: weakref.WeakKeyDictionary[Any, threading.Event] = weakref.WeakKeyDictionary()
"""A flag of learners, shared by all copies: set if `vmap` refused something."""
_noting = threading.Lock()


def _refused(learner: Any) -> threading.Event:
    with _noting:
        return _one_by_one.setdefault(learner, threading.Event())


def share_refusals(learner: nn.Module, copy: nn.Module) -> None:
    """A refusal of `vmap` for either applies to both, now and later."""
    refused = _refused(learner)
    with _noting:
        _one_by_one[copy] = refused


def _note_refusal(learner: nn.Module, refusal: str) -> None:
    refused = _refused(learner)
    with _noting:
        known = refused.is_set()
        refused.set()
    if not known:
        note(
            "one-by-one",
            f"{type(learner).__name__} adapts and predicts one task after another, which is slower than all at once: "
            f"vmap refuses an operation of it or of its network ({refusal.splitlines()[0]}).",
        )


def count_of(tree: Any) -> int:
    """The number of stacked tasks: the length of the leading axis."""
    return len(next(leaf for leaf in pytree.tree_iter(tree) if isinstance(leaf, Tensor)))
