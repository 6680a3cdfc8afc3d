"""What all tests share: one thread, seeded global generators, no display."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    """No test depends on which tests ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)
