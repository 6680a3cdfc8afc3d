"""The common types of all layers: examples, tasks, states and predictions.

All of them are pytrees of tensors (named tuples, dicts, lists), so that `torch.func.vmap` stacks them over tasks.
`TaskSpec` holds the static facts of a task and stays outside.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from handful.errors import UserError

Kind: TypeAlias = Literal["classification", "regression"]
Labels: TypeAlias = Literal["permuted", "shared"]

TaskState: TypeAlias = Any
"""The adapted state of a task: a nested dict or list of tensors with string keys, contiguous and without shared
storage. Its structure is internal to each learner; to everything else it is a pytree."""


class Examples(NamedTuple):
    """Labeled examples.

    inputs: `(n, *input_shape)` floats.
    targets: `(n,)` class indices (int64), or `(n, outputs)` values.

    Example:
        >>> Examples(torch.zeros(10, 1, 28, 28), torch.arange(10) % 5).targets.bincount().tolist()  # 5-way 2-shot
        [2, 2, 2, 2, 2]
    """

    inputs: Tensor
    targets: Tensor


class Task(NamedTuple):
    """One draw of a task: learn from `support`, be scored on `query`. Stacked tasks have one more leading axis.

    support: the examples to adapt to.
    query: the examples whose targets are to be predicted.

    Example:
        >>> import handful
        >>> task = handful.open_tasks("sine").with_sizes(shot=5, query_shot=20).task(0)
        >>> tuple(task.support.inputs.shape), tuple(task.query.targets.shape)
        ((5, 1), (20, 1))
    """

    support: Examples
    query: Examples


@dataclass(frozen=True)
class TaskSpec:
    """Static facts of a task.

    kind: "classification" or "regression".
    input_shape: shape of one example.
    outputs: number of classes (the way), or dimension of the target.
    labels: "permuted" if class numbers are drawn anew for each task, "shared" if all tasks share the classes; always
        "shared" for regression.

    Raises `UserError` for another kind, other labels, or no outputs.

    Example:
        >>> TaskSpec("classification", (1, 28, 28), 5).classification
        True
    """

    kind: Kind
    input_shape: tuple[int, ...]
    outputs: int
    labels: Labels = "permuted"

    def __post_init__(self) -> None:
        if self.kind not in ("classification", "regression"):
            raise UserError(f"A task is 'classification' or 'regression', not {self.kind!r}.")
        if self.labels not in ("permuted", "shared"):
            raise UserError(f"Labels are 'permuted' or 'shared', not {self.labels!r}.")
        if self.outputs < 1:
            raise UserError(f"A task needs at least one output, got {self.outputs}.")
        if self.kind == "regression":
            object.__setattr__(self, "labels", "shared")

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """The spec of its fields as JSON has them."""
        return cls(**facts | {"input_shape": tuple(facts["input_shape"])})

    @property
    def classification(self) -> bool:
        """Whether targets are class indices."""
        return self.kind == "classification"


class Categorical(NamedTuple):
    """A distribution over classes.

    logits: `(n, way)`, unnormalized log-probabilities.

    Example:
        >>> Categorical(torch.tensor([[2.0, 0.0], [0.0, 1.0]])).correct(torch.tensor([0, 0])).tolist()
        [True, False]
    """

    logits: Tensor

    def loss(self, targets: Tensor) -> Tensor:
        """Cross-entropy of class indices `(n,)`, in nats: `(n,)`. Raises `UserError` for other targets."""
        self._check(targets)
        return F.cross_entropy(self.logits, targets, reduction="none")

    def correct(self, targets: Tensor) -> Tensor:
        """Whether the likeliest class is that of the class indices `(n,)`: `(n,)`. Raises `UserError` as `loss`."""
        self._check(targets)
        return self.logits.argmax(-1) == targets

    def _check(self, targets: Tensor) -> None:
        if targets.shape != self.logits.shape[:-1] or targets.is_floating_point():
            raise UserError(
                f"Targets must be class indices of shape {tuple(self.logits.shape[:-1])}, one for each example, and "
                f"are {targets.dtype} of shape {tuple(targets.shape)}.",
                code="wrong-shape",
            )


class Point(NamedTuple):
    """A prediction of values without a variance.

    mean: `(n, outputs)`.

    Example:
        >>> Point(torch.tensor([[1.0], [2.0]])).loss(torch.tensor([[1.0], [4.0]])).tolist()
        [0.0, 4.0]
    """

    mean: Tensor

    def loss(self, targets: Tensor) -> Tensor:
        """Squared error of values `(n, outputs)`, mean over outputs: `(n,)`. Raises `UserError` for other shapes."""
        check_shape("targets", targets, self.mean)
        return (self.mean - targets).square().mean(-1)


class Gaussian(NamedTuple):
    """A prediction of values, each normally distributed and independent of the others.

    mean: `(n, outputs)`.
    variance: `(n, outputs)`.

    Example:
        >>> Gaussian(torch.zeros(1, 1), torch.ones(1, 1)).loss(torch.zeros(1, 1))
        tensor([0.9189])
    """

    mean: Tensor
    variance: Tensor

    def loss(self, targets: Tensor) -> Tensor:
        """Negative log-likelihood of values `(n, outputs)`, in nats, mean over outputs: `(n,)`.

        Raises `UserError` for other shapes.
        """
        check_shape("targets", targets, self.mean)
        check_shape("variance", self.variance, self.mean)
        squared = (targets - self.mean).square() / self.variance
        return 0.5 * (squared + self.variance.log() + math.log(2 * math.pi)).mean(-1)


def check_shape(name: str, values: Tensor, predicted: Tensor) -> None:
    """Raise `UserError` unless values, called `name`, have the shape of what is predicted: no broadcasting."""
    if values.shape != predicted.shape:
        raise UserError(
            f"The {name} must have the shape of the predicted values, {tuple(predicted.shape)}, not "
            f"{tuple(values.shape)}. Targets are (examples, outputs), even for one output.",
            code="wrong-shape",
        )


Prediction: TypeAlias = Categorical | Point | Gaussian


Tree = TypeVar("Tree")


def stack(trees: list[Tree]) -> Tree:
    """Equal-shaped trees stacked along a new leading axis."""
    return pytree.tree_map(lambda *leaves: torch.stack(leaves), *trees)  # type: ignore[no-any-return]


def take(tree: Tree, index: int | slice) -> Tree:
    """One task, or a slice of them, of stacked trees."""
    return pytree.tree_map_only(Tensor, lambda leaf: leaf[index], tree)  # type: ignore[no-any-return]


def to_device(tree: Tree, device: torch.device | str) -> Tree:
    """The same tree with its tensors on this device: themselves where they are there already."""
    return pytree.tree_map_only(Tensor, lambda leaf: leaf.to(device), tree)  # type: ignore[no-any-return]
