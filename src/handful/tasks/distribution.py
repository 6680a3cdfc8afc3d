"""The contract of distributions over tasks."""

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np
import torch
from torch import Generator, Tensor, nn

from handful import streams
from handful.errors import DataError, UserError
from handful.functional.own_settings import without_inference
from handful.functional.stateless import tensors
from handful.pipelines.pipeline import InputPipeline, check_dense, floats
from handful.registry import TASKS
from handful.tasks.splits import SPLITS as SPLITS
from handful.tasks.splits import Contents
from handful.tasks.splits import Split as Split
from handful.types import Examples, Gaussian, Task, TaskSpec, stack

Size: TypeAlias = int | tuple[int, int]
"""A number, or an inclusive range from which each block of tasks draws one."""

BLOCK = 64
"""Tasks of one block have the same sizes; a meta-batch must divide it."""


class Manifest(NamedTuple):
    """The classes and examples of a task, for leak checks and for intervals over classes or tasks.

    classes: global class ids `(way,)`, empty for regression.
    support, query: global example ids, empty for generators.
    """

    classes: tuple[int, ...] = ()
    support: tuple[int, ...] = ()
    query: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Globally labeled examples, to pre-train on ignoring tasks.

    outputs: number of classes, or the dimension of the target.
    draw: `(generator, count) -> Examples` at random, as varied as the tasks' examples are.
    by_task: all examples of each task, or None if tasks share examples.
    """

    outputs: int
    draw: Callable[[Generator, int], Examples]
    by_task: Callable[[], list[Examples]] | None = None

    def table(self, input_shape: tuple[int, ...]) -> list[Examples] | None:
        """The rows of each task, if a model fitted on the rows of other tasks can predict them; else None. Rows are
        numbers, not pixels, of two tasks or more.

        input_shape: of an example.
        """
        if self.by_task is None or len(input_shape) != 1:
            return None
        rows = self.by_task()
        return rows if len(rows) > 1 else None


@dataclass(frozen=True)
class Rows:
    """The examples that tasks are drawn from, each of which is the same in every task.

    raw: all examples `(n, *raw_shape)` as stored.
    ids: `(k,)` of the selected ones.
    prepare: converts raw ones to the learner's inputs.
    """

    raw: Tensor
    ids: Tensor
    prepare: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.ids)

    def parts(self, size: int) -> Iterator[Tensor]:
        """All of them in batches `(size, *input_shape)`, as the learner's inputs."""
        for ids in torch.split(self.ids, size):
            yield self.prepare(self.raw[ids])


@dataclass(frozen=True)
class Sizes:
    """How large a task is.

    way: the number of classes; 0 if the source fixes it.
    shot: support examples per class, or per task where tasks are not drawn from classes.
    query_shot: query examples likewise; 0: all that remain.

    Example:
        >>> Sizes(way=5, shot=1, query_shot=15)
        Sizes(way=5, shot=1, query_shot=15)
    """

    way: int
    shot: int
    query_shot: int


@dataclass(frozen=True)
class SizeRanges:
    """How large tasks may be: `Sizes` in which each number may be a range.

    way: a number, or an inclusive range `(low, high)`; None if the source fixes it.
    shot: a number or a range.
    query_shot: a number or a range; None: all examples that remain.

    Raises `UserError` for a way below 2, another number below 1, or a range whose high end is below its low end.

    Example:
        >>> SizeRanges(way=(5, 20), shot=1).largest()
        Sizes(way=20, shot=1, query_shot=15)
    """

    way: Size | None = None
    shot: Size = 5
    query_shot: Size | None = 15

    def __post_init__(self) -> None:
        for name in ("way", "shot", "query_shot"):
            value = getattr(self, name)
            low = value[0] if isinstance(value, tuple) else value
            least = 2 if name == "way" else 1  # with one class there is nothing to tell apart
            if low is not None and (low < least or (isinstance(value, tuple) and value[1] < low)):
                raise UserError(
                    f"The {name.replace('_', '-')} is at least {least} (and a range is ascending), got {value}."
                )

    def drawn(self, generator: Generator) -> Sizes:
        """Sizes with one number from each range."""

        def one(size: Size) -> int:
            return (
                int(torch.randint(size[0], size[1] + 1, (), generator=generator)) if isinstance(size, tuple) else size
            )

        return self._each(one)

    def smallest(self) -> Sizes:
        """The lower ends."""
        return self._each(lambda size: size[0] if isinstance(size, tuple) else size)

    def largest(self) -> Sizes:
        """The upper ends."""
        return self._each(lambda size: size[1] if isinstance(size, tuple) else size)

    def _each(self, number: Callable[[Size], int]) -> Sizes:
        return Sizes(*(0 if size is None else number(size) for size in (self.way, self.shot, self.query_shot)))


