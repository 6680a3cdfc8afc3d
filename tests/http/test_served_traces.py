"""`handful serve` as a process: killed, started again, and without traces of what was erased in its files and log."""

import contextlib
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from journeys import classifying

from handful.client.client import Client
from handful.errors import UserError
from handful.pipelines.rows import TablePipeline
from handful.table import Table

MARKER, LABEL = "MARKER-7f3a", "MARKER-0e42"
ADDRESS, KEY = re.compile(r"at (http://127\.0\.0\.1:\d+)"), re.compile(r"  KEY=(\S+)")


@contextlib.contextmanager
def started(folder):
    """A server whose log is a file, with its address and its first key; ended at the end if it still runs."""
    command = [sys.executable, "-m", "handful", "serve", "--model", "kinds=rows", "--data", "store", "--port", "0"]
    with (folder / "log").open("ab") as log:
        environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        said = ""
        while not (key := KEY.search(said)):
            line = process.stdout.readline()
            assert line, (folder / "log").read_text()
            said += line
        yield process, ADDRESS.search(said)[1], key[1]
    finally:
        process.kill()
        process.communicate()


def raw_files(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.slow
def test_a_killed_and_ended_server_has_all_that_was_made_and_nothing_that_was_erased(tmp_path):
    table = Table("rows", pa.table({"size": [1.0, 2.0, 3.0], "color": ["red", "blue", "red"]}))
    classifying(TablePipeline.fit(table, np.arange(3))).save_pretrained(tmp_path / "rows")
    rows, marked = [{"size": size, "color": "red"} for size in (1, 2, 3)], {"size": 7, "color": MARKER}
    with started(tmp_path) as (process, url, key), Client(url, key) as client:
        task = client.create("shelf", [*rows, marked], ["x", "y", "x", "y"])
        client.add(task.id, [{"size": 9, "color": None}], ["x"])
        client.correct(task.id, [marked], [LABEL])
        with pytest.raises(UserError), Client(url, "hf_wrong") as other:
            other.predict(task.id, [marked])
        with pytest.raises(UserError):
            client.correct(task.id, [marked], [MARKER * 40])
        seen = client.predict(task.id, [marked, rows[0]])
        process.send_signal(signal.SIGKILL)
        process.wait()
    with started(tmp_path) as (process, url, shown), Client(url, key) as client:
        assert shown == "...", "the key is shown once"
        assert client.predict(task.id, [marked, rows[0]]) == seen
        before = raw_files(tmp_path)
        assert MARKER.encode() in before
        assert LABEL.encode() in before
        gone = {
            example.id
            for version in client.versions(task.id)
            for example in client.examples(task.id, version.number)
            if example.input == marked
        }
        for example in sorted(gone):
            assert client.erase(task.id, example).examples == (example,)
        backup = [sys.executable, "-m", "handful", "store", "backup", "store", "-o", "copy.sqlite3"]
        subprocess.run(backup, cwd=tmp_path, check=True, capture_output=True)
        for ended in (False, True):
            if ended:
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
            after = raw_files(tmp_path)
            assert not [marker for marker in (MARKER, LABEL) if marker.encode() in after]
    log = (tmp_path / "log").read_text()
    assert '"status":401' in log
    assert '"route":"/v1/tasks/{task}/corrections"' in log
    assert "Traceback" not in log
