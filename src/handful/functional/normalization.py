"""Batch normalization with a stated policy about whose statistics it uses.

The native layer is wrong for meta-learning in three ways: in training mode it normalizes a query by the other
queries (transduction that nobody discloses), its running buffers are shared by all tasks and written by adaptation,
and in torch 2.13 `grad(vmap(grad(...)))` through `F.batch_norm` is silently off by up to 8 %, as through layer and
instance normalization (`tests/test_normalization.py` keeps the minimal cases). So the layer is our own, and it says
what it does:

- `frozen`: buffers, which only the training loop writes (`recalibrate`); in training mode, the batch's statistics.
- `support`: the statistics of the support as the inner loop last saw it; they become part of the task's state.
- `transductive`: the statistics of whatever batch comes in, the query's too. Scores then say so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from handful.errors import UserError

Normalization: TypeAlias = Literal["frozen", "support", "transductive"]
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
MODES: tuple[Normalization, ...] = ("frozen", "support", "transductive")


class _Record:
    """The statistics of a layer for `recalibrate`, shared with its copies in the skeletons of threads."""

    def __init__(self) -> None:
        self.active = False
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Record":
        return self


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
        self.fitted: list[tuple[Tensor, Tensor]] = []
        self.record = _Record()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalize `(n, channels, *positions)`; same shape."""
        shape = (-1,) + (1,) * (inputs.ndim - 2)
        if not self.by_batch:
            if not (transforms() or self.mean.requires_grad or self.variance.requires_grad):
                return F.batch_norm(inputs, self.mean, self.variance, self.weight, self.bias, eps=self.epsilon)
            scale, shift = self.affine()
        elif transforms() or inputs.numel() == inputs.shape[1]:  # PyTorch's kernel is wrong, or refuses single values
            scale, shift = self.affine(*_moments(inputs))
        else:
            outputs, mean, variance = _Normalized.apply(  # type: ignore[no-untyped-call]
                inputs, self.weight, self.bias, self.epsilon
            )
            self._note(mean, variance)
            return cast(Tensor, outputs)
        return torch.addcmul(shift.view(shape), inputs, scale.view(shape))

    @property
    def by_batch(self) -> bool:
        """Whether it normalizes by the statistics of what comes in, rather than by given ones."""
        return self.mode == "transductive" or self.fits or (self.mode == "frozen" and self.training)

    def affine(self, mean: Tensor | None = None, variance: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What it amounts to: a scale and a shift per channel.

        mean, variance: the batch's, where it goes by them.

        A linear layer before it may take them into its own weights.
        """
        if mean is None or variance is None:
            mean, variance = self.mean, self.variance
        else:
            self._note(mean, variance)
        scale = self.weight * torch.rsqrt(variance + self.epsilon)
        return scale, self.bias - mean * scale

    def _note(self, mean: Tensor, variance: Tensor) -> None:
        if self.fits:
            self.fitted.append((mean, variance))
        if self.record.active:
            self.record.seen.append((mean.detach(), variance.detach()))

    def extra_repr(self) -> str:
        """Channels and policy, as `print(model)` shows them."""
        return f"{len(self.weight)}, mode={self.mode!r}"


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    axes = (0, *range(2, inputs.ndim))
    mean = inputs.mean(axes)
    centered = inputs - mean.view((-1,) + (1,) * (inputs.ndim - 2))
    return mean, centered.square().mean(axes)


class _Normalized(torch.autograd.Function):
    """Inputs normalized by their own statistics, with those statistics; differentiable twice.

    PyTorch composes its second derivative of batch norm of many passes over the inputs, which cost more than anything
    else in a MAML step on images; `_Slopes` needs few, and the statistics have a gradient here.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> tuple[Tensor, ...]:
        outputs, mean, deviation = torch.native_batch_norm(inputs, weight, bias, None, None, True, 0.0, epsilon)
        variance = (deviation.pow(-2) - epsilon).clamp_min(0)  # `deviation` is one over the standard deviation
        ctx.epsilon = epsilon
        ctx.save_for_backward(inputs, weight, mean, deviation)
        ctx.set_materialize_grads(False)
        return outputs, mean, variance

    @staticmethod
    def backward(ctx: Any, slopes: Tensor | None, of_mean: Tensor | None, of_variance: Tensor | None) -> Any:
        inputs, weight, mean, deviation = ctx.saved_tensors
        count = inputs.numel() // len(mean)
        shape = (-1,) + (1,) * (inputs.ndim - 2)
        down: tuple[Tensor | None, ...] = (None, None, None)
        if slopes is not None:
            down = _Slopes.apply(  # type: ignore[no-untyped-call]
                slopes, inputs, weight, mean.detach(), deviation.detach(), ctx.epsilon
            )
        of_inputs, of_weight, of_bias = down
        if of_variance is not None:  # of the variance: 2 (x - mean) / count
            steep = 2 * of_variance / count
            through = torch.addcmul((-steep * mean).view(shape), inputs, steep.view(shape))
            of_inputs = through if of_inputs is None else of_inputs + through
        if of_mean is not None:
            through = (of_mean / count).view(shape)
            of_inputs = through.expand_as(inputs) if of_inputs is None else of_inputs + through
        return of_inputs, of_weight, of_bias, None


class _Slopes(torch.autograd.Function):
    """The backward pass of batch normalization: from the slopes of its outputs to those of inputs, weight and bias.

    With x the normalized inputs, d one over the deviation, g the slopes and n their number per channel:
    w d (g - sum(g)/n - x sum(gx)/n), sum(gx), sum(g). Its own backward pass differentiates that, statistics included,
    into sums over a channel and one linear combination of a, g and x, where a are the slopes of the first result.
    """

    @staticmethod
    def forward(
        ctx: Any, slopes: Tensor, inputs: Tensor, weight: Tensor, mean: Tensor, deviation: Tensor, epsilon: float
    ) -> tuple[Tensor, ...]:
        down = _native_slopes(slopes, inputs, weight, mean, deviation, epsilon)
        ctx.epsilon = epsilon
        ctx.save_for_backward(slopes, inputs, weight, mean, deviation, *down[1:])
        return down

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, a: Tensor, of_weight: Tensor, of_bias: Tensor) -> Any:
        g, inputs, weight, mean, d, gx_sum, g_sum = ctx.saved_tensors
        n = inputs.numel() // len(mean)
        shape = (-1,) + (1,) * (inputs.ndim - 2)
        of_slopes, ax_sum, a_sum = _native_slopes(a, inputs, weight, mean, d, ctx.epsilon)
        ag_sum = (a * g).sum((0, *range(2, inputs.ndim)))
        centered = ag_sum - (a_sum * g_sum + ax_sum * gx_sum) / n

        def combined(x: Tensor, constant: Tensor) -> Tensor:
            """x * normalized inputs + constant, per channel."""
            return torch.addcmul((constant - x * d * mean).view(shape), inputs, (x * d).view(shape))

        of_slopes = of_slopes + combined(of_weight, of_bias)
        # Through the normalized inputs, whose slopes are on_a * a + on_g * g, and through their deviation.
        on_a, on_g = -weight * d * gx_sum / n, of_weight - weight * d * ax_sum / n
        on_x = -(on_a * ax_sum + on_g * gx_sum) / n - weight * d * centered / n
        of_inputs = combined(d * on_x, -d * (on_a * a_sum + on_g * g_sum) / n)
        of_inputs = of_inputs.addcmul_(a, (d * on_a).view(shape)).addcmul_(g, (d * on_g).view(shape))
        return of_slopes, of_inputs, d * centered, None, None, None


