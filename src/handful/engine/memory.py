"""Memory that runs out, as one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from handful.errors import HandfulError


@contextmanager
def enough_memory(work: str, hint: str) -> Iterator[None]:
    """Where memory runs out in here, a `HandfulError` says in which work, with the way out as its hint."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise HandfulError(f"The memory does not suffice for {work}.", code="out-of-memory", hint=hint) from error


def out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether memory did not suffice; the error of PyTorch on a CPU has no type of its own."""
    words = "out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED"
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(each in str(error) for each in words)
