import pytest
from tests.readers.random_bytes import run


@pytest.mark.slow
def test_damaged_files_are_read_or_refused(tmp_path):
    assert min(run(tmp_path, 1000, seed=1).values()) > 100