def _native_slopes(
    slopes: Tensor, inputs: Tensor, weight: Tensor, mean: Tensor, deviation: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.aten.native_batch_norm_backward(  # type: ignore[no-any-return]
        slopes, inputs, weight, None, None, mean, deviation, True, epsilon, [True, True, True]
    )


def transforms() -> set[str]:
    """The `torch.func` transforms that are running ("Vmap", "Grad"); torch has no public function for it."""
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
            if layer.fitted:
                statistics[f"{name}.mean"], statistics[f"{name}.variance"] = layer.fitted[-1]
        return statistics

    for layer in layers.values():
        layer.fits = True
    try:
        yield collect
    finally:
        for layer in layers.values():
            layer.fits = False
            layer.fitted = []


class LayerNorm(nn.LayerNorm):
    """Layer normalization with weight and bias outside of PyTorch's kernel.

    Within it they have a wrong second derivative under `torch.func.vmap`, as those of batch and instance normalization.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.LayerNorm`."""
        if not transforms():
            return super().forward(input)
        outputs = F.layer_norm(input, self.normalized_shape, eps=self.eps)
        if self.weight is not None:
            outputs = outputs * self.weight
        return outputs if self.bias is None else outputs + self.bias


class InstanceNorm(nn.Module):
    """Instance normalization `(n, channels, *positions)`, likewise."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight, self.bias, self.epsilon = weight, bias, epsilon

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalize each channel of each example; same shape."""
        shape = (-1,) + (1,) * (inputs.ndim - 2)
        return F.instance_norm(inputs, eps=self.epsilon) * self.weight.view(shape) + self.bias.view(shape)


def convert(module: nn.Module, mode: Normalization) -> nn.Module:
    """Replace the normalization and dropout layers of a network by ones that can be meta-learned; returns the network.

    Native batch norms keep their weights and running statistics; dropout is switched off (as `nn.Identity`), since its
    masks would differ from one forward pass of an inner loop to the next. A layer used in two places stays one layer.
    Layers that work in place no longer do: an inner step may need what they would overwrite.
    """
    return _converted(module, mode, {})


def _converted(module: nn.Module, mode: Normalization, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module in done:
        return done[module]
    if isinstance(module, BATCH_NORMS):
        done[module] = _own(module, mode)
    elif type(module) is nn.LayerNorm:
        done[module] = layer = LayerNorm(module.normalized_shape, module.eps, module.elementwise_affine)
        layer.weight, layer.bias = module.weight, module.bias
    elif isinstance(module, INSTANCE_NORMS) and module.affine and not module.track_running_stats:
        done[module] = InstanceNorm(module.weight, module.bias, module.eps)
    elif isinstance(module, (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)):
        done[module] = nn.Identity()
    else:
        done[module] = module
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
        if isinstance(module, BatchNorm):
            module.mode = mode
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
        for name, child in list(module._modules.items()):  # named_children() leaves out second names
            if child is not None:
                setattr(module, name, _converted(child, mode, done))
    return done[module]


def _own(native: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm, mode: Normalization) -> BatchNorm:
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
    training = module.training
    module.train()
    try:
        for layer in layers:
            layer.record.active = True
        with torch.no_grad():
            for run in passes:
                run()
            for layer in layers:
                if layer.record.seen:
                    mean, variance = (torch.stack(seen).mean(0) for seen in zip(*layer.record.seen, strict=True))
                    layer.mean.copy_(mean)
                    layer.variance.copy_(variance)
    finally:
        for layer in layers:
            layer.record.active = False
            layer.record.seen = []
        module.train(training)
