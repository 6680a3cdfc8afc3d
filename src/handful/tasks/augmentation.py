"""Augmentation of training tasks: transformed images, and targets that only the support determines."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Self, TypeAlias

import torch
from torch import Generator, Tensor, nn

from handful import streams
from handful.errors import UserError
from handful.functional.image_warps import in_color, mirrored, random_maps, warped
from handful.tasks.distribution import SPLITS, Pool, Rows, Sizes, TaskDistribution
from handful.tasks.wrapped import WrappedTasks
from handful.types import Examples, Gaussian, Task, stack

Change: TypeAlias = Callable[[Tensor], Tensor]
"""What a task does to its targets, those of support and query alike."""

MEASURED = 64
"""Training tasks from which the targets' mean and deviation are measured."""


def augmented(tasks: TaskDistribution, strength: float) -> "AugmentedTasks":
    """The tasks with augmented training tasks: changed targets, or changed images for permuted class numbers. Raises
    `UserError` if nothing can be changed, and for an invalid strength.
    """
    spec = tasks.spec
    if not spec.classification or spec.labels == "shared":
        return AugmentedTargets(tasks, strength)
    if len(spec.input_shape) == 3:
        return AugmentedImages(tasks, strength)
    raise UserError(
        "Class numbers of these tasks are permuted in each task, so they cannot be memorized, and their inputs are not "
        "images.",
        hint="Leave out {augment}.",
    )


class AugmentedTasks(WrappedTasks):
    """Tasks of another distribution, with each *training* task changed, but not those of "val" and "test". Its `pool`
    is unchanged, too, unless inputs change: learning from a pool ignores the support anyway.
    """

    def __init__(self, tasks: TaskDistribution, strength: float) -> None:
        super().__init__(tasks)
        self.strength = strength

    @abstractmethod
    def changed(self, task: Task, generator: Generator) -> Task:
        """A training task, changed at random."""

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw a task, and then its change, from one generator."""
        task = self.tasks.sample(generator, sizes)
        return self.changed(task, generator) if self.split_name == "train" else task

    def task(self, index: int) -> Task:
        """Task `index`, changed by a generator of its own."""
        task = self.tasks.task(index)
        return self.changed(task, self._generator(index)) if self.split_name == "train" else task

    def batch(self, indices: Sequence[int]) -> Task:
        """As `task(i)` for each."""
        return (
            stack([self.task(index) for index in indices]) if self.split_name == "train" else self.tasks.batch(indices)
        )

    def oracle(self, index: int) -> Gaussian | None:
        """As of the tasks, where they are not changed."""
        return None if self.split_name == "train" else self.tasks.oracle(index)

    def _generator(self, index: int) -> Generator:
        return streams.task_change(self.seed, SPLITS.index(self.split_name), index)


class AugmentedImages(AugmentedTasks):
    """Each image of a training task is transformed by its own affine map; half of those in color are mirrored, too.

    strength: of the maps, see `handful.functional.image_warps.random_maps`.
    """

    def __init__(self, tasks: TaskDistribution, strength: float) -> None:
        if not 0 < strength <= 3:
            raise UserError(
                f"The strength of image augmentation is above 0 and at most 3, got {strength}.",
                hint="Change {augment}.",
            )
        super().__init__(tasks, strength)

    def changed(self, task: Task, generator: Generator) -> Task:
        """All images warped."""
        return Task(*(Examples(self._warped(part.inputs, generator), part.targets) for part in task))

    def mapped(self, network: nn.Module) -> Self | None:
        """None for training tasks, whose images vary between draws."""
        return None if self.split_name == "train" else super().mapped(network)

    def rows(self) -> Rows | None:
        """None for training tasks, likewise."""
        return None if self.split_name == "train" else super().rows()

    def pool(self) -> Pool | None:
        """The training examples likewise."""
        pool = self.tasks.pool()
        if pool is None or self.split_name != "train":
            return pool

        def draw(generator: Generator, count: int) -> Examples:
            examples = pool.draw(generator, count)
            return Examples(self._warped(examples.inputs, generator), examples.targets)

        return Pool(pool.outputs, draw)

    def _warped(self, images: Tensor, generator: Generator) -> Tensor:
        maps = random_maps(len(images), self.strength, generator)
        return warped(images, mirrored(maps, generator) if in_color(tuple(images.shape[1:])) else maps)


class AugmentedTargets(AugmentedTasks):
    """Each training task changes its targets, of support and query alike.

    *Meta-Learning Requires Meta-Augmentation* (Rajendran et al., 2020), https://arxiv.org/abs/2007.05549. If the inputs
    identify their training task, a learner can memorize the labels and ignore the support. A change that is redrawn for
    each draw of a task, and visible only in its support, prevents this.

    Regression: around the mean target of training tasks, of deviation d, targets are scaled by (1 + strength * e) / n
    and shifted by strength * e' * d / n. The numbers e, e' of a task and output are uniform with variance 1, and n is
    sqrt(1 + strength^2), so that targets stay about as large. (The paper only adds noise per task: then everything but
    a level can still be memorized.) Classes with shared labels: in a share of `strength` of the training tasks the
    class numbers are permuted. Properties that the change preserves, such as the zeros of a wave, may still be
    memorized.
    """

    def __init__(self, tasks: TaskDistribution, strength: float) -> None:
        classification = tasks.spec.classification
        if not 0 < strength <= (1.0 if classification else math.inf):
            allowed = "a share of the tasks, above 0 and up to 1" if classification else "a number above 0"
            raise UserError(
                f"The strength of augmentation for {tasks.spec.kind} is {allowed}, got {strength}.",
                hint="Change {augment}.",
            )
        super().__init__(tasks, strength)
        self.measured = None if classification else _measured(tasks.split("train"))

    def changed(self, task: Task, generator: Generator) -> Task:
        """Targets renumbered, or scaled and shifted."""
        new = self._renumbering(generator) if self.measured is None else self._scaling(generator, *self.measured)
        return Task(*(Examples(part.inputs, new(part.targets)) for part in task))

    def _renumbering(self, generator: Generator) -> Change:
        order = torch.arange(self.spec.outputs)
        if float(torch.rand((), generator=generator)) < self.strength:
            order = torch.randperm(len(order), generator=generator)
        return lambda targets: order[targets]

    def _scaling(self, generator: Generator, center: Tensor, deviation: Tensor) -> Change:
        share = self.strength / math.hypot(1, self.strength)  # so that the scaled targets are about as large as before
        drawn = math.sqrt(3) * (2 * torch.rand(2, len(center), generator=generator) - 1).to(center)  # variance 1
        factor, shift = math.sqrt(1 - share**2) + share * drawn[0], share * drawn[1] * deviation
        return lambda targets: center + factor * (targets - center) + shift


def _measured(tasks: TaskDistribution) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the targets `(outputs,)`, over the support of some tasks."""
    targets = torch.cat([tasks.task(index).support.targets for index in tasks.typical(MEASURED)])
    return targets.mean(0), targets.std(0)
