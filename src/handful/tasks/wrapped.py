"""Wrapped distributions: the starting point for distributions that change the tasks of another one."""

import copy
from collections.abc import Sequence
from typing import Self

from torch import Generator, Tensor, nn

from handful.tasks.distribution import Manifest, Pool, Rows, Size, Sizes, TaskDistribution
from handful.tasks.splits import Contents
from handful.types import Gaussian, Task, TaskSpec


class WrappedTasks(TaskDistribution):
    """The tasks of another distribution, unchanged. A subclass overrides the methods that it changes.

    Override `sample`, `task` and `batch` together: none of them calls another here.

    tasks: the distribution that is wrapped. All copies made by `split` and `with_sizes` are around copies of it.
    """

    def __init__(self, tasks: TaskDistribution) -> None:
        self._wrap(tasks)

    def _wrap(self, tasks: TaskDistribution) -> None:
        self.tasks = tasks
        self.seed, self.split_name, self.sizes, self.pipeline = (
            tasks.seed,
            tasks.split_name,
            tasks.sizes,
            tasks.pipeline,
        )
        self.target_mean, self.target_scale = tasks.target_mean, tasks.target_scale
        self.error_unit, self.nested = tasks.error_unit, tasks.nested
        self.digests, self.order, self.dates, self.aside = tasks.digests, tasks.order, tasks.dates, tasks.aside

    def _around(self, tasks: TaskDistribution) -> Self:
        other = copy.copy(self)
        other._wrap(tasks)
        return other

    @property
    def ragged(self) -> bool:
        """As of the tasks, like all that follows."""
        return self.tasks.ragged

    @property
    def varied(self) -> bool:
        """As of the tasks."""
        return self.tasks.varied

    def typical(self, count: int) -> range:
        """As of the tasks."""
        return self.tasks.typical(count)

    @property
    def units(self) -> int | None:
        """As of the tasks: a change makes no new task."""
        return self.tasks.units

    @property
    def spec(self) -> TaskSpec:
        """As of the tasks."""
        return self.tasks.spec

    def spec_of(self, index: int) -> TaskSpec:
        """As of the tasks."""
        return self.tasks.spec_of(index)

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """As of the tasks."""
        return self.tasks.spec_for(sizes)

    def sizes_of(self, index: int) -> Sizes:
        """As of the tasks."""
        return self.tasks.sizes_of(index)

    def generator_of(self, index: int) -> Generator:
        """As of the tasks."""
        return self.tasks.generator_of(index)

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw one of the tasks."""
        return self.tasks.sample(generator, sizes)

    def task(self, index: int) -> Task:
        """Task `index`."""
        return self.tasks.task(index)

    def batch(self, indices: Sequence[int]) -> Task:
        """As `task(i)` for each."""
        return self.tasks.batch(indices)

    def split(self, on: str) -> Self:
        """The same, drawing from another split."""
        return self._around(self.tasks.split(on))

    def with_sizes(self, way: Size | None = None, shot: Size | None = None, query_shot: Size | None = None) -> Self:
        """The same with other sizes."""
        return self._around(self.tasks.with_sizes(way, shot, query_shot))

    def mapped(self, network: nn.Module) -> Self | None:
        """The same around tasks of features."""
        mapped = self.tasks.mapped(network)
        return None if mapped is None else self._around(mapped)

    def with_columns(self, columns: Sequence[Tensor]) -> Self:
        """The same around tasks with columns behind their inputs."""
        return self._around(self.tasks.with_columns(columns))

    def thinned(self, per_class: int) -> Self:
        """The same around fewer examples."""
        return self._around(self.tasks.thinned(per_class))

    def check(self) -> None:
        """As of the tasks."""
        self.tasks.check()

    def pool(self) -> Pool | None:
        """As of the tasks."""
        return self.tasks.pool()

    def rows(self) -> Rows | None:
        """As of the tasks."""
        return self.tasks.rows()

    def manifest(self, index: int) -> Manifest:
        """As of the tasks."""
        return self.tasks.manifest(index)

    def oracle(self, index: int) -> Gaussian | None:
        """As of the tasks."""
        return self.tasks.oracle(index)

    def unit(self, index: int) -> int:
        """As of the tasks."""
        return self.tasks.unit(index)

    def small_tasks(self) -> str:
        """As of the tasks."""
        return self.tasks.small_tasks()

    def split_manifest(self) -> dict[str, list[str]]:
        """As of the tasks."""
        return self.tasks.split_manifest()

    def contents(self) -> Contents:
        """As of the tasks."""
        return self.tasks.contents()
