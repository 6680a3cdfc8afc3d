"""The log of a store stays small, whoever reads it and for however long, and whoever holds it is told of."""

import contextlib
import json
import math
import sqlite3
import threading
import time

import pytest
from sqlalchemy import text

from handful.errors import HandfulError
from handful.serving import write_ahead_log
from handful.serving.sqlite import FILE
from handful.serving.sqlite_store import SqliteStore

MOST = 200_000
"""Bytes, here: a twentieth of what SQLite lets gather by itself."""


@pytest.fixture
def store(tmp_path, monkeypatch):
    for name, value in {"MOST": MOST, "READING": 0.0, "PAUSE": 0.0}.items():
        monkeypatch.setattr(write_ahead_log, name, value)
    with SqliteStore(tmp_path / "store") as store:
        store.write("t", lambda rows: rows.insert_task("task", "shelf", keep_examples=True, at=1))
        yield store


def write(store, count=40):
    """Write 40,000 bytes so many times; returns the most bytes that the log has had."""
    most = 0
    for _ in range(count):
        store.write("t", lambda rows: rows._run(text("UPDATE tasks SET name = hex(zeroblob(20000))")))
        most = max(most, store.measured.log_bytes)
    return most


def events(caplog):
    lines = [one.message for one in caplog.records if one.name == "handful.serving"]
    found = [json.loads(line) for line in lines]
    assert lines == [json.dumps(one, separators=(",", ":")) for one in found], "as those of requests are written"
    return found


def test_a_reader_that_does_not_end_is_ended(store, monkeypatch, caplog):
    def read():
        with store.reading("t") as rows:
            rows.all_tasks()
            assert write(store) < 3 * MOST

    with pytest.raises(HandfulError, match="took more than 0 s") as error:
        read()
    assert error.value.code == "unavailable"
    assert [event["ended"] for event in events(caplog)] == [1]
    monkeypatch.setattr(write_ahead_log, "READING", 10.0)  # the writer may still be about to end readers
    with store.reading("t") as rows:
        assert rows.all_tasks() == ["task"]


def test_a_result_that_is_read_too_slowly_fails_at_its_next_row(store, monkeypatch):
    monkeypatch.setattr(write_ahead_log, "PATIENCE", 1)

    def read():
        with store.reading("t") as rows:
            result = rows._run(text(f"SELECT value FROM tasks, json_each('{list(range(2000))}')"))
            result.fetchone()
            write(store, 10)
            result.fetchall()

    with pytest.raises(HandfulError, match=r"cannot be read \(interrupted\)") as error:
        read()
    assert error.value.code == "unavailable"
    write(store, 1)
    assert write(store, 1) < MOST


def test_an_unread_cursor_is_an_alarm_and_fills_no_disk(store, monkeypatch, caplog):
    monkeypatch.setattr(write_ahead_log, "PATIENCE", 1)
    monkeypatch.setattr(write_ahead_log, "FULL", 5 * MOST)
    with contextlib.closing(sqlite3.connect(store.path / FILE, isolation_level=None)) as other:
        cursor = other.execute("SELECT value FROM tasks, json_each('[1, 2, 3]')")
        cursor.fetchone()
        with pytest.raises(HandfulError, match="End that reader") as error:
            write(store)
        assert error.value.code == "unwritable"
        assert 5 * MOST < store.measured.log_bytes < 6 * MOST
        assert {(event["event"], event["ended"]) for event in events(caplog)} == {("log-held", 0)}
        assert events(caplog)[-1]["bytes"] == store.measured.log_bytes
        monkeypatch.setattr(write_ahead_log, "READING", 10.0)  # the writer may still be about to end readers
        with store.reading("t") as rows:
            assert rows.all_tasks() == ["task"]
        cursor.close()
        assert write(store) < 3 * MOST


def test_it_is_not_tried_to_cut_a_log_that_is_held_with_each_write(store, monkeypatch, caplog):
    monkeypatch.setattr(write_ahead_log, "READING", math.inf)
    monkeypatch.setattr(write_ahead_log, "PAUSE", 60.0)
    monkeypatch.setattr(write_ahead_log, "PATIENCE", 1)
    with store.reading("t") as rows:
        rows.all_tasks()
        write(store)
    assert [event["ended"] for event in events(caplog)] == [0]


@pytest.mark.slow
def test_readers_that_follow_one_another_do_not_keep_the_log_growing(store, monkeypatch):
    monkeypatch.setattr(write_ahead_log, "READING", 10.0)
    monkeypatch.setattr(write_ahead_log, "PATIENCE", 5000)
    over = threading.Event()

    def read():
        while not over.is_set():
            with store.reading("t") as rows:
                rows.all_tasks()
                time.sleep(0.005)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        assert write(store) < 3 * MOST
    finally:
        over.set()
        for reader in readers:
            reader.join()
