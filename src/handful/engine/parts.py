"""Splitting work into parts that fit into memory."""

from collections.abc import Iterator, Sequence
from math import prod

from torch import nn

NUMBERS_AT_ONCE = 2**23
"""How many numbers of examples and weights are processed at once, which bounds the memory."""
FEATURES = 256
"""The least numbers that an example counts for: its features are not small even if the input is."""


def parts(count: int, numbers: int) -> Iterator[range]:
    """0, 1, ..., `count` - 1 in parts that fit into memory, where each of them takes so many numbers."""
    size = max(1, NUMBERS_AT_ONCE // max(1, numbers))
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def adapting_numbers(learner: nn.Module, examples: int, input_shape: Sequence[int]) -> int:
    """The share of `NUMBERS_AT_ONCE` that one task needs while adapting: its examples, and at most a copy of all
    weights."""
    weights = sum(parameter.numel() for parameter in learner.parameters())
    return weights + examples * numbers_of_example(input_shape)


def numbers_of_example(shape: Sequence[int]) -> int:
    """The share of `NUMBERS_AT_ONCE` that an example of this shape needs, features included."""
    return max(FEATURES, prod(shape))
