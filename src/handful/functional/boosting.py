"""Boosted trees of all training tasks together, and what they predict for tasks that they have not seen."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from handful.errors import DataError
from handful.functional.trees import Trees, constant, fitted, scores
from handful.storage import digest_of
from handful.types import Examples

FOLDS = 5
"""Parts of the training tasks, each of which is predicted by trees of the others."""
KEPT = 2
"""Data of which the trees are kept in memory: those of a run are fitted for several learners, one after another."""


class Fit(NamedTuple):
    """Trees of all tasks, and scores `(n, outputs)` of each task's rows by trees of the other folds."""

    trees: Trees
    unseen: list[Tensor]


class BoostedTrees(nn.Module):
    """Boosted trees as buffers, of fixed sizes: until they are fitted, their scores are zero.

    outputs: values, each of which has trees, or classes.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        for name, tensor in constant(torch.zeros(outputs))._asdict().items():
            self.register_buffer(name, tensor)

    def forward(self, inputs: Tensor) -> Tensor:
        """Rows `(n, d)` to values or logits `(n, outputs)`."""
        return scores(Trees(*(getattr(self, name) for name in Trees._fields)), inputs)

    def fit(self, tasks: Sequence[Examples]) -> list[Tensor]:
        """Fit them on the rows of all tasks at once: inputs `(n, d)`, targets `(n, outputs)` or classes `(n,)`.

        Returns scores `(n, outputs)` of each task's rows by trees of the tasks of the other folds, where task k is in
        fold k % FOLDS: so what a learner sees of trees while it is trained is as good as for a new task. The same rows
        give the same bits. Raises `DataError` for one task.
        """
        if len(tasks) < 2:
            raise DataError(
                "Trees are fitted on all training tasks but some, which they then predict, and the data has only one.",
                code="too-few-examples",
            )
        found = _remembered(tasks, self.outputs)
        for name, tensor in found.trees._asdict().items():
            getattr(self, name).copy_(tensor)
        return [one.to(tasks[0].inputs) for one in found.unseen]


_fits: dict[tuple[str, int], Fit] = {}


def _remembered(tasks: Sequence[Examples], outputs: int) -> Fit:
    tensors = {f"{number}/{name}": value for number, task in enumerate(tasks) for name, value in task._asdict().items()}
    key = digest_of(tensors), outputs
    found = _fits.get(key) or _cross_fitted(tasks, outputs)
    _fits[key] = found
    for old in list(_fits)[:-KEPT]:
        _fits.pop(old, None)
    return found


def _cross_fitted(tasks: Sequence[Examples], outputs: int) -> Fit:
    folds = min(FOLDS, len(tasks))
    unseen: dict[int, Tensor] = {}
    for fold in range(folds):
        trees = _of_all([task for number, task in enumerate(tasks) if number % folds != fold], outputs)
        unseen |= {number: scores(trees, tasks[number].inputs.cpu()) for number in range(fold, len(tasks), folds)}
    return Fit(_of_all(tasks, outputs), [unseen[number] for number in range(len(tasks))])


def _of_all(tasks: Sequence[Examples], outputs: int) -> Trees:
    inputs, targets = (torch.cat(part) for part in zip(*tasks, strict=True))
    return fitted(inputs, targets, outputs=outputs, classification=targets.ndim == 1)
