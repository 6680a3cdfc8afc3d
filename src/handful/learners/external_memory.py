"""A differentiable memory within a task: read by content, written to where it was used least.

*Neural Turing Machines* (Graves, Wayne & Danihelka, 2014), https://arxiv.org/abs/1410.5401, for the addressing by
content; *Meta-Learning with Memory-Augmented Neural Networks* (Santoro et al., 2016),
https://arxiv.org/abs/1605.06065, for least recently used access. All functions are pure and of one task. A step of time
is a `write`, then a `read`. The choice of the slots that were used least has no gradient.
"""

from typing import NamedTuple

import torch
from torch import Tensor

NEVER = 1e-3
"""Unused slots differ in usage by less than this, so that which comes first is no matter of rounding."""


class ExternalMemory(NamedTuple):
    """A memory of slots that is read by similarity.

    rows: `(slots, size)`.
    usage: `(slots,)`, how much and how lately each was used.
    reads: `(heads, slots)`, the weights by which each head read last.
    """

    rows: Tensor
    usage: Tensor
    reads: Tensor


def empty(slots: int, size: int, heads: int, like: Tensor) -> ExternalMemory:
    """A memory of zeros with the type and device of `like`; slots are used from the first to the last."""
    order = torch.arange(slots, dtype=like.dtype, device=like.device) / slots
    return ExternalMemory(like.new_zeros(slots, size), NEVER * order, like.new_zeros(heads, slots))


def similarities(rows: Tensor, keys: Tensor) -> Tensor:
    """Cosine similarities `(heads, slots)` of keys `(heads, size)` and rows `(slots, size)`; 0 for a row of zeros."""
    return _unit(keys) @ _unit(rows).mT


def _unit(vectors: Tensor) -> Tensor:
    squared = vectors.square().sum(-1, keepdim=True)
    nonzero = squared > 0  # the root has no slope at zero, where an empty row is
    return torch.where(nonzero, vectors / torch.where(nonzero, squared, torch.ones_like(squared)).sqrt(), vectors)


def addressed(rows: Tensor, keys: Tensor, sharpness: Tensor | float) -> Tensor:
    """Weights over slots `(heads, slots)`: softmax of sharpness * similarity.

    sharpness: a number or `(heads, 1)`.
    """
    return torch.softmax(sharpness * similarities(rows, keys), -1)


def read(memory: ExternalMemory, keys: Tensor, sharpness: Tensor | float) -> tuple[Tensor, ExternalMemory]:
    """What keys `(heads, size)` find, `(heads, size)`, and the memory, its usage grown by the weights of reading."""
    reads = addressed(memory.rows, keys, sharpness)
    return reads @ memory.rows, ExternalMemory(memory.rows, memory.usage + reads.sum(0), reads)


def least_used(usage: Tensor, count: int) -> Tensor:
    """The slots used least, one for each of `count` heads, as rows of zeros and a one `(count, slots)`."""
    slots = usage.topk(count, largest=False).indices
    return (slots.unsqueeze(-1) == torch.arange(len(usage), device=usage.device)).to(usage)


def write(memory: ExternalMemory, additions: Tensor, gate: Tensor | float, decay: float) -> ExternalMemory:
    """Add rows `(heads, size)`, each to the slot used least or to where its head read last.

    gate: a number or `(heads, 1)` from 0 (least used) to 1 (last read).

    The slots used least are wiped before. Usage fades by `decay` and grows by the weights of writing.
    """
    free = least_used(memory.usage, len(additions))
    weights = gate * memory.reads + (1 - gate) * free
    wiped = memory.rows * (1 - free.sum(0)).unsqueeze(-1)
    return ExternalMemory(wiped + weights.mT @ additions, decay * memory.usage + weights.sum(0), memory.reads)
