"""Tiny sizes, by which a test sees in seconds that each benchmark runs: BENCHMARKS_TINY=1 in the environment.

What is measured then says nothing: results and weights go into the present folder, and what is recorded stays.
"""

import os
from typing import TypeVar

Size = TypeVar("Size")

TINY = bool(os.environ.get("BENCHMARKS_TINY"))


def sized(full: Size, tiny: Size) -> Size:
    """The full size, or the tiny one."""
    return tiny if TINY else full
