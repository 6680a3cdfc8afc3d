"""Running out of memory, reported in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from handful.errors import HandfulError


@contextmanager
def enough_memory(work: str, hint: str) -> Iterator[None]:
    """Within this context, running out of memory raises a `HandfulError` that names the work, with the way out as its
    hint."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise HandfulError(f"Out of memory while {work}.", code="out-of-memory", hint=hint) from error


def out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether an error means out of memory; that of PyTorch on a CPU has no own type."""
    words = "out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED"
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(each in str(error) for each in words)
