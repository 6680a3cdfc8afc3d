"""The backbone `encoder`: a pretrained network whose last layers, or all, are meta-trained."""

import functools
from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from handful.encoders.encoder import Encoder
from handful.encoders.images import ImageEncoder, channels_last
from handful.encoders.lower_layers import LowerOutputs
from handful.encoders.texts import PADDING, TextEncoder
from handful.errors import ArtifactError, UserError
from handful.functional.inner_loop import memory_mode
from handful.functional.normalization import transforms
from handful.functional.stateless import call, shared_copy, tensors
from handful.registry import BACKBONES

ENCODERS: dict[str, type[Encoder]] = {kind.what: kind for kind in (TextEncoder, ImageEncoder)}
"""Encoder classes by the kind of input."""
TOKENS_AT_ONCE, NUMBERS_AT_ONCE = 512, 2**20
"""Texts, and images, per batch of the network, which bounds the memory. Short texts train in 40 % less time with a
fourth of what would fit: few are padded, and their activations stay in the processor's cache."""


@functools.lru_cache(maxsize=4)
def encoder_of(what: str, name: str, revision: str | None) -> Encoder:
    """The encoder of texts or images of this name, loaded once for all that use it."""
    return ENCODERS[what](name, revision)


def encoder_to_tune(what: str, name: str, revision: str) -> Encoder | None:
    """The encoder of `encoder_of` if it is on this machine and can be tuned, else None."""
    try:
        encoder = encoder_of(what, name, revision)
        encoder.network()
    except (UserError, ArtifactError):
        return None
    return encoder


