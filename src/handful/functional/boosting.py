"""Boosted trees of all training tasks together, and what they predict for tasks that they have not seen."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from handful.errors import DataError
from handful.functional.trees import Trees, constant, fitted, scores
from handful.types import Examples

FOLDS = 5
"""Parts of the training tasks, each of which is predicted by trees of the others."""


class BoostedTrees(nn.Module):
    """Boosted trees as buffers, of fixed sizes: until they are fitted, their scores are zero.

    outputs: values, for each of which there are trees, or classes.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        for name, tensor in constant(torch.zeros(outputs))._asdict().items():
            self.register_buffer(name, tensor)

    def forward(self, inputs: Tensor) -> Tensor:
        """Rows `(n, d)` to values or logits `(n, outputs)`."""
        return scores(Trees(*(getattr(self, name) for name in Trees._fields)), inputs)

    def fit(self, tasks: Sequence[Examples], *, classification: bool) -> None:
        """Fit them on the rows of all tasks at once: inputs `(n, d)`, targets `(n, outputs)` or classes `(n,)`."""
        trees = _of_all(tasks, self.outputs, classification)
        for name, tensor in trees._asdict().items():
            getattr(self, name).copy_(tensor)


def cross_fitted(tasks: Sequence[Examples], *, outputs: int, classification: bool) -> list[Tensor]:
    """Scores `(n, outputs)` of each task's rows, by trees of the tasks of the other folds: task k is in fold k % FOLDS.

    So what a learner sees of trees while it is trained is as good as for a new task. Raises `DataError` for one task.
    """
    if len(tasks) < 2:
        raise DataError(
            "Trees are fitted on all training tasks but some, which they then predict, and the data has only one.",
            code="too-few-examples",
        )
    folds = min(FOLDS, len(tasks))
    found: dict[int, Tensor] = {}
    for fold in range(folds):
        others = [task for number, task in enumerate(tasks) if number % folds != fold]
        trees = _of_all(others, outputs, classification)
        found |= {number: scores(trees, tasks[number].inputs) for number in range(fold, len(tasks), folds)}
    return [found[number] for number in range(len(tasks))]


def _of_all(tasks: Sequence[Examples], outputs: int, classification: bool) -> Trees:
    inputs, targets = (torch.cat(part) for part in zip(*tasks, strict=True))
    return fitted(inputs, targets, outputs=outputs, classification=classification)