class TaskDistribution(ABC):
    """A distribution over tasks. Task i is a pure function of (seed, split, i): the same on every worker and resume.

    Authors write `spec_for` and `sample`; a subclass with a `key` is registered under it. Tasks consist of tensors on
    the learner's scale. Copies made by `split` and `with_sizes` share the data.

    key: the registry's name for it.
    seed: of all draws.
    split_name: the split that tasks are drawn from.
    sizes: how large tasks are.
    pipeline: encodes the user's files into inputs like this source's; None for pure generators.
    target_mean, target_scale: of regression, `(outputs,)` or `(1,)` for all: a target, or a predicted value, times the
        scale plus the mean is in the user's units.
    error_unit: the unit of a prediction error.
    digests: for each split, those of the examples of each class or task by its name, for the user's own data (see
        `Contents`).
    aside: splits whose examples are set aside from classes or tasks of the training, which are too few to be split.
    order: places in time of the examples, by which support precedes query, or None.
    dates: columns of dates in the user's data that are not the order.
    nested: whether the first examples of a support are a support of that size: no example depends on the others.
    """

    key: ClassVar[str]
    default_sizes: ClassVar[SizeRanges] = SizeRanges()
    target_mean: Tensor = InputPipeline.target_mean
    target_scale: Tensor = InputPipeline.target_scale
    error_unit: str = "the target's units"
    nested: bool = True
    pipeline: InputPipeline | None = None
    digests: Mapping[Split, Mapping[str, list[str]]] = MappingProxyType({})
    aside: tuple[Split, ...] = ()
    order: Tensor | None = None
    dates: tuple[str, ...] = ()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "key" in vars(cls) and not inspect.isabstract(cls):
            TASKS.register(cls.key, cls)

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = streams.checked_seed(seed)
        self.split_name: Split = "train"
        self.sizes = self.default_sizes

    @abstractmethod
    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """The spec of tasks of these sizes."""

    @abstractmethod
    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw one task of these sizes from the present split, with no other randomness than `generator`."""

    @property
    def ragged(self) -> bool:
        """Whether tasks of equal sizes may still have different numbers of query examples."""
        return False

    @property
    def varied(self) -> bool:
        """Whether sizes differ from block to block."""
        return any(isinstance(size, tuple) for size in (self.sizes.way, self.sizes.shot, self.sizes.query_shot))

    def typical(self, count: int) -> range:
        """Indices of so many representative tasks: one of each block if sizes vary."""
        return range(0, count * BLOCK, BLOCK) if self.varied else range(count)

    @property
    def spec(self) -> TaskSpec:
        """The spec of the first task (of all of them, where sizes are not ranges)."""
        return self.spec_of(0)

    def spec_of(self, index: int) -> TaskSpec:
        """The spec of task `index`."""
        return self.spec_for(self.sizes_of(index))

    def sizes_of(self, index: int) -> Sizes:
        """The sizes of task `index`: a pure function of (seed, split, index // BLOCK)."""
        return self.sizes.drawn(streams.block_sizes(self.seed, SPLITS.index(self.split_name), index // BLOCK))

    def generator_of(self, index: int) -> Generator:
        """The random generator of task `index`."""
        return streams.task_draw(self.seed, SPLITS.index(self.split_name), index)

    def task(self, index: int) -> Task:
        """Task `index` of the present split."""
        return self.sample(self.generator_of(index), self.sizes_of(index))

    def batch(self, indices: Sequence[int]) -> Task:
        """Tasks stacked along a leading axis, equal to `task(i)` for each; they must have the same sizes."""
        return stack([self.task(index) for index in indices])

    def split(self, on: str) -> Self:
        """The same distribution, drawing from "train", "val" or "test"."""
        if on not in SPLITS:
            raise UserError(f"A split is {', '.join(SPLITS)}, not {on!r}.")
        other = copy.copy(self)
        other.split_name = on
        return other

    def with_sizes(
        self,
        way: Size | None = None,
        shot: Size | None = None,
        query_shot: Size | None = None,
    ) -> Self:
        """The same distribution with other sizes: numbers, or ranges `(low, high)`; None keeps a size as it is.

        way: classes of a task.
        shot: support examples: of each class if tasks have a way, else of the task.
        query_shot: queries, counted likewise.
        """
        if way is not None and self.sizes.way is None:
            raise UserError("The way of these tasks is not variable.", field=("way",), hint="Remove {way}.")
        given = {"way": way, "shot": shot, "query_shot": query_shot}
        other = copy.copy(self)
        other.sizes = replace(self.sizes, **{name: size for name, size in given.items() if size is not None})
        other.check()
        return other

    def check(self) -> None:  # noqa: B027 - a source that can draw any size has nothing to check
        """Raise `UserError` if tasks of the present sizes cannot be drawn from the present split."""

    def mapped(self, network: nn.Module) -> Self | None:
        """The same tasks, with a network's features of each example, `(n, *input_shape)` to `(n, width)`, as its input.

        An example is computed once, when a task first takes it; by a `Remembered` network once for all distributions.
        None, as by default, if examples vary between tasks.
        """
        return None

    def with_columns(self, columns: Sequence[Tensor]) -> Self:
        """The same tasks with columns behind the inputs: for the rows of `pool().by_task()`, task by task.

        Raises `UserError` if the distribution does not support it.
        """
        raise UserError("These tasks share rows, so columns cannot be added per task.")

    def thinned(self, per_class: int) -> Self:
        """The same with so many examples of each class at most, drawn by its seed, where tasks are drawn from classes.

        By default with all of them.
        """
        return self

    def pool(self) -> Pool | None:
        """The examples of the present split with global targets, for pre-trained baselines; None without a pool."""
        return None

    def rows(self) -> Rows | None:
        """The examples that tasks of the present split are drawn from.

        None, as by default, if examples vary between tasks.
        """
        return None

    def manifest(self, index: int) -> Manifest:
        """The classes and examples of task `index`."""
        return Manifest()

    def oracle(self, index: int) -> Gaussian | None:
        """The oracle (Bayes-optimal) prediction for the query of task `index`; None, as by default, if it is unknown.
        It is the exact distribution of each target given the support, the generating process and its hyperparameters,
        noise included: mean and variance `(query, outputs)`. Scores are compared with it.
        """
        return None

    def unit(self, index: int) -> int:
        """What a score of task `index` counts once: itself, or the user's task of which it is one draw."""
        return index

    @property
    def units(self) -> int | None:
        """The number of distinct tasks in the present split; None if unlimited."""
        return None

    def small_tasks(self) -> str:
        """How training uses tasks smaller than the requested sizes, in words; empty without such tasks."""
        return ""

    def split_manifest(self) -> dict[str, list[str]]:
        """The names of the classes or tasks of each split, for the leak check; empty for generators."""
        return {}

    def contents(self) -> Contents:
        """The content of the splits, and the encoding of inputs."""
        names = self.split_manifest()
        splits = {on: {name: self.digests.get(on, {}).get(name, []) for name in names.get(on, ())} for on in SPLITS}
        return Contents(splits, self.pipeline.config() if self.pipeline else None)

    @classmethod
    def summary(cls) -> str:
        """The first line of the source's docstring."""
        return (inspect.getdoc(cls) or "").splitlines()[0]


class Remembered(nn.Module):
    """A network with fixed weights, whose computed features are shared by all tasks mapped by it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.made: list[Any] = []

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(iter(tensors(self.network).values()), torch.zeros(())).device

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs `(n, *input_shape)` to features `(n, width)`."""
        return self.network(inputs)  # type: ignore[no-any-return]


def owned(*, copy: bool, inputs: Tensor, **columns: Tensor | None) -> tuple[Tensor | Any, ...]:
    """The stored columns of n examples: inputs, and others in the same order, or None.

    copy: copy the memory, so that later changes by the caller do not change tasks. Whole numbers that are inputs become
        floats, but for bytes.

    Raises `DataError` for columns of different lengths, and for whole numbers that floats cannot hold.
    """
    for name, column in (("inputs", inputs), *columns.items()):
        check_dense(column, f"The {name}")
        if column is not None and column.shape[:1] != inputs.shape[:1]:
            raise DataError(
                f"The inputs have shape {tuple(inputs.shape)}, but the {name} have shape {tuple(column.shape)}. Give "
                f"one "
                "for each example.",
                code="ragged-input",
            )
    kept = tuple(None if column is None else column.detach() for column in (floats(inputs), *columns.values()))
    return tuple(column if column is None else column.clone() for column in kept) if copy else without_inference(kept)


def places_in_time(values: np.ndarray) -> Tensor:
    """Whole numbers `(n,)` in the order of the values `(n,)` of a column, the same for equal ones."""
    return torch.from_numpy(np.unique(values, return_inverse=True)[1].reshape(-1))


def in_order(names: Tensor, order: Tensor | None) -> Tensor:
    """The examples `(n,)` grouped by name, in order of time if they have one, else in the given order."""
    times = torch.arange(len(names)) if order is None else torch.argsort(order, stable=True)
    return times[torch.argsort(names[times], stable=True)]
