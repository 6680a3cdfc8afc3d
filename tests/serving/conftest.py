"""Where stores of tests are: in a folder, and in a database of PostgreSQL."""

import pytest

from serving.clusters import Cluster


@pytest.fixture(scope="session")
def cluster():
    """A server of PostgreSQL, which ends with the tests."""
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def place(request, tmp_path):
    """Where a store of its own can be opened, also several times one after another."""
    return tmp_path / "store" if request.param == "sqlite" else request.getfixturevalue("cluster").store()
