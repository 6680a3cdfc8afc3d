"""Attention written with products and a softmax, so that it can be differentiated twice under `torch.func.vmap`."""

import math

import torch
from torch import Tensor, nn

from handful.errors import UserError


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int = 1, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention: `(m, heads * d)`, `(n, heads * d)`, `(n, heads * v)` to `(m, heads * v)`.

    *Attention Is All You Need* (Vaswani et al., 2017), https://arxiv.org/abs/1706.03762.

    mask: `(m, n)`, true where a query sees a key; each query sees at least one. Without any key the result is zero.
    """
    q, k, v = (_by_head(rows, heads) for rows in (queries, keys, values))  # (heads, m, d)
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # (heads, m, n)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)


def _by_head(rows: Tensor, heads: int) -> Tensor:
    return rows.reshape(len(rows), heads, rows.shape[1] // heads).transpose(0, 1)


class Attention(nn.Module):
    """Attention of several heads between learned projections of rows of one width.

    `remembered` is all that `attend` needs of keys and values, so a state that holds it makes predictions cheap. At the
    start queries and keys are projected alike, and the output undoes the projection of values: each query finds what is
    like it and takes it over as it is, which random matrices would first have to learn (*Mimetic Initialization of
    Self-Attention Layers*, Trockman & Kolter, 2023, https://arxiv.org/abs/2305.09828). Raises `UserError` for a width
    that the heads do not divide.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"Attention heads share the width equally: {heads} heads do not divide {width}.")
        self.heads = heads
        self.query_proj = nn.Linear(width, width)
        self.key_proj = nn.Linear(width, width, bias=False)  # a bias would add the same to all scores of a query
        self.value_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        with torch.no_grad():
            nn.init.orthogonal_(self.query_proj.weight)
            nn.init.orthogonal_(self.value_proj.weight)
            self.key_proj.weight.copy_(self.query_proj.weight)
            self.out_proj.weight.copy_(self.value_proj.weight.mT)

    def remembered(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `(n, width)` as they are attended to; same shapes."""
        return self.key_proj(keys), self.value_proj(values)

    def recall(self, queries: Tensor, remembered: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
        """What queries `(m, width)` find in what is remembered: `(m, width)`.

        mask: as in `attend`.
        """
        found: Tensor = self.out_proj(attend(self.query_proj(queries), *remembered, self.heads, mask))
        return found

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Queries `(m, width)` attend to keys and values `(n, width)`: `(m, width)`."""
        return self.recall(queries, self.remembered(keys, values), mask)
