"""A server ends in time, whatever hangs in it."""

import subprocess
import sys
import time

import pytest
from processes import serving

from handful.http.app import make_app
from handful.serving.service import Service
from serving.worlds import classifier


@pytest.mark.slow
def test_work_that_hangs_does_not_hold_the_end(tmp_path):
    def hang(service):
        service.purge = lambda: time.sleep(60)

    with serving(classifier(), tmp_path / "store", ending=1, prepare=hang) as process:
        process.end()
        assert process.ended(6) == 0


@pytest.mark.slow
def test_a_process_ends_although_a_thread_hangs():
    program = (
        "import threading, time; from handful.http.server import end_soon; "
        "threading.Thread(target=time.sleep, args=(60,)).start(); end_soon(0.1)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=50).returncode == 1


def test_a_writer_that_hangs_is_no_live_server(tmp_path, monkeypatch):
    with Service(classifier(), tmp_path / "store") as service:
        server = make_app(service).state.server
        assert server.busy_for["write"] == 0
        monkeypatch.setattr(service.store.writer, "_since", time.monotonic() - 400)
        assert server.busy_for["write"] > 300
