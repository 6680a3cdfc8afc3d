"""What all tests share: one thread, seeded global generators, no display, a speed that is measured once."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch

from handful.encoders.cache import CACHE
from handful.notes import collecting
from handful.training import performance

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Each worker of `make test` collects for itself, and all of them need the same names."""
    addresses = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if addresses:
        raise pytest.UsageError(f"The name of a test holds an address; give it ids: {addresses[0]}")


@pytest.fixture(autouse=True)
def _seeded():
    """No test depends on which tests ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _noted_where_expected():
    """A note that a test does not collect is unexpected, as a warning is."""
    with collecting() as notes:
        yield
    assert not list(notes)


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory):
    """Nothing is read from the user's cache or written into it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _speed_measured_once():
    """Else every training would take half a second for it, and most train for less."""
    measure, measured = performance.operations_per_second, {}

    def once(like):
        kind = like.dtype, like.device
        if kind not in measured:
            measured[kind] = measure(like)
        return measured[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(performance, "operations_per_second", once)
        yield
