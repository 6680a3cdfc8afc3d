"""Backbones: networks from one example to features, with no head.

A backbone is a registered name, a factory `f(input_shape, **options) -> nn.Module`, or an `nn.Module`; it maps
`(n, *input_shape)` to `(n, features)`. On disk a factory of one's own is written as `package.module:name`: it is a
subclass of `nn.Module`, or a function with the decorator `@backbone`, so that no file can name anything else to call.

A network for images may have `blocks(inputs) -> list[Tensor]`: the maps `(n, channels, h, w)` after each of its blocks,
and last its features, so that a learner can use what comes before them, too; `last_blocks` asks for these.

Attributes that a network may have: `one_by_one` (it is so large that one task takes all cores), `as_it_is` (its layers
are not replaced by those of `functional.normalization`), `relative_rate` (a factor of the rate of its weights in
meta-training, where they are pretrained).
"""

import contextlib
import inspect
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful import streams
from handful.errors import UserError, unknown_name
from handful.functional.boosting import BoostedTrees
from handful.functional.normalization import BatchNorm, Normalization, convert, transforms
from handful.functional.stateless import call, own_copy, tensors
from handful.own_code import imported, names_own_code
from handful.registry import BACKBONES
from handful.types import Examples

Factory: TypeAlias = Callable[..., nn.Module]
Backbone: TypeAlias = str | Factory | nn.Module

VARIADIC = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD

AnyFactory = TypeVar("AnyFactory", bound=Factory)


def backbone(factory: AnyFactory) -> AnyFactory:
    """Register a factory or class under its lower-case name with hyphens."""
    name: str = factory.__name__.lower().replace("_", "-")
    BACKBONES.register(name, factory)
    return factory