class TunedEncoder(nn.Module):
    """A pretrained network whose last layers are trained; the layers below are frozen.

    Only trained weights are parameters and part of its state; the others are looked up by name and revision. Layers
    compute in evaluation mode even while they are trained: dropout would only add noise to few steps, and batch norms
    keep their pretraining statistics.

    input_shape: that of the encoder's inputs, see `Encoder.input_shape`.
    what: "texts" or "images".
    name, revision: of the encoder; see `Encoder`.
    layers: how many of the last layers are trained, with the parts after them; None: all, with the parts before.

    Raises `UserError` if the encoder is not on this machine, or has another content.
    """

    key = "encoder"
    one_by_one = True
    as_it_is = True
    """See `handful.backbones`."""

    def __init__(
        self, input_shape: tuple[int, ...], *, what: str, name: str, revision: str, layers: int | None = None
    ) -> None:
        super().__init__()
        with torch.device("cpu"):
            encoder = encoder_of(what, name, revision)
            if tuple(input_shape) != encoder.input_shape:
                raise UserError(
                    f"The encoder {name} needs inputs of shape {encoder.input_shape}, not {tuple(input_shape)}.",
                    code="wrong-shape",
                )
            self.network = shared_copy(encoder.network())
            trained, found = _names_of_last(self.network, layers), layers_of(self.network)
            weights: dict[int, nn.Parameter] = {}  # tied ones stay tied
            for module, name_of, tensor, path in list(_own_tensors(self.network)):
                if path in trained:
                    if id(tensor) not in weights:
                        weights[id(tensor)] = nn.Parameter(tensor.detach().clone())
                    module.register_parameter(name_of, weights[id(tensor)])
                    continue
                module._parameters.pop(name_of, None)
                module.register_buffer(name_of, tensor.detach(), persistent=False)
        for module in self.network.modules():
            if isinstance(module, _NormBase):  # else loading asks for its count of batches, which is not in the state
                module.track_running_stats = False  # in evaluation, where it stays, it goes by those that it has
        self.network.eval()
        self.lower = LowerOutputs(self.network, found, layers) if layers and layers < len(found) else None
        self.what, self.relative_rate = what, encoder.relative_rate
        self.made_for = encoder.input_shape, encoder.width

    @classmethod
    def options(cls, what: str, name: str, revision: str, layers: int | None) -> dict[str, Any]:
        """The options of this backbone, as a recipe has them."""
        return {"what": what, "name": name, "revision": revision, "layers": layers}

    def train(self, mode: bool = True) -> "TunedEncoder":
        """As for every module, but its layers stay in evaluation mode."""
        self.training = mode
        self.network.eval()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs `(n, *input_shape)` to vectors `(n, width)`."""
        if "Vmap" in transforms():
            return self.network(inputs)  # type: ignore[no-any-return]
        if not len(inputs):
            return inputs.new_zeros(0, self.made_for[1])
        parts = list(self._parts(inputs))
        features = [self._features(inputs[rows, :longest] if longest else inputs[rows]) for rows, longest in parts]
        return torch.cat(features)[torch.cat([rows for rows, _ in parts]).argsort()]

    def bytes_below(self, inputs: Tensor) -> float | None:
        """The mean size of the frozen layers' outputs for one of some inputs; None: they cannot be kept."""
        if self.lower is None or not len(inputs):
            return None
        if self.what == "texts":
            inputs = inputs[:, : int(_lengths(inputs).max())]
        return self.lower.bytes_each(self.network, self._arranged(inputs), self._alike(inputs))

    def bytes_kept(self) -> int:
        """Of all that is kept of them."""
        return 0 if self.lower is None else self.lower.bytes

    def keep_below(self, inputs: Tensor) -> None:
        """Keep the frozen layers' outputs for these inputs, so that these layers are skipped from now on."""
        assert self.lower is not None, "where its bytes are known"
        self.lower.keep(self.network, self._alike(inputs))

    def forget_below(self) -> None:
        """Compute all layers again."""
        if self.lower is not None:
            self.lower.clear()

    def _alike(self, inputs: Tensor) -> Iterator[Tensor]:
        """Inputs in batches, of texts each of those with so many tokens, so that no padding is kept."""
        if self.what == "images":
            for rows, _ in self._parts(inputs):
                yield self._arranged(inputs[rows])
            return
        lengths = _lengths(inputs)
        for length in sorted(set(lengths.tolist())):
            yield from torch.split(inputs[lengths == length, :length], max(1, TOKENS_AT_ONCE // length))

    def _parts(self, inputs: Tensor) -> Iterator[tuple[Tensor, int | None]]:
        """Rows per batch of the network and, for texts, their length: texts of similar length go together."""
        count = len(inputs)
        if self.what == "images":
            size = max(1, NUMBERS_AT_ONCE // prod(inputs.shape[1:]))
            for start in range(0, count, size):
                yield torch.arange(start, min(start + size, count), device=inputs.device), None
            return
        lengths = _lengths(inputs)
        order = lengths.argsort(stable=True)
        start, longest = 0, 1
        for place, length in enumerate(lengths[order].tolist()):
            if (place + 1 - start) * length > TOKENS_AT_ONCE and place > start:
                yield order[start:place], longest
                start = place
            longest = length
        yield order[start:], longest

    def _features(self, inputs: Tensor) -> Tensor:
        inputs = self._arranged(inputs)
        if memory_mode() == "whole" or not torch.is_grad_enabled():
            return self.network(inputs) if self.lower is None else self.lower.vectors(self.network, inputs)
        values = tensors(self.network)
        return _Recomputed.apply(self.network, tuple(values), inputs, *values.values())  # type: ignore[no-any-return, no-untyped-call]

    def _arranged(self, inputs: Tensor) -> Tensor:
        return channels_last(inputs) if self.what == "images" else inputs


def _lengths(inputs: Tensor) -> Tensor:
    """How many tokens each text has `(n,)`, at least 1."""
    return (inputs != PADDING).sum(1).clamp_min(1)


def _names_of_last(network: nn.Module, layers: int | None) -> set[str]:
    """The names of the weights of the last layers and of the parts after them; None: of all."""
    named = network.named_parameters(remove_duplicate=False)  # tied ones under each of their names
    names = [name for name, weight in named if weight.is_floating_point()]
    if layers is None:
        return set(names)
    if layers == 0:
        return set()
    found = layers_of(network)
    if layers > len(found):
        raise UserError(
            f"The encoder has {len(found)} layers, fewer than the {layers} to be tuned.",
            hint="Lower the number in {tune_encoder}, or set it on for all.",
        )
    first = next(place for place, name in enumerate(names) if name.startswith(f"{found[-layers]}."))
    return set(names[first:])


def _own_tensors(network: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor, str]]:
    """Each parameter and buffer: the module that holds it, its name there, itself, and its name in the network."""
    for prefix, module in network.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield module, name, tensor, f"{prefix}.{name}" if prefix else name


def layers_of(network: nn.Module, *, in_stages: bool = True) -> list[str]:
    """The names of a network's layers, first to last: the modules in the list of modules of one class that holds most
    weights; else in any list.

    in_stages: whether these may be stages, as convolutional networks have them, whose own layers are then counted.
    """
    lists = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1
    ]
    alike = [(name, module) for name, module in lists if len({type(layer) for layer in module}) == 1]
    name, found = max(alike or lists, key=lambda named: _size(named[1]), default=("", None))
    layers: list[str] = []
    for place, layer in enumerate(found or ()):
        whole = f"{name}.{place}" if name else str(place)
        inner = layers_of(layer, in_stages=False) if alike and in_stages else []
        stage = 2 * sum(_size(layer.get_submodule(own)) for own in inner) > _size(layer)
        layers += [f"{whole}.{own}" for own in inner] if stage else [whole]
    return [layer for layer in layers if _size(network.get_submodule(layer))]


def _size(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


class _Recomputed(torch.autograd.Function):
    """A network's outputs without stored activations: its backward pass runs it again. Like `torch.utils.checkpoint`,
    which does not support a task's weights in place of the network's own.
    """

    @staticmethod
    def forward(ctx: Any, network: nn.Module, names: tuple[str, ...], inputs: Tensor, *values: Tensor) -> Tensor:
        ctx.network, ctx.names = network, names
        ctx.device = inputs.device.type
        ctx.autocast = torch.is_autocast_enabled(ctx.device)
        ctx.save_for_backward(inputs, *values)
        return call(network, dict(zip(names, values, strict=True)), inputs)  # type: ignore[no-any-return]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> Any:
        inputs, *values = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        starts = [
            value.detach().requires_grad_() if needed else value for value, needed in zip(values, wanted, strict=True)
        ]
        with torch.enable_grad(), torch.autocast(ctx.device, torch.bfloat16, ctx.autocast, cache_enabled=False):
            outputs = call(ctx.network, dict(zip(ctx.names, starts, strict=True)), inputs)
        found = iter(
            torch.autograd.grad(
                outputs,
                [start for start, needed in zip(starts, wanted, strict=True) if needed],
                slopes.to(outputs.dtype),
                materialize_grads=True,
            )
        )
        return None, None, None, *(next(found) if needed else None for needed in wanted)


BACKBONES.register(TunedEncoder.key, TunedEncoder)
