"""An LSTM's step as plain operations: PyTorch's own has no batching rule, and no second derivatives under `vmap`."""

import torch
from torch import Tensor


def lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden and cell values `(..., width)` after a step, from what the four gates sum up `(..., 4 * width)`.

    *Long Short-Term Memory* (Hochreiter & Schmidhuber, 1997), https://doi.org/10.1162/neco.1997.9.8.1735. The gates are
    in the order of `nn.LSTM`; the forget gate has 1 added, so that at the start a cell rather keeps what it has.
    """
    enter, keep, content, leave = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(keep + 1) * cell + torch.sigmoid(enter) * torch.tanh(content)
    return torch.sigmoid(leave) * torch.tanh(cell), cell
