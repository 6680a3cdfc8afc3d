"""The examples of one task, checked and in an order that depends only on their content."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from handful.errors import DataError, count_of
from handful.models.class_numbers import ReadLabels
from handful.types import Examples


class PreparedExamples(NamedTuple):
    """The examples of one task, checked and in canonical order.

    support: inputs `(n, *input_shape)`, targets as class numbers, or in the user's units as doubles.
    """

    read: ReadLabels
    support: Examples
    manifest: tuple[str, ...]
    groups: tuple[str, ...] | None


def canonical_order(inputs: Tensor, read: ReadLabels) -> Tensor:
    """An order `(n,)` of examples that depends only on their content. Class by class for permuted class numbers, as in
    training; and by a hash, not by size: a learner that reads its support in order was not trained on sorted targets.
    """
    rows = inputs.detach().cpu().contiguous()
    values = read.values.reshape(len(rows), -1).contiguous()
    by_class = read.spec.labels == "permuted"

    def key(place: int) -> tuple[int, bytes]:
        content = rows[place].reshape(-1).view(torch.uint8).numpy().tobytes()
        content += values[place].view(torch.uint8).numpy().tobytes()
        return int(values[place, 0]) if by_class else 0, hashlib.blake2b(content, digest_size=16).digest()

    return torch.tensor(sorted(range(len(rows)), key=key), device="cpu")


def manifest_of(ids: Sequence[str] | None, count: int) -> list[str]:
    """Where each of `count` examples is from, or their numbers; `DataError` for ids that are not unique."""
    if ids is None:
        return [str(index) for index in range(count)]
    names = [str(name) for name in ids]
    if len(names) != count:
        raise DataError(
            f"{count_of(count, 'example')} and {count_of(len(names), 'id')}: give one for each.", code="ragged-input"
        )
    twice = next((name for name, number in Counter(names).items() if number > 1), None)
    if twice is not None:
        raise DataError(f"Two examples have the id {twice!r}. Give each its own.")
    return names
