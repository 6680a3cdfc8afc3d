"""A network's features of rows, for distributions that draw tasks repeatedly from these rows."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from handful.functional.stateless import tensors
from handful.tasks.distribution import Remembered

NUMBERS_AT_ONCE = 2**21
"""Input values per batch of the network, whose activations for photos are many times as large."""


class Features:
    """In place of the inputs `(n, *raw_shape)` of a source: a network's features of them `(n, width)`.

    Those of a row are computed when a task first takes it, and once; all copies of a distribution share them.

    >>> features = Features(torch.eye(3), lambda raw: raw, nn.Linear(3, 2))
    >>> features.shape, features[torch.tensor([2, 0, 2])].shape
    (torch.Size([3, 2]), torch.Size([3, 2]))
    """

    @classmethod
    def of(cls, rows: Tensor, prepare: Callable[[Tensor], Tensor], network: nn.Module) -> "Features":
        """Those of these rows; of a network that remembers them the ones that it has."""
        if not isinstance(network, Remembered):
            return cls(rows, prepare, network)
        found = next((features for features in network.made if features.rows is rows), None)
        if found is None:
            found = cls(rows, prepare, network)
            network.made.append(found)
        return found

    def __init__(self, rows: Tensor, prepare: Callable[[Tensor], Tensor], network: nn.Module) -> None:
        self.rows, self.prepare, self.network = rows, prepare, network
        self.device = next(iter(tensors(network).values()), rows).device
        first = self._computed(torch.tensor([0]))
        # Not filled: the system gives memory to the rows that are written, and to no others of a large source.
        self.values = first.new_empty(len(rows), first.shape[1])
        self.values[0] = first[0]
        self.known = torch.arange(len(rows)) == 0

    @property
    def shape(self) -> torch.Size:
        """Of all of them, computed or not."""
        return self.values.shape

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """The features `(k, width)` of k rows."""
        missing = torch.unique(torch.arange(len(self.known))[rows][~self.known[rows]])
        if len(missing):
            self.values[missing] = self._computed(missing)
            self.known[missing] = True
        return self.values[rows]

    def _computed(self, rows: Tensor) -> Tensor:
        parts = torch.split(rows, max(1, NUMBERS_AT_ONCE // max(1, self.rows[0].numel())))
        with torch.no_grad():
            found = [self.network(self.prepare(self.rows[part]).to(self.device)).cpu() for part in parts]
        return torch.cat(found)