@backbone
class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, batch normalization, 2x2 max-pooling and ReLU, then flattened.

    *Matching Networks for One Shot Learning* (Vinyals et al., 2016), https://arxiv.org/abs/1606.04080. Input
    `(n, channels, height, width)` with height and width of 16 or more. `widths` are the output channels per block.
    Pooling before the ReLU gives the same values at a quarter of the ReLU's work; the convolutions have no bias, since
    the normalization behind them would subtract it.
    """

    def __init__(self, input_shape: tuple[int, ...], *, widths: tuple[int, ...] = (64, 64, 64, 64)) -> None:
        super().__init__()
        _check_sizes("widths", widths)
        if len(input_shape) != 3 or min(input_shape[1:]) < 2 ** len(widths):
            raise UserError(
                f"The conv4 backbone takes images (channels, height, width) of {2 ** len(widths)} pixels or more, "
                f"not inputs of shape {input_shape}. For rows of numbers, use mlp.",
                code="wrong-shape",
                hint="Set {backbone}.",
            )
        inputs = (input_shape[0], *widths[:-1])
        self.convolutions = nn.ModuleList(_Convolution(i, o) for i, o in zip(inputs, widths, strict=True))
        self.normalizations = nn.ModuleList(BatchNorm(width) for width in widths)
        self.made_for = input_shape, widths[-1] * prod(size // 2 ** len(widths) for size in input_shape[1:])

    def forward(self, inputs: Tensor) -> Tensor:
        """Images `(n, c, h, w)` to features `(n, width * (h // 16) * (w // 16))`."""
        return self.blocks(inputs)[-1]

    def blocks(self, inputs: Tensor) -> list[Tensor]:
        """The maps `(n, width, height, width)` after each block, the last of them flattened to features."""
        maps = _channels_last(inputs)
        found = []
        for convolution, normalization in zip(self.convolutions, self.normalizations, strict=True):
            maps = cast(_Convolution, convolution).normalized(maps, cast(BatchNorm, normalization))
            maps = F.relu(F.max_pool2d(maps, 2))
            found.append(maps)
        return [*found[:-1], maps.flatten(1)]


def _channels_last(inputs: Tensor) -> Tensor:
    """The same images, in the order in which ordinary convolutions run twice as fast; vmap cannot ask for it."""
    if inputs.device.type == "cpu" and "Vmap" not in transforms():
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs


class _Convolution(nn.Conv2d):
    """3x3 convolution, normalized, to maps of the same size; of half the size with a stride of 2.

    Normalization scales and shifts each channel. If statistics are given, they are folded into the filters, which saves
    all passes over the maps, forward and backward. So it is for images of one channel: the statistics of the first
    maps, the largest of all, follow from the mean and covariance of the 9 numbers of a patch.
    """

    def __init__(self, inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel_size=size, padding=size // 2, stride=stride, bias=False)
        self.by_patches = inputs == 1 and size == 3 and stride == 1

    def normalized(self, inputs: Tensor, normalization: BatchNorm) -> Tensor:
        """Maps `(n, inputs, h, w)` to `(n, outputs, h, w)`."""
        if self.by_patches:
            return self._of_patches(inputs, normalization)
        if normalization.by_batch:
            return cast(Tensor, normalization(self(inputs)))
        scale, shift = normalization.affine()
        weight = self.weight * scale.view(-1, 1, 1, 1)
        return F.conv2d(inputs, weight, shift, stride=self.stride, padding=self.padding)

    def _of_patches(self, inputs: Tensor, normalization: BatchNorm) -> Tensor:
        """A convolution as a product with the matrix of patches, which takes a fourth of the time for one channel."""
        patches = F.pad(inputs, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).reshape(-1, 9)  # (n * h * w, 9)
        filters = self.weight.flatten(1)  # (outputs, 9)
        if normalization.by_batch:
            mean = patches.mean(0)
            centered = patches - mean
            covariance = centered.mT @ centered / len(patches)
            scale, shift = normalization.affine(filters @ mean, (filters @ covariance * filters).sum(-1))
        else:
            scale, shift = normalization.affine()
        maps = torch.addmm(shift, patches, (filters * scale.unsqueeze(-1)).mT)  # (n * h * w, outputs)
        maps = maps.view(inputs.shape[0], *inputs.shape[2:], -1).permute(0, 3, 1, 2)
        return maps.contiguous() if "Vmap" in transforms() else maps  # vmap has pooling for channels first alone


@backbone
class ResNet3(nn.Module):
    """A 5x5 convolution with a stride of 2 and three residual blocks, for images of 48 pixels and more.

    *Deep Residual Learning for Image Recognition* (He et al., 2016), https://arxiv.org/abs/1512.03385. Input
    `(n, channels, height, width)` with height and width of 16 or more. `stem` are the channels of the first
    convolution, `widths` those of the blocks; each block halves the maps by the stride of its first convolution, and
    the means over the last maps are the features. Large images become small maps at once, which is what makes a step
    of training affordable on a CPU.
    """

    def __init__(
        self, input_shape: tuple[int, ...], *, stem: int = 32, widths: tuple[int, ...] = (64, 128, 256)
    ) -> None:
        super().__init__()
        _check_sizes("widths", (stem, *widths))
        least = 2 ** (1 + len(widths))
        if len(input_shape) != 3 or min(input_shape[1:]) < least:
            raise UserError(
                f"The resnet3 backbone takes images (channels, height, width) of {least} pixels or more, not inputs of "
                f"shape {input_shape}. For rows of numbers, use mlp.",
                code="wrong-shape",
                hint="Set {backbone}.",
            )
        self.stem, self.stem_normalization = _Convolution(input_shape[0], stem, size=5, stride=2), BatchNorm(stem)
        inputs = (stem, *widths[:-1])
        self.residuals = nn.ModuleList(_Residual(i, o) for i, o in zip(inputs, widths, strict=True))
        self.made_for = input_shape, widths[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Images `(n, c, h, w)` to features `(n, widths[-1])`."""
        return self.blocks(inputs)[-1]

    def blocks(self, inputs: Tensor) -> list[Tensor]:
        """The maps `(n, width, height, width)` after each block, the last of them averaged to features."""
        maps = F.relu(self.stem.normalized(_channels_last(inputs), self.stem_normalization))
        found = []
        for residual in self.residuals:
            maps = residual(maps)
            found.append(maps)
        return [*found[:-1], maps.mean((2, 3))]


