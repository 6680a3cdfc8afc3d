"""Batch normalization with a stated policy about whose statistics it uses.

The native layer is wrong for meta-learning in three ways: in training mode it normalizes a query by the other
queries (transduction that nobody discloses), its running buffers are shared by all tasks and written by adaptation,
and in torch 2.13 `grad(vmap(grad(...)))` through `F.batch_norm` is silently off by up to 8 %
(`tests/test_normalization.py` keeps the minimal case). So the layer is our own, and it says what it does:

- `frozen`: buffers, which only the training loop writes (`recalibrate`); in training mode, the batch's statistics.
- `support`: the statistics of the support as the inner loop last saw it; they become part of the task's state.
- `transductive`: the statistics of whatever batch comes in, the query's too. Scores then say so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.errors import UserError

Normalization: TypeAlias = Literal["frozen", "support", "transductive"]
MODES: tuple[Normalization, ...] = ("frozen", "support", "transductive")


class BatchNorm(nn.Module):
    """Batch normalization over the examples and positions of `(n, channels, *positions)`.

    *Batch Normalization* (Ioffe & Szegedy, 2015), https://arxiv.org/abs/1502.03167. No forward pass writes a buffer:
    inside `fitting` a `support` layer leaves its batch's statistics in `fitted`, for `collect` to take away.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, mode: Normalization = "frozen", epsilon: float = 1e-5) -> None:
        super().__init__()
        if mode not in MODES:
            raise UserError(f"Normalization is one of {', '.join(MODES)}, not {mode!r}.")
        self.mode = mode
        self.epsilon = epsilon
        self.fits = False
        self.fitted: tuple[Tensor, Tensor] | None = None
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalize `(n, channels, *positions)`; same shape."""
        of_batch = self.mode == "transductive" or self.fits or (self.mode == "frozen" and self.training)
        if self._native_is_right(inputs, of_batch):
            mean, variance = (None, None) if of_batch else (self.mean, self.variance)
            return F.batch_norm(inputs, mean, variance, self.weight, self.bias, training=of_batch, eps=self.epsilon)
        mean, variance = _moments(inputs) if of_batch else (self.mean, self.variance)
        if self.fits:
            self.fitted = (mean, variance)
        scale = self.weight * torch.rsqrt(variance + self.epsilon)
        shape = (-1,) + (1,) * (inputs.ndim - 2)
        return inputs * scale.view(shape) + (self.bias - mean * scale).view(shape)

    def _native_is_right(self, inputs: Tensor, of_batch: bool) -> bool:
        """Whether PyTorch's kernel, twice as fast, computes this.

        It is wrong under `torch.func` transforms, refuses a batch of one value per channel, and has no gradient with
        respect to statistics that are given (those of a support have one).
        """
        if self.fits or transforms():
            return False
        if of_batch:
            return inputs.numel() > inputs.shape[1]
        return not (self.mean.requires_grad or self.variance.requires_grad)

    def extra_repr(self) -> str:
        """Channels and policy, as `print(model)` shows them."""
        return f"{len(self.weight)}, mode={self.mode!r}"


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    axes = (0, *range(2, inputs.ndim))
    mean = inputs.mean(axes)
    centered = inputs - mean.view((-1,) + (1,) * (inputs.ndim - 2))
    return mean, centered.square().mean(axes)


def transforms() -> set[str]:
    """The `torch.func` transforms that are running ("Vmap", "Grad"); torch has no public question for it."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return {interpreter.key().name for interpreter in stack}


@contextmanager
def fitting(module: nn.Module) -> Iterator[Callable[[], dict[str, Tensor]]]:
    """Let the `support` layers of `module` normalize by the batch; yields a function that collects its statistics.

    It sets attributes of the layers, so `module` must belong to the calling thread (`engine.stateless`).
    """
    layers = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, BatchNorm) and layer.mode == "support"
    }

    def collect() -> dict[str, Tensor]:
        statistics = {}
        for name, layer in layers.items():
            if layer.fitted is not None:
                statistics[f"{name}.mean"], statistics[f"{name}.variance"] = layer.fitted
        return statistics

    for layer in layers.values():
        layer.fits = True
    try:
        yield collect
    finally:
        for layer in layers.values():
            layer.fits = False
            layer.fitted = None


def convert(module: nn.Module, mode: Normalization) -> nn.Module:
    """Replace the batch normalization and dropout layers of a network by ones with a policy; returns the network.

    Native batch norms keep their weights and running statistics; dropout is switched off (as `nn.Identity`), since its
    masks would differ from one forward pass of an inner loop to the next. A layer used in two places stays one layer.
    """
    return _converted(module, mode, {})


def _converted(module: nn.Module, mode: Normalization, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module in done:
        return done[module]
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
        done[module] = _own(module, mode)
    elif isinstance(module, (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)):
        done[module] = nn.Identity()
    else:
        done[module] = module
        if isinstance(module, BatchNorm):
            module.mode = mode
        for name, child in list(module._modules.items()):  # named_children() leaves out second names
            if child is not None:
                setattr(module, name, _converted(child, mode, done))
    return done[module]


def _own(native: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, mode: Normalization) -> BatchNorm:
    own = BatchNorm(native.num_features, mode, native.eps)
    for tensor in (*native.parameters(), *native.buffers()):
        if tensor.is_floating_point():
            own.to(tensor)
    with torch.no_grad():
        if native.running_mean is not None and native.running_var is not None:
            own.mean.copy_(native.running_mean)
            own.variance.copy_(native.running_var)
        for mine, theirs in ((own.weight, native.weight), (own.bias, native.bias)):
            mine.requires_grad_(theirs is not None and theirs.requires_grad)
            if theirs is not None:
                mine.copy_(theirs)
    return own.train(native.training)


def recalibrate(module: nn.Module, passes: Iterator[Callable[[], object]]) -> None:
    """Set the buffers of `frozen` layers to the mean statistics over some forward passes in training mode.

    *Rethinking "Batch" in BatchNorm* (Wu & Johnson, 2021), https://arxiv.org/abs/2105.07576: precise statistics of the
    present weights instead of a moving average over past ones. Each element of `passes` runs the module once.
    """
    layers = [m for m in module.modules() if isinstance(m, BatchNorm) and m.mode == "frozen"]
    if not layers:
        return
    sums: dict[BatchNorm, list[Tensor]] = {layer: [] for layer in layers}

    def watch(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        sums[cast(BatchNorm, layer)].append(torch.stack(_moments(arguments[0])))

    hooks = [layer.register_forward_pre_hook(watch) for layer in layers]
    training = module.training
    module.train()
    try:
        with torch.no_grad():
            for run in passes:
                run()
            for layer in layers:
                if sums[layer]:
                    mean, variance = torch.stack(sums[layer]).mean(0)
                    layer.mean.copy_(mean)
                    layer.variance.copy_(variance)
    finally:
        for hook in hooks:
            hook.remove()
        module.train(training)
