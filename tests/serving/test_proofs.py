"""The command of the longest proofs runs, and writes its page."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_proofs_write_their_page(tmp_path):
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    places = os.pathsep.join(map(str, (ROOT, ROOT / "src")))
    done = subprocess.run(
        [sys.executable, "-m", "tests.serving.proofs", "--kills", "1", "--requests", "150"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": places, "BENCHMARKS_TINY": "1"},
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    page = (tmp_path / "benchmarks" / "results" / "service_faults.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    found = {name.strip("| "): what for name, what, *_ in rows}
    assert found["kills"].startswith("1 kills, seed 0: ")
    assert " 0 lost" in found["kills"]
    assert "no wrong answer" in found["hostile"]
    assert "goodput" in found["overload"]
    assert "`POST /v1/tasks`" in found
