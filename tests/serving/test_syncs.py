"""Each commit reaches the disk, which no kill can show: the system's calls are counted."""

import re
import shutil
import subprocess
import sys

import pytest

COMMITS = """
import sys, threading
from pathlib import Path
from sqlalchemy import text
from handful.serving.sqlite import engine_of
from handful.serving.writer import Writer

writer = Writer(engine_of(Path(sys.argv[1]), writes=True))
writer.run(lambda c: c.execute(text("CREATE TABLE rows (number INTEGER)")))
insert = lambda: writer.run(lambda c: c.execute(text("INSERT INTO rows VALUES (1)")))
for _ in range(30):
    insert()
threads = [threading.Thread(target=insert) for _ in range(30)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(writer.commits)
"""


@pytest.fixture
def strace():
    program = shutil.which("strace")
    if program is None or subprocess.run([program, "true"], capture_output=True).returncode:
        pytest.skip("strace is not here, or may not trace")
    return program


def test_each_commit_is_synced(strace, tmp_path):
    log = tmp_path / "calls"
    command = [strace, "-f", "-o", log, "-e", "trace=fsync,fdatasync", sys.executable, "-c", COMMITS]
    done = subprocess.run([*command, tmp_path / "rows.sqlite3"], capture_output=True, text=True, check=True)
    commits = int(done.stdout)
    synced = len(re.findall(r"(?:fsync|fdatasync)\(\d+(?:\) += 0| <unfinished)", log.read_text()))
    assert 31 < commits <= 61
    assert synced >= commits
