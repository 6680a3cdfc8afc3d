"""Running a function of one task over many: all at once, in chunks, or one by one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from handful.errors import UserError

Tree = TypeVar("Tree")
Backend: TypeAlias = Literal["vmap", "chunks", "loop"]


@dataclass(frozen=True)
class Plan:
    """How a meta-batch is run. Chunks change the last bits of a sum, so the plan is saved with a run and replayed.

    backend: "vmap" (all tasks at once), "chunks" (`vmap` over `chunk` tasks), "loop" (one by one, without `vmap`).
    """

    backend: Backend = "vmap"
    chunk: int = 1

    def __post_init__(self) -> None:
        if self.backend not in ("vmap", "chunks", "loop"):
            raise UserError(f"A plan's backend is vmap, chunks or loop, not {self.backend!r}.")
        if self.chunk < 1:
            raise UserError(f"A plan's chunk is at least 1 task, got {self.chunk}.")

    def __str__(self) -> str:
        return f"chunks of {self.chunk}" if self.backend == "chunks" else self.backend

    @classmethod
    def default(cls, learner: nn.Module) -> "Plan":
        """One by one where there are convolutions, else all at once.

        On a CPU, `vmap` over per-task convolution weights is slower and far fatter than a loop, and even shared ones
        lose their native batch norm under it; networks of matrices are many times faster all at once.
        """
        convolutional = any(parameter.ndim >= 4 for parameter in learner.parameters())
        return cls("loop" if convolutional else "vmap")

    def size(self, count: int) -> int:
        """Tasks run at once out of `count`."""
        return {"vmap": count, "chunks": min(self.chunk, count), "loop": 1}[self.backend]


def chunks(trees: Tree, plan: Plan) -> Iterator[tuple[Tree, bool]]:
    """Split stacked trees `(count, ...)` as the plan says; with each part, whether it is one task without its axis."""
    count = count_of(trees)
    if plan.backend == "loop":
        for index in range(count):
            yield take(trees, index), True
    else:
        size = plan.size(count)
        for start in range(0, count, size):
            yield take(trees, slice(start, start + size)), False


def over_tasks(function: Callable[..., Any], stacked: tuple[Any, ...], plan: Plan) -> Any:
    """`function(*one)` for each task in the stacked arguments `(count, ...)`; results stacked `(count, ...)`."""
    parts = []
    for arguments, single in chunks(stacked, plan):
        if single:
            parts.append(pytree.tree_map(lambda leaf: leaf.unsqueeze(0), function(*arguments)))
        else:
            parts.append(torch.func.vmap(function)(*arguments))
    return parts[0] if len(parts) == 1 else pytree.tree_map(lambda *leaves: torch.cat(leaves), *parts)


def stack(trees: list[Tree]) -> Tree:
    """Equal-shaped trees stacked along a new leading axis."""
    return pytree.tree_map(lambda *leaves: torch.stack(leaves), *trees)  # type: ignore[no-any-return]


def take(tree: Tree, index: int | slice) -> Tree:
    """One task, or a slice of them, of stacked trees."""
    return pytree.tree_map_only(Tensor, lambda leaf: leaf[index], tree)  # type: ignore[no-any-return]


def count_of(tree: Any) -> int:
    """The number of stacked tasks: the length of the leading axis."""
    return len(next(leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)))
