"""JAX: the whole meta-step, Adam included, in one `jit`, with `vmap` over tasks."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from numpy.typing import NDArray

from benchmarks.engine.workloads import Batch, Workload

VERSIONS = {"jax": version("jax"), "jaxlib": version("jaxlib")}

Tree = dict[str, jax.Array]
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Step:
    """Second-order MAML."""

    def __init__(self, workload: Workload, dtype: str) -> None:
        jax.config.update("jax_enable_x64", dtype == "float64")
        self.dtype = dtype
        self.weights = {name: jnp.asarray(array, dtype) for name, array in workload.start().items()}
        zeros = {name: jnp.zeros_like(weight) for name, weight in self.weights.items()}
        self.moments = (zeros, zeros, jnp.zeros((), dtype))
        gradient = jax.value_and_grad(meta_loss(workload))
        self.gradient = jax.jit(gradient)

        def advance(weights: Tree, moments: Any, batch: Batch) -> tuple[jax.Array, Tree, Any]:
            loss, gradients = gradient(weights, batch)
            return loss, *adam(weights, gradients, moments, workload.outer_lr)

        self.advance = jax.jit(advance)

    def convert(self, batch: Batch) -> Batch:
        """What `step` takes; its time does not count."""
        arrays = (jnp.asarray(array, self.dtype if array.dtype.kind == "f" else "int32") for array in batch)
        return jax.block_until_ready(Batch(*arrays))

    def step(self, batch: Batch) -> float:
        """One meta-step; returns the mean meta-loss."""
        loss, self.weights, self.moments = self.advance(self.weights, self.moments, batch)
        jax.block_until_ready(self.weights)
        return float(loss)

    def meta_gradient(self, batch: Batch) -> dict[str, NDArray[np.float64]]:
        """The gradient of the mean meta-loss by name."""
        return {name: np.asarray(array) for name, array in self.gradient(self.weights, batch)[1].items()}


def prepare(workload: Workload, dtype: str) -> Step:
    """The step of this implementation."""
    return Step(workload, dtype)


def meta_loss(workload: Workload) -> Callable[[Tree, Batch], jax.Array]:
    """The mean over tasks of the query's loss after the inner loop."""
    forward = {"mlp": mlp, "conv4": conv4, "linear": head}[workload.network]

    def loss(weights: Tree, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        outputs = forward(weights, inputs)
        if not workload.classification:
            return jnp.square(outputs - targets).mean()
        return -jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[:, None], axis=1).mean()

    def task_loss(weights: Tree, task: Batch) -> jax.Array:
        for _ in range(workload.inner_steps):
            gradients = jax.grad(loss)(weights, task.support_inputs, task.support_targets)
            weights = {name: weight - workload.inner_lr * gradients[name] for name, weight in weights.items()}
        return loss(weights, task.query_inputs, task.query_targets)

    return lambda weights, batch: jax.vmap(task_loss, (None, 0))(weights, batch).mean()


def adam(weights: Tree, gradients: Tree, moments: Any, rate: float) -> tuple[Tree, Any]:
    """One step of Adam (Kingma & Ba, 2015) and the moments after it."""
    first, second, count = moments
    count = count + 1
    first = {n: BETA1 * m + (1 - BETA1) * gradients[n] for n, m in first.items()}
    second = {n: BETA2 * v + (1 - BETA2) * jnp.square(gradients[n]) for n, v in second.items()}
    weights = {
        n: w - rate * (first[n] / (1 - BETA1**count)) / (jnp.sqrt(second[n] / (1 - BETA2**count)) + EPSILON)
        for n, w in weights.items()
    }
    return weights, (first, second, count)


def mlp(weights: Tree, inputs: jax.Array) -> jax.Array:
    """Fully connected layers with ReLU, and the head."""
    for layer in range(sum(name.startswith("backbone") for name in weights) // 2):
        weight, bias = (weights[f"backbone.layers.{layer}.{name}"] for name in ("weight", "bias"))
        inputs = jax.nn.relu(inputs @ weight.T + bias)
    return head(weights, inputs)


def conv4(weights: Tree, inputs: jax.Array) -> jax.Array:
    """Convolutions, batch norm with the batch's own statistics, pooling and ReLU, and the head."""
    maps = inputs.transpose(0, 2, 3, 1)  # (n, h, w, c)
    for block in range(4):
        kernel = weights[f"backbone.convolutions.{block}.weight"]
        scale, shift = (weights[f"backbone.normalizations.{block}.{name}"] for name in ("weight", "bias"))
        maps = jax.lax.conv_general_dilated(maps, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "OIHW", "NHWC"))
        mean, variance = maps.mean((0, 1, 2)), maps.var((0, 1, 2))
        maps = (maps - mean) * (scale * jax.lax.rsqrt(variance + 1e-5)) + shift
        n, h, w, c = maps.shape
        maps = maps[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
        maps = jax.nn.relu(maps)
    return head(weights, maps.transpose(0, 3, 1, 2).reshape(len(maps), -1))


def head(weights: Tree, features: jax.Array) -> jax.Array:
    """The linear head."""
    return features @ weights["head.weight"].T + weights["head.bias"]
