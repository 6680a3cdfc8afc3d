"""The frozen lower layers of a pretrained network: their outputs for an example, computed once."""

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from handful.encoders.images import channels_last
from handful.encoders.texts import PADDING
from handful.functional.normalization import transforms

TOLERANCE = 1e-4
"""The tolerance of vectors from kept outputs, relative to the largest number: rounding only."""


class LowerOutputs:
    """The outputs of the lower layers of a network, by the content of the example.

    While they are used, the lower layers are skipped, and the first trained one starts from them. Parts outside the
    layers, such as the embedding of tokens, are still computed. All copies of the network share them.

    network: whose layers are switched.
    layers: the names of all layers, first to last; see `layers_of`.
    trained: how many of the last are trained.
    """

    def __init__(self, network: nn.Module, layers: list[str], trained: int) -> None:
        self._state = _State({})
        _kept[self] = {}
        lower, first = layers[:-trained], layers[-trained]
        for name in (*lower, first):
            layer = network.get_submodule(name)
            layer.forward = _Switch(name, layer.forward, self._state, starts=name == first)

    def __deepcopy__(self, memo: dict[int, Any]) -> "LowerOutputs":
        return self

    @property
    def bytes(self) -> int:
        """That are kept."""
        return sum(row.numel() * row.element_size() for row in _kept[self].values())

    def clear(self) -> None:
        """Keep none any more."""
        _kept[self] = {}

    def bytes_each(self, network: nn.Module, inputs: Tensor, batches: Iterable[Tensor]) -> float | None:
        """The mean size of those of some inputs; None if a network cannot start from them: if a trained weight
        contributes to them, or if more than one tensor is passed from layer to layer. Kept outputs are dropped.

        batches: the same inputs, as `keep` takes them.
        """
        try:
            with torch.enable_grad():
                if self._computed(network, inputs).requires_grad:
                    return None
            self.keep(network, batches)
            each = self.bytes / len(inputs)
            with torch.no_grad():
                expected, found = network(inputs), self.vectors(network, inputs)
        except Exception:  # of any kind, by what a network does between its layers
            return None
        finally:
            self.clear()
        return each if (found - expected).abs().max() <= TOLERANCE * expected.abs().max() else None

    def keep(self, network: nn.Module, batches: Iterable[Tensor]) -> None:
        """Compute those of inputs, batch by batch: in the same batches they have the same bits.

        batches: of texts, each of those with so many tokens.
        """
        for inputs in batches:
            with torch.no_grad():
                outputs = self._computed(network, inputs)
            _kept[self] |= zip(_keys(inputs), outputs.clone().unbind(), strict=True)

    def _of(self, inputs: Tensor) -> Tensor | None:
        """Those of these inputs, if all are kept: of texts with zero padding behind their tokens, which is not read."""
        kept = _kept[self]
        if not kept or transforms():
            return None
        found = [kept.get(key) for key in _keys(inputs)]
        known = [row for row in found if row is not None]
        if len(known) < len(found):
            return None
        outputs = pad_sequence(known, batch_first=True)
        return channels_last(outputs) if outputs.ndim == 4 else outputs

    def _computed(self, network: nn.Module, inputs: Tensor) -> Tensor:
        self._state.stops = True
        try:
            network(inputs)
        except _ReachedError as reached:
            return reached.outputs
        finally:
            self._state.stops = False
        raise ValueError("The first trained layer was not reached.")

    def _started(self, network: Callable[[Tensor], Tensor], inputs: Tensor, outputs: Tensor) -> Tensor:
        self._state.outputs = outputs
        try:
            return network(inputs)
        finally:
            self._state.outputs = None

    def vectors(self, network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """A network's vectors of inputs `(n, *input_shape)`: from kept outputs, if those of all are kept."""
        outputs = self._of(inputs)
        return network(inputs) if outputs is None else self._started(network, inputs, outputs)


_kept: weakref.WeakKeyDictionary[LowerOutputs, dict[bytes, Tensor]] = weakref.WeakKeyDictionary()
"""Rows of their tensors, by the content of the input; here, since a copy of a module would copy them along."""


def _keys(inputs: Tensor) -> Iterator[bytes]:
    """A key of the content of each input `(n, *input_shape)`, independent of padding behind a text."""
    for row in inputs.detach().cpu().numpy():
        content = row[row != PADDING] if row.ndim == 1 else row
        yield blake2b(content.tobytes(), digest_size=16).digest()


class _State(threading.local):
    """What the layers do in this thread; a copy of a network does the same.

    shapes: of what a layer makes of an example, by its name, where its input has another one; of all threads.
    """

    def __init__(self, shapes: dict[str, torch.Size]) -> None:
        self.stops, self.shapes = False, shapes
        self.outputs: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "_State":
        return self


class _ReachedError(Exception):
    """The first trained layer is to start.

    outputs: of those below it.
    """

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs


class _Switch:
    """In place of a layer's `forward`: it may be left out, or, where trained layers start, get what is kept."""

    def __init__(self, name: str, forward: Callable[..., Any], state: _State, *, starts: bool) -> None:
        self.name, self.forward, self.state, self.starts = name, forward, state, starts

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        state = self.state
        if self.starts and state.stops:
            raise _ReachedError(arguments[0])
        if state.outputs is None:
            found = self.forward(*arguments, **named)
            if state.stops and found.shape[1:] != arguments[0].shape[1:]:
                state.shapes[self.name] = found.shape[1:]
            return found
        if self.starts:
            return self.forward(state.outputs, *arguments[1:], **named)
        # Of the shape that what stands between the layers expects; its numbers are not used.
        shape = state.shapes.get(self.name)
        return arguments[0] if shape is None else arguments[0].new_zeros(len(arguments[0]), *shape)
