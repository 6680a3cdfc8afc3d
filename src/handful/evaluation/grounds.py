"""What baselines of the ladder get: the inputs of tasks, or the vectors of an encoder."""

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import nn

from handful import backbones, streams
from handful.encoders.tuned import TunedEncoder
from handful.engine.devices import wait_for
from handful.errors import UserError
from handful.evaluation.scoring import FROZEN, TUNED
from handful.learners.learner import Learner
from handful.notes import collecting
from handful.tasks.distribution import Pool, Remembered, TaskDistribution
from handful.types import to_device

THINNED = 20
"""Examples of each class that an encoder embeds for the networks of baselines, and for choosing their options."""
MEASURED = 256
"""Examples by which the vectors of an encoder are scaled."""


class Ground:
    """What a baseline gets: inputs, or vectors of an encoder.

    name: FROZEN or TUNED; empty for inputs as they are.
    network: the encoder; None: inputs unchanged.
    width: of the vectors.
    """

    def __init__(self, name: str = "", network: nn.Module | None = None, width: int = 0) -> None:
        self.name, self.width = name, width
        self.network = None if network is None else Remembered(network.eval())
        self._seconds: dict[int, float] = {}

    @property
    def seconds_to_open(self) -> float:
        """Seconds to read its inputs before the first task, if they are not yet read."""
        return 0.0

    def tasks(self, tasks: TaskDistribution) -> TaskDistribution:
        """The tasks for a baseline; the encoder's vector of an example is computed once for all tasks."""
        if self.network is None:
            return tasks
        mapped = tasks.mapped(self.network)
        if mapped is None:
            raise UserError("Examples differ in each task, so the encoder cannot embed them once.")
        return mapped

    def choosing(self, tasks: TaskDistribution) -> TaskDistribution:
        """Validation tasks to choose options on; for vectors, of fewer examples, since the encoder is slow."""
        sizes = tasks.sizes.largest()
        return tasks if self.network is None else tasks.thinned(max(THINNED, sizes.shot + sizes.query_shot))

    def pool(self, trained: TaskDistribution | None) -> Pool | None:
        """The pool to pre-train a network on; for vectors, some examples of each class, since the encoder is slow."""
        if trained is None or self.network is None:
            return trained.pool() if trained else None
        mapped = trained.thinned(THINNED).mapped(self.network)
        return mapped.pool() if mapped else None

    def vectors(self, tasks: TaskDistribution) -> bool:
        """Whether a baseline gets vectors of an encoder, whose directions count."""
        pipeline = tasks.pipeline
        return self.network is not None or (pipeline is not None and pipeline.encoded and not pipeline.tuned)

    def seconds(self, tasks: TaskDistribution) -> float:
        """Seconds to encode the support of a task."""
        if self.network is None:
            return 0.0
        support = tasks.task(0).support.inputs.to(self.network.device)
        if len(support) not in self._seconds:
            for _ in range(2):  # the first one warms up
                start = time.perf_counter()
                with torch.no_grad():
                    self.network(support)
                wait_for(self.network.device)
                self._seconds[len(support)] = time.perf_counter() - start
        return self._seconds[len(support)]


class Unencoded(Ground):
    """The inputs of a frozen encoder in place of its vectors, for a baseline that tunes it.

    opened: gives the tasks with these inputs, which are read when a baseline first needs them.
    seconds: that this takes, about.
    """

    def __init__(self, opened: Callable[[], TaskDistribution], seconds: float = 0.0) -> None:
        super().__init__()
        self._opened, self._opening = opened, seconds

    @cached_property
    def opened(self) -> TaskDistribution:
        """All of them; notes on these data were made for the vectors."""
        with collecting():
            return self._opened()

    def tasks(self, tasks: TaskDistribution) -> TaskDistribution:
        """The same tasks, of the present split and sizes."""
        sizes = tasks.sizes
        with collecting():
            return self.opened.split(tasks.split_name).with_sizes(sizes.way, sizes.shot, sizes.query_shot)

    @property
    def seconds_to_open(self) -> float:
        """See `Ground`."""
        return 0.0 if "opened" in vars(self) else self._opening

    def vectors(self, tasks: TaskDistribution) -> bool:
        """Never."""
        return False


class Scaled(nn.Module):
    """A network whose features are divided by a number."""

    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Features `(n, width)`."""
        return self.network(inputs) / self.scale  # type: ignore[no-any-return]


def encoder_grounds(learner: Learner, trained: TaskDistribution | None) -> tuple[Ground, Ground] | None:
    """The encoder of a learner as published, and tuned; None if the learner has no encoder.

    Vectors of the first are divided by their size over training examples, as a pipeline does.
    """
    own: Any = learner.backbone
    if not isinstance(own, TunedEncoder):
        return None
    recipe = learner.recipe
    options = recipe["backbone_options"] | {"layers": 0}
    frozen = backbones.make(recipe["backbone"], recipe["spec"].input_shape, options=options).to(learner.device)
    pool, size = trained.pool() if trained else None, 1.0
    if pool is not None:
        some = pool.draw(streams.encoder_size(), MEASURED).inputs
        with torch.no_grad():
            size = float(frozen(to_device(some, learner.device)).square().mean().sqrt())
    _, width = own.made_for
    return Ground(FROZEN, Scaled(frozen, size), width), Ground(TUNED, own, width)
