"""What was erased by a client is in no file: of the store, its backup, the folder of uploads or the log."""

import base64
import logging
import threading

import numpy as np
import pyarrow as pa
import pytest
import torch
from journeys import classifying, saved
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from client import servers
from handful.client import connection
from handful.client.content import as_parts
from handful.http.app import make_app
from handful.http.uploads import emptied
from handful.pipelines.images import ImagePipeline
from handful.pipelines.rows import TablePipeline
from handful.pipelines.texts import TextPipeline
from handful.serving import sqlite
from handful.serving.service import Service
from handful.table import Table

TEXT, ROW, IMAGE, LABEL = "MARKER-7f3a", "MARKER-91c0", "MARKER-c55d", "MARKER-0e42"
MARKERS = [marker.encode() for marker in (TEXT, ROW, IMAGE, LABEL)]


def picture(gray, text=""):
    """A file of PNG with a text in it, which nobody compresses."""
    info = PngInfo()
    info.add_text("comment", text * 400)
    return saved(Image.fromarray(np.full((8, 8), gray, np.uint8)), pnginfo=info)


MARKED = {
    "mail": (["aa", "bbbb", "cc"], f"{TEXT} " * 40, "dd"),
    "rows": (
        [{"size": size, "color": "red"} for size in (1, 2, 3)],
        {"size": 7, "color": ROW},
        {"size": 4, "color": None},
    ),
    "photos": ([picture(1), picture(200), picture(90)], picture(30, IMAGE), picture(60)),
}
"""For each model, inputs that stay, one that is erased, and one to predict."""


@pytest.fixture
def models(monkeypatch):
    embed = lambda _, given: torch.tensor([[len(text), text.count("a"), 1.0] for text in given])  # noqa: E731
    monkeypatch.setattr(TextPipeline, "_embedded", embed)
    table = Table("rows", pa.table({"size": [1.0, 2.0, 3.0], "color": ["red", "blue", "red"]}))
    return {
        "mail": classifying(TextPipeline(text="text", width=3, encoder="none", revision="none")),
        "rows": classifying(TablePipeline.fit(table, np.arange(3))),
        "photos": classifying(ImagePipeline(size=8, channels=1)),
    }


def history(client, model):
    """A task with the marked input in many of its versions; returns it and the ids of what is to be erased."""
    others, marked, query = MARKED[model]
    task = client.create(model, [*others, marked], ["x", "y", "x", "y"], model=model)
    client.add(task.id, [query], ["x"])
    client.correct(task.id, [marked], [LABEL])
    client.roll_back(task.id, 1)
    client.predict(task.id, [marked, query])
    client.correct(task.id, [others[0], marked], ["y", "x"])
    wire = base64.b64encode(marked).decode() if isinstance(marked, bytes) else marked
    gone = {
        example.id
        for version in client.versions(task.id)
        for example in client.examples(task.id, version.number)
        if (example.input["image"] if isinstance(marked, bytes) else example.input) == wire
    }
    assert len(gone) == 3, "it has had three labels"
    return task, sorted(gone)


@pytest.mark.slow
@pytest.mark.parametrize("secure", [True, False])
def test_no_file_holds_what_a_client_erased(models, tmp_path, monkeypatch, caplog, secure):
    if not secure:  # what SQLite does by default where it is not built otherwise
        monkeypatch.setitem(sqlite.PRAGMAS, "secure_delete", 0)
    uploads = []
    monkeypatch.setattr(connection, "as_parts", lambda body: uploads.append(as_parts(body, 1000)) or uploads[-1])
    caplog.set_level(logging.DEBUG)
    with Service(models, tmp_path / "store") as service:
        app = make_app(service, spool=emptied(tmp_path / "store" / "uploads"))
        key = service.keys.create("default", "write", "of a test").token
        with servers.blocking(app, key) as client:
            tasks = dict(history(client, model) for model in MARKED)
            before = raw_files(tmp_path)
            assert all(marker in before for marker in MARKERS)
            assert any(uploads), "images came in parts, which are written into a folder"
            receipts = while_read(
                service, lambda: [client.erase(task.id, one) for task in tasks for one in tasks[task]]
            )
            assert {receipt.remains for receipt in receipts} == {None}
            assert [receipt.examples for receipt in receipts] == [(one,) for gone in tasks.values() for one in gone]
            for task, (_, _, query) in zip(tasks, MARKED.values(), strict=True):
                assert len(client.predict(task.id, [query]).predictions) == 1
                assert [one.label for one in client.examples(task.id)] != []
        service.store.backup(tmp_path / "backup.sqlite3")
        for _ in range(2):
            after = raw_files(tmp_path)
            assert any(marker in after for marker in MARKERS) == (not secure)
            service.close()
    assert caplog.records
    assert not any(marker.decode() in caplog.text for marker in MARKERS)


def while_read(service, work):
    """What some work returns that is done while a reader has the store open."""
    reading, let_go = threading.Event(), threading.Event()

    def read():
        with service.store.reading("default") as rows:
            rows.tasks(9)
            reading.set()
            let_go.wait(10)

    reader = threading.Thread(target=read)
    reader.start()
    reading.wait(10)
    timer = threading.Timer(0.2, let_go.set)
    timer.start()
    found = work()
    reader.join()
    return found


def raw_files(folder):
    """All bytes below a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
