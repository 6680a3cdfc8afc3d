"""The processes of the benchmarks end with the one that started them, however that one ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


def processes() -> dict[int, int]:
    """The parent of each process that is running."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(") ")[2].split()[:2]
            except OSError:  # it has ended meanwhile
                continue
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def below(pid: int) -> set[int]:
    """The children of a process, and theirs."""
    parents, found = processes(), {pid}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def started(*command: str, folder: Path) -> subprocess.Popen:
    places = os.pathsep.join([str(folder), str(ROOT), str(ROOT / "src")])
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": places}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def left_after(number: int, process: subprocess.Popen, *, children: int, patience: float = 30) -> set[int]:
    """What is left of so many children, and theirs, so many seconds after a signal to the process."""
    own: set[int] = set()
    try:
        end = time.monotonic() + 60
        while len(own := below(process.pid)) < children:
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < end, f"only {len(own)} processes were started"
            time.sleep(0.02)
        process.send_signal(number)
        process.wait(10)
        end = time.monotonic() + patience
        while (left := own & processes().keys()) and time.monotonic() < end:
            time.sleep(0.02)
        return left
    finally:
        for one in {process.pid, *own} & processes().keys():
            os.kill(one, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["terminated", "killed"])
def test_a_child_ends_with_the_process_that_started_it(tmp_path, number):
    """And the child of a child."""
    starting = "import subprocess\nfrom benchmarks import child\nsubprocess.run(child.command({!r}))\n"
    (tmp_path / "first.py").write_text(starting.format("second"))
    (tmp_path / "second.py").write_text(starting.format("third"))
    (tmp_path / "third.py").write_text("import time\ntime.sleep(60)\n")
    assert not left_after(number, started(sys.executable, "-m", "first", folder=tmp_path), children=2)


def test_a_child_whose_parent_has_ended_already_does_not_start(tmp_path):
    written = tmp_path / "written"
    (tmp_path / "writing.py").write_text(f"open({str(written)!r}, 'w')")
    assert started(sys.executable, "-m", "benchmarks.child", "1", "writing", folder=tmp_path).wait(20) == 1
    assert not written.exists()


def test_benchmarks_start_processes_in_no_other_way():
    for file in BENCHMARKS.rglob("*.py"):
        if file.name != "child.py":
            text = file.read_text()
            assert "sys.executable" not in text, f"{file}: benchmarks.child runs modules"
            assert len(re.findall(r"ProcessPoolExecutor\(", text)) == len(re.findall(r'"initializer": end_with', text))


@pytest.mark.slow
def test_a_killed_make_leaves_no_benchmark(tmp_path):
    """`make`, the benchmark, its group of rows, the training that this runs."""
    (recipe,) = re.findall(r"^bench:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (tmp_path / "Makefile").write_text("bench:\n\t" + recipe.replace("$(PEERS)/bin/python", sys.executable) + "\n")
    arguments = f"ARGS=--only workers --output {tmp_path / 'engine.json'}"
    process = started("make", "-f", str(tmp_path / "Makefile"), "bench", arguments, folder=tmp_path)
    assert not left_after(signal.SIGKILL, process, children=3)


@pytest.mark.slow
def test_a_killed_benchmark_leaves_no_pool(tmp_path):
    """Its processes are two, and one that Python starts beside them."""
    command = ("-m", "benchmarks.memorization", "--processes", "2", "--seeds", "1", "--steps", "100000")
    # They end once they have imported what they need, if the benchmark was killed before.
    assert not left_after(signal.SIGKILL, started(sys.executable, *command, folder=tmp_path), children=3)
