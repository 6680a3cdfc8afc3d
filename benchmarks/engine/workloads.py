"""What is computed: problem, sizes, starting weights and fresh tasks, the same numbers for every implementation.

Weights are named as in the PyTorch networks of `networks.py`: `backbone.layers.0.weight`, `head.bias`.
"""

import zlib
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64] | NDArray[np.int64]
Weights = dict[str, NDArray[np.float64]]


class Batch(NamedTuple):
    """A meta-batch. Inputs `(tasks, n, *input_shape)`; targets `(tasks, n)` classes or `(tasks, n, 1)` values."""

    support_inputs: Array
    support_targets: Array
    query_inputs: Array
    query_targets: Array


@dataclass(frozen=True)
class Workload:
    """One meta-training step: meta-gradient of `tasks` tasks, then a step of Adam.

    Classification tasks have `way` classes with `shot` and `query_shot` examples each; a regression task (way 0) has
    that many in all. widths: of the hidden layers or convolutions, or of each block of the transformer.
    """

    key: str
    network: Literal["mlp", "conv4", "linear", "transformer"]
    input_shape: tuple[int, ...]
    tasks: int
    way: int
    shot: int
    query_shot: int
    widths: tuple[int, ...] = ()
    method: Literal["maml", "protonet"] = "maml"
    inner_steps: int = 0
    inner_lr: float = 0.01
    outer_lr: float = 1e-3

    @property
    def classification(self) -> bool:
        """Whether targets are class indices."""
        return self.way > 0

    @property
    def outputs(self) -> int:
        """Outputs of the head."""
        return max(self.way, 1)

    @property
    def features(self) -> int:
        """Inputs of the head."""
        if self.network == "conv4":
            return self.widths[-1] * prod(side // 2 ** len(self.widths) for side in self.input_shape[1:])
        return self.widths[-1] if self.widths else prod(self.input_shape)

    def tiny(self) -> "Workload":
        """Likewise in a moment, under the same key: to see that all runs, and agrees."""
        shapes = {"conv4": (self.input_shape[0], 16, 16), "linear": (8,), "transformer": (4, 8)}
        return replace(
            self,
            input_shape=shapes.get(self.network, self.input_shape),
            widths=tuple(min(width, 8) for width in self.widths),
            tasks=min(self.tasks, 2),
            way=min(self.way, 3),
            query_shot=2,
            inner_steps=min(self.inner_steps, 2),
        )

    def with_steps(self, inner_steps: int) -> "Workload":
        """The same with another number of inner steps, which its key tells."""
        return replace(
            self, key=f"{self.key}, {inner_steps} inner step{'s' * (inner_steps > 1)}", inner_steps=inner_steps
        )

    def start(self) -> Weights:
        """Starting weights. Biases and scales are drawn too, so that no term of a gradient vanishes by chance."""
        generator = np.random.default_rng(0)
        weights = {}
        for name, shape in self._shapes().items():
            drawn = generator.standard_normal(shape)
            if len(shape) > 1:
                weights[name] = drawn * (2 / prod(shape[1:])) ** 0.5
            else:
                weights[name] = 0.1 * drawn + ("normalization" in name and name.endswith("weight"))
        return weights

    def batch(self, step: int) -> Batch:
        """The tasks of a meta-step: a pure function of its number."""
        generator = np.random.default_rng([zlib.crc32(self.key.encode()), step])
        return self._classes(generator) if self.classification else self._sines(generator)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        sizes = {
            "mlp": self._mlp_shapes,
            "conv4": self._conv4_shapes,
            "transformer": self._transformer_shapes,
            "linear": dict[str, tuple[int, ...]],
        }[self.network]()
        shapes = {f"backbone.{name}": shape for name, shape in sizes.items()}
        if self.method == "maml":
            shapes |= {"head.weight": (self.outputs, self.features), "head.bias": (self.outputs,)}
        return shapes

    def _mlp_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for index, (i, o) in enumerate(zip((prod(self.input_shape), *self.widths), self.widths, strict=False)):
            shapes |= {f"layers.{index}.weight": (o, i), f"layers.{index}.bias": (o,)}
        return shapes

    def _conv4_shapes(self) -> dict[str, tuple[int, ...]]:
        convolutions: dict[str, tuple[int, ...]] = {}
        normalizations: dict[str, tuple[int, ...]] = {}
        for index, (i, o) in enumerate(zip((self.input_shape[0], *self.widths), self.widths, strict=False)):
            convolutions[f"convolutions.{index}.weight"] = (o, i, 3, 3)
            normalizations |= {f"normalizations.{index}.weight": (o,), f"normalizations.{index}.bias": (o,)}
        return convolutions | normalizations

    def _transformer_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for index, d in enumerate(self.widths):
            layers = {"attend": (3 * d, d), "mix": (d, d), "expand": (4 * d, d), "contract": (d, 4 * d)}
            for name, shape in layers.items():
                shapes |= {f"blocks.{index}.{name}.weight": shape, f"blocks.{index}.{name}.bias": shape[:1]}
            for name in ("normalization1", "normalization2"):
                shapes |= {f"blocks.{index}.{name}.weight": (d,), f"blocks.{index}.{name}.bias": (d,)}
        return shapes

    def _classes(self, generator: np.random.Generator) -> Batch:
        """Noise around one random pattern per class."""
        patterns = generator.standard_normal((self.tasks, self.way, 1, *self.input_shape))

        def examples(shot: int) -> tuple[Array, Array]:
            noise = generator.standard_normal((self.tasks, self.way, shot, *self.input_shape))
            inputs = (patterns + noise).reshape(self.tasks, self.way * shot, *self.input_shape)
            return inputs, np.tile(np.repeat(np.arange(self.way), shot), (self.tasks, 1))

        return Batch(*examples(self.shot), *examples(self.query_shot))

    def _sines(self, generator: np.random.Generator) -> Batch:
        """Sine waves of random amplitude and phase, as in the paper on MAML (Finn et al., 2017)."""
        amplitude = generator.uniform(0.1, 5.0, (self.tasks, 1, 1))
        phase = generator.uniform(0.0, np.pi, (self.tasks, 1, 1))

        def examples(count: int) -> tuple[Array, Array]:
            x = generator.uniform(-5.0, 5.0, (self.tasks, count, 1))
            return x, amplitude * np.sin(x - phase)

        return Batch(*examples(self.shot), *examples(self.query_shot))


SINE = Workload("sine", "mlp", (1,), tasks=25, way=0, shot=10, query_shot=10, widths=(40, 40))
OMNIGLOT = Workload("conv4-64 28x28", "conv4", (1, 28, 28), tasks=4, way=5, shot=1, query_shot=15, widths=(64,) * 4)
MINI_IMAGENET = Workload(
    "conv4-32 84x84", "conv4", (3, 84, 84), tasks=2, way=5, shot=1, query_shot=15, widths=(32,) * 4
)
HEAD = Workload("linear head", "linear", (384,), tasks=64, way=20, shot=5, query_shot=5)
PROTONET = Workload(
    "ProtoNet conv4-64 28x28",
    "conv4",
    (1, 28, 28),
    tasks=1,
    way=60,
    shot=1,
    query_shot=5,
    widths=(64,) * 4,
    method="protonet",
)
TRANSFORMER = Workload("transformer", "transformer", (32, 64), tasks=1, way=5, shot=10, query_shot=5, widths=(64, 64))
