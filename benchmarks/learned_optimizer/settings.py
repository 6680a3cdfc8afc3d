"""What the learned optimizer is compared with, and on what."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Generator, nn

from benchmarks.tiny import sized
from handful.functional.differentiation import Weights
from handful.functional.inner_loop import Adam, UpdateRule
from handful.functional.lbfgs import LBFGS
from handful.tasks.distribution import SPLITS, Manifest, SizeRanges, Sizes, TaskDistribution
from handful.tasks.optimization_problems import SmallNetworks
from handful.tasks.wrapped import WrappedTasks
from handful.types import Examples, Task, TaskSpec

SEED, STEPS = 0, sized(40, 10)


class Momentum(NamedTuple):
    """Gradient descent with the momentum of Polyak."""

    rate: float
    decay: float = 0.9

    def start(self, weights: Weights) -> Weights:
        """No velocity."""
        return {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def step(self, weights: Weights, gradients: Weights, state: Weights) -> tuple[Weights, Weights]:
        """One step along the velocity."""
        velocity = {name: self.decay * v + gradients[name] for name, v in state.items()}
        return {name: weight - self.rate * velocity[name] for name, weight in weights.items()}, velocity


class Cosine(NamedTuple):
    """Adam whose rate falls to zero along a cosine over the steps that it was promised."""

    rate: float
    steps: int

    def start(self, weights: Weights) -> dict[str, Any]:
        """Adam's, and the number of steps taken."""
        return {"adam": Adam(1.0).start(weights), "turn": next(iter(weights.values())).new_zeros(())}

    def step(self, weights: Weights, gradients: Weights, state: dict[str, Any]) -> tuple[Weights, dict[str, Any]]:
        """One step at the present rate."""
        there, adam = Adam(1.0).step(weights, gradients, state["adam"])
        rate = self.rate * 0.5 * (1 + torch.cos(math.pi * (state["turn"] / self.steps).clamp(max=1.0)))
        moved = {name: weight + rate * (there[name] - weight) for name, weight in weights.items()}
        return moved, {"adam": adam, "turn": state["turn"] + 1}


BASELINES: dict[str, Callable[..., UpdateRule]] = {
    "adam": lambda rate, steps: Adam(rate),
    "adam, cosine": Cosine,
    "sgd, momentum": lambda rate, steps: Momentum(rate),
    "L-BFGS": lambda rate, steps: LBFGS(rate),
}
"""Of a rate, or for L-BFGS its longest step, and the number of steps."""


class Digits(TaskDistribution):
    """64 of the real handwritten digits of 8x8 pixels to train on; each image is in one split."""

    default_sizes = SizeRanges(shot=64, query_shot=64)

    def __init__(self) -> None:
        super().__init__(seed=SEED)
        data = load_digits()
        self.inputs, self.targets = torch.tensor(data.data).float() / 16, torch.tensor(data.target)

    def spec_for(self, sizes: Sizes) -> TaskSpec:
        """Ten classes that mean the same in every task."""
        return TaskSpec("classification", (64,), 10, "shared")

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw from the images whose number leaves the rest that stands for the split."""
        own = torch.arange(SPLITS.index(self.split_name), len(self.inputs), len(SPLITS))
        drawn = own[torch.randperm(len(own), generator=generator)]
        parts = drawn[: sizes.shot], drawn[sizes.shot : sizes.shot + sizes.query_shot]
        return Task(*(Examples(self.inputs[ids], self.targets[ids]) for ids in parts))


class OnSupport(WrappedTasks):
    """The same tasks with the support for a query: validation asks how well it was optimized."""

    def sample(self, generator: Generator, sizes: Sizes) -> Task:
        """Draw a task."""
        return self._on_support(super().sample(generator, sizes))

    def task(self, index: int) -> Task:
        """Task `index`."""
        return self._on_support(super().task(index))

    def batch(self, indices: Sequence[int]) -> Task:
        """As `task(i)` for each."""
        return self._on_support(super().batch(indices))

    def manifest(self, index: int) -> Manifest:
        """Of the support, twice."""
        whole = super().manifest(index)
        return whole._replace(query=whole.support)

    def oracle(self, index: int) -> None:
        """None: that of the tasks is of their queries."""

    @staticmethod
    def _on_support(task: Task) -> Task:
        return Task(task.support, task.support)


class Tanh(nn.Sequential):
    """The backbone "mlp" with tanh in place of ReLU."""

    def __init__(self, input_shape: tuple[int, ...], *, hidden: tuple[int, ...]) -> None:
        sizes = (*input_shape, *hidden)
        super().__init__(
            *(layer for i, o in zip(sizes, hidden, strict=False) for layer in (nn.Linear(i, o), nn.Tanh()))
        )


@dataclass(frozen=True)
class Setting:
    """What is trained on what, for how many steps."""

    title: str
    tasks: TaskDistribution = field(default_factory=lambda: SmallNetworks(seed=SEED))
    backbone: Any = "mlp"
    hidden: tuple[int, ...] = (16,)
    steps: int = STEPS

    def network(self) -> dict[str, Any]:
        """Arguments of `build` and `for_network`."""
        return {"backbone": self.backbone, "backbone_options": {"hidden": self.hidden}, "inner_steps": self.steps}


HOME = Setting("in distribution")


def settings() -> list[Setting]:
    """The one of meta-training, then those that differ from it in one thing."""
    return [
        HOME,
        replace(HOME, title="width 64", hidden=(64,)),
        replace(HOME, title="depth 3", hidden=(16, 16, 16)),
        replace(HOME, title="tanh", backbone=Tanh),
        replace(HOME, title=f"{4 * STEPS} steps", steps=4 * STEPS),
        replace(HOME, title="16 inputs", tasks=SmallNetworks(inputs=16, seed=SEED)),
        replace(HOME, title="clusters (classes)", tasks=SmallNetworks(problem="classification", seed=SEED)),
        replace(HOME, title="real digits", tasks=Digits()),
    ]