class _Residual(nn.Module):
    """Two 3x3 convolutions and a way past them; maps of half the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = _Convolution(inputs, outputs, stride=2), _Convolution(outputs, outputs)
        self.past = _Convolution(inputs, outputs, size=1, stride=2)
        self.normalizations = nn.ModuleList(BatchNorm(outputs) for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps `(n, inputs, h, w)` to `(n, outputs, h / 2, w / 2)`, halves rounded up."""
        of_first, of_second, of_past = (cast(BatchNorm, layer) for layer in self.normalizations)
        maps = F.relu(self.first.normalized(inputs, of_first))
        return F.relu(self.second.normalized(maps, of_second) + self.past.normalized(inputs, of_past))


@backbone
class MLP(nn.Module):
    """Fully connected layers with ReLU.

    Inputs `(n, *input_shape)` are flattened; features are `(n, hidden[-1])`.
    """

    def __init__(self, input_shape: tuple[int, ...], *, hidden: tuple[int, ...] = (64, 64)) -> None:
        super().__init__()
        _check_sizes("hidden", hidden)
        sizes = (prod(input_shape), *hidden)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes, hidden, strict=False))
        self.made_for = input_shape, sizes[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Rows `(n, *input_shape)` to features `(n, hidden[-1])`."""
        features = inputs.flatten(1)
        for layer in self.layers:
            features = F.relu(layer(features))
        return features


@backbone
class Boosted(nn.Module):
    """The layers of mlp on rows and on the predictions of boosted trees of all training tasks for them.

    The trees are fitted once, before any training, see `handful.functional.boosting`. Training appends predictions by
    trees of other tasks to each row's inputs; elsewhere all trees predict. Inputs `(n, d)`, or `(n, d + columns)` in
    training, become features `(n, hidden[-1])`.

    columns: as many as the tasks have target values or classes.
    """

    def __init__(self, input_shape: tuple[int, ...], *, columns: int = 1, hidden: tuple[int, ...] = (64, 64)) -> None:
        super().__init__()
        if len(input_shape) != 1:
            raise UserError(
                f"The boosted backbone takes rows of numbers (d,), not inputs of shape {input_shape}.",
                code="wrong-shape",
                hint="Set {backbone}.",
            )
        _check_sizes("columns", (columns,))
        self.width, self.columns = input_shape[0], columns
        self.trees = BoostedTrees(columns)
        self.mlp = MLP((self.width + columns,), hidden=hidden)
        self.made_for = input_shape, hidden[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Rows, with or without columns behind them, to features `(n, hidden[-1])`."""
        if inputs.shape[1] == self.width:
            inputs = torch.cat([inputs, self.trees(inputs)], dim=1)
        return self.mlp(inputs)  # type: ignore[no-any-return]

    def fit(self, tasks: Sequence[Examples]) -> list[Tensor]:
        """Fit the trees on the rows of all training tasks; returns the predictions of the others' trees for each task's
        rows."""
        targets = tasks[0].targets
        outputs = self.columns if targets.ndim == 1 else targets.shape[1]
        if outputs != self.columns or (targets.ndim == 1 and max(int(task.targets.max()) for task in tasks) >= outputs):
            raise UserError(
                f"The boosted backbone was made for {self.columns} target values or classes, but these tasks have more "
                f"or fewer.",
                hint="Set their number as columns in {backbone_options}.",
            )
        return self.trees.fit(tasks)


@backbone
class Linear(nn.Module):
    """The inputs and a linear map of them, which starts at zero: for embeddings that are already good.

    Inputs `(n, *input_shape)` are flattened to features `(n, prod(input_shape))`. Untrained it changes nothing, and
    weight decay pulls it back there.
    """

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        size = prod(input_shape)
        self.weight = nn.Parameter(torch.zeros(size, size))
        self.made_for = input_shape, size

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs `(n, *input_shape)` to `(n, prod(input_shape))`."""
        features = inputs.flatten(1)
        return features + F.linear(features, self.weight)


@backbone
class Raw(nn.Module):
    """No network: the inputs themselves.

    Inputs `(n, *input_shape)` are flattened to features `(n, prod(input_shape))`.
    """

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.made_for = input_shape, prod(input_shape)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs `(n, *input_shape)` to `(n, prod(input_shape))`."""
        return inputs.flatten(1)


def make(
    backbone: Backbone,
    input_shape: tuple[int, ...],
    *,
    options: dict[str, Any] | None = None,
    normalization: Normalization = "frozen",
) -> nn.Module:
    """Make a backbone for inputs of this shape; its batch norms get the policy `normalization`.

    "auto" is `conv4` for images and `mlp` for rows. A module is copied, so that the caller's stays as it was.
    Raises `UserError` for an unknown name or option, and for a network that does not fit the inputs or that cannot be
    meta-learned.
    """
    factory = resolve(backbone, input_shape)
    options = options or {}
    parameters = {} if isinstance(factory, nn.Module) else dict(inspect.signature(factory).parameters)
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        for name in options:
            if name not in parameters:
                noun = f"option of the backbone {written(backbone)}" if written(backbone) else "backbone option"
                raise unknown_name(noun, name, set(parameters) - {"input_shape"})
    for name, parameter in list(parameters.items())[1:]:
        if parameter.default is parameter.empty and parameter.kind not in VARIADIC and name not in options:
            raise UserError(
                f"The backbone {written(backbone) or factory} needs the option {name!r}.",
                hint="Set it in {backbone_options}.",
            )
    try:
        network = own_copy(factory) if isinstance(factory, nn.Module) else factory(input_shape, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError) or not options:
            raise
        raise UserError(
            f"The backbone {written(backbone)} cannot be made with the options {options}: {error}."
        ) from error
    _check_weights(network)
    return network if getattr(network, "as_it_is", False) else convert(network, normalization)


def _check_weights(network: nn.Module) -> None:
    """Raise `UserError` for weights that cannot be adapted per task."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise UserError(
            "The backbone is compiled by TorchScript, so its weights cannot be adapted per task: use the original "
            "nn.Module."
        )
    for name, weight in network.named_parameters():
        if isinstance(weight, nn.UninitializedParameter):
            raise UserError(
                f"The backbone's weights {name} have no shape yet: set the sizes of its lazy layers, or run it once."
            )
        if weight.is_complex() and weight.requires_grad:
            raise UserError(
                f"The backbone's weights {name} are complex: use real ones and view them as complex, with "
                f"torch.view_as_complex."
            )


def _is_ours(network: nn.Module) -> bool:
    """Whether a network is one of handful's own."""
    return type(network).__module__.startswith("handful.")


def check_use(network: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Raise `UserError` if a network does more than compute features from its inputs and weights. A copy of it is run
    in both modes, and differentiated with weights in place of its own; handful's own need no check.
    """
    if not _is_ours(network):
        with streams.network_draws("probe", 0, 0):  # the global generator stays as it is
            _try(network, input_shape)


def _try(network: nn.Module, input_shape: tuple[int, ...]) -> None:
    probe = own_copy(network)
    inputs = torch.zeros(2, *input_shape, device=next(network.parameters(), torch.zeros(())).device)
    before = [(name, tensor, tensor._version) for name, tensor in tensors(probe).items()]
    features = _features(probe, inputs)
    if features.dtype != inputs.dtype:
        raise UserError(
            f"The backbone makes features of type {features.dtype} from inputs of type {inputs.dtype}: convert it with "
            f"network.float(), or its features."
        )
    after = tensors(probe)
    for name, tensor, version in before:
        if tensor is not after.get(name) or tensor._version > version:
            raise UserError(
                f"The backbone writes into {name} while it predicts, so a prediction would depend on earlier ones: do "
                f"that in training only, like batch and spectral norms."
            )
    with torch.no_grad(), contextlib.suppress(Exception):
        probe.train()(inputs)  # an error of its own is raised where it is trained
    if inputs._version:
        raise UserError("The backbone changes its inputs in place: copy them first, with inputs.clone().")
    starts = {name: tensor.detach().requires_grad_(tensor.is_floating_point()) for name, tensor in after.items()}
    try:
        outputs = call(probe.eval(), starts, inputs.requires_grad_())
        if outputs.requires_grad:
            wanted = [tensor for tensor in (*starts.values(), inputs) if tensor.requires_grad]
            torch.autograd.grad(outputs.sum(), wanted, allow_unused=True)
    except RuntimeError as error:
        raise UserError(
            f"No gradient passes through the backbone with a task's weights in place of its own, for example because "
            f"of torch.utils.checkpoint, which the plan's memory modes replace: {str(error).splitlines()[0]}"
        ) from error


def _check_sizes(name: str, sizes: Any) -> None:
    if not (isinstance(sizes, (tuple, list)) and all(isinstance(size, int) and size >= 1 for size in sizes)):
        raise UserError(
            f"The option {name!r} is a list of whole numbers of 1 or more, such as [64, 64], not {sizes!r}."
        )


def last_blocks(network: nn.Module, inputs: Tensor) -> list[Tensor]:
    """A network's outputs for inputs in its last two blocks: maps `(n, c, h, w)`, and features `(n, features)`.

    Only the features for a network without `blocks` or with a single block.
    """
    blocks: Callable[[Tensor], list[Tensor]] | None = getattr(network, "blocks", None)
    return [network(inputs)] if blocks is None else blocks(inputs)[-2:]


def default(input_shape: tuple[int, ...]) -> str:
    """The backbone that "auto" stands for."""
    return "conv4" if len(input_shape) == 3 and min(input_shape[1:]) >= 16 else "mlp"


def resolve(backbone: Backbone, input_shape: tuple[int, ...]) -> Factory | nn.Module:
    """The factory that a name or `package.module:name` stands for; anything else is returned as it is."""
    if not isinstance(backbone, str):
        return backbone
    if backbone == "auto":
        return resolve(default(input_shape), input_shape)
    if not names_own_code(backbone):
        return BACKBONES[backbone]  # type: ignore[no-any-return]
    found = imported(backbone, "backbone")
    if not _is_factory(found):
        raise UserError(
            f"The backbone {backbone!r} is neither a subclass of nn.Module nor a function with the decorator "
            "@handful.backbones.backbone. Make it one of them."
        )
    return found  # type: ignore[no-any-return]


def written(backbone: Backbone) -> str | None:
    """A backbone's name on disk, or None if it has no importable name."""
    if isinstance(backbone, str):
        if names_own_code(backbone) or backbone not in BACKBONES:
            return backbone
        return written(BACKBONES[backbone])
    if isinstance(backbone, nn.Module) or not _is_factory(backbone):
        return None
    qualname: str = backbone.__qualname__
    importable = qualname.isidentifier() and backbone.__module__ != "__main__"
    return BACKBONES.lasting_name(backbone) or (f"{backbone.__module__}:{qualname}" if importable else None)


def _is_factory(value: object) -> bool:
    """Whether a file may name it as a factory of networks."""
    if isinstance(value, type) and issubclass(value, nn.Module):
        return True
    return any(value is member for _, member in BACKBONES.items())


def feature_count(network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """The number of features that `network` makes of an example of this shape; `UserError` if it does not fit."""
    shape, count = getattr(network, "made_for", (None, 0))
    if shape == input_shape and _is_ours(network):
        return int(count)  # without a pass: to run on shapes alone, PyTorch imports its compiler, which takes seconds
    like = next((one for one in network.parameters() if one.is_floating_point()), torch.zeros(()))
    return _features(network, like.new_zeros(1, *input_shape)).shape[1]


def _features(network: nn.Module, inputs: Tensor) -> Tensor:
    """A network's features `(n, features)` of inputs in evaluation mode; `UserError` for other outputs."""
    training, shape = network.training, tuple(inputs.shape[1:])
    try:
        with torch.no_grad():
            features = network.eval()(inputs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        hint = ""
        if any(isinstance(module, nn.Embedding) for module in network.modules()):
            hint = "Inputs are floats: if they are token ids, embed inputs.long()."
        elif other := next((one.dtype for one in network.parameters() if one.dtype != inputs.dtype), None):
            hint = f"Inputs are of type {inputs.dtype} and weights of type {other}: convert it by network.float()."
        raise UserError(
            f"The backbone does not support inputs of shape {shape}: {error}", code="wrong-shape", hint=hint
        ) from error
    finally:
        network.train(training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        given = tuple(features.shape) if isinstance(features, Tensor) else f"a {type(features).__name__}"
        raise UserError(
            f"A backbone maps (n, *input_shape) to one tensor (n, features), but this one gives {given} for one "
            "example: end it with nn.Flatten(), or wrap it in a module that returns the features."
        )
    return features
