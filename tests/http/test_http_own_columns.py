"""Tables with columns of their own, from a client to the store and back, by a model that was never shown them."""

import logging

import pytest
import torch

from client import servers
from handful.errors import DataError
from handful.http.app import make_app
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.notes import collecting
from handful.pipelines.own_tables import ManyTablesPipeline
from handful.serving.service import Service
from handful.serving.verification import verify
from handful.types import TaskSpec

MARKER = "MARKER-7f3a"
SECRET = f"{MARKER} " * 9


def row(weight, color, day):
    return {"weight": weight, "color": color, "day": day}


FIRST = [
    (row(1.5, "red", "2024-01-03"), "apple"),
    (row(2, "blue", "2024-02-01"), "apple"),
    (row(None, "red", "2024-02-11"), "pear"),
    (row(9, "green", None), "pear"),
    (row(7, SECRET, "2024-03-01"), "pear"),
]
QUERIES = [row(2, "red", "2024-02-02"), row(None, "violet", "2023-12-24") | {"label": "pear", "note": "not read"}]


@pytest.fixture
def model(tmp_path):
    """As it is loaded from the folder of a run."""
    learner = PrototypicalNetwork.build(TaskSpec("classification", (4,), 2, "permuted"), backbone="linear", seed=1)
    return MetaModel(learner, ManyTablesPipeline(width=4, label="label")).save_pretrained(tmp_path / "model")


def by_library(path, examples, queries=QUERIES):
    """The probabilities that the library gives, adapted to these rows as a table."""
    model = MetaModel.from_pretrained(path)
    with collecting():
        own = model.pipeline.of_task([given | {"label": label} for given, label in examples])
        inputs = own.encode([given for given, _ in examples])
        task = model.with_pipeline(own).adapt(inputs, [label for _, label in examples])
        return model.predict(task, own.encode(queries)).logits.softmax(-1)


def shown(made):
    return torch.tensor([list(one.probabilities.values()) for one in made.predictions])


def apart(examples):
    return [given for given, _ in examples], [label for _, label in examples]


def connected(service):
    return servers.blocking(make_app(service), service.keys.create("default", "write", "of a test").token)


def test_a_table_of_a_client_has_the_digits_of_the_library_until_it_is_erased(model, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)

    def same(client, id_, examples, **version):
        made = shown(client.predict(id_, QUERIES, **version))
        torch.testing.assert_close(made, by_library(model, examples), rtol=0, atol=1e-5)

    corrected = [*FIRST[:1], *FIRST[2:], (FIRST[1][0], "pear")]
    added = [*corrected, (row(4, "violet", "2024-05-01"), "plum"), (row(4.5, "red", None), "plum")]
    with Service(model, tmp_path / "store") as service, connected(service) as client:
        task = client.create("fruit", *apart(FIRST))
        assert (task.version, task.labels) == (1, ("apple", "pear"))
        same(client, task.id, FIRST)
        assert {note.code for note in client.predict(task.id, QUERIES).notes} == {"unknown-category"}
        assert client.correct(task.id, *apart(corrected[-1:])).version == 2
        same(client, task.id, corrected)
        assert client.add(task.id, *apart(added[-2:])).labels == ("apple", "pear", "plum")
        same(client, task.id, added)
        [plum] = [one.id for one in client.examples(task.id) if one.input == added[-1][0]]
        assert client.remove(task.id, plum).version == 4
        same(client, task.id, added[:-1])
        [many] = client.predict_many([(task.id, QUERIES)])
        torch.testing.assert_close(shown(many), by_library(model, added[:-1]), rtol=0, atol=1e-5)
        assert client.roll_back(task.id, 3).version == 3
        content = client.export(task.id)
        assert client.import_task("copy", content).examples == 7
        assert MARKER in str(AdaptedTask.from_bytes(content).rows)
    with Service(model, tmp_path / "store") as service, connected(service) as client:
        copy = next(one for one in client.tasks() if one.name == "copy")
        same(client, copy.id, added)
        same(client, task.id, added)
        same(client, task.id, FIRST, version=1)
        assert client.add(copy.id, *apart([(row(3, "red", None), "apple")])).version == 2
        same(client, copy.id, [*added, (row(3, "red", None), "apple")])
        assert service.get(task.id).head.digest == service.versions(copy.id)[0].digest

        assert not verify(tmp_path / "store").findings
        assert MARKER.encode() in raw_files(tmp_path)
        for id_ in (task.id, copy.id):
            [secret] = [one.id for one in client.examples(id_) if one.input["color"] == SECRET]
            client.erase(id_, secret)
        left = [one for one in added if one[0]["color"] != SECRET]
        same(client, task.id, left)
        never_shown = service.create("never shown it", *apart(left[::-1]))
        assert service.get(task.id).head.digest == never_shown.head.digest
        service.store.backup(tmp_path / "backup.sqlite3")
        assert MARKER.encode() not in raw_files(tmp_path)
        assert not verify(tmp_path / "backup.sqlite3").findings
    assert MARKER.encode() not in raw_files(tmp_path)
    assert MARKER not in caplog.text


def raw_files(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def numbered(count):
    """Rows of a column of numbers, and one of texts that are all different."""
    return [({"weight": place, "kind": f"kind {place}"}, "ab"[place % 2]) for place in range(count)]


def test_what_makes_no_table_is_refused_in_a_sentence_that_names_it(model, tmp_path):
    with Service(model, tmp_path / "store") as service, connected(service) as client:
        task = client.create("fruit", *apart(FIRST)).id

        def refused(use, *given, said, field, code="wrong-shape"):
            with pytest.raises(DataError, match=said) as error:
                use(*given)
            assert (error.value.code, error.value.field) == (code, field)

        vector = [[1.0, 2.0, 3.0]]
        refused(client.predict, task, vector, said="each with columns of its own.*object", field=("inputs", 0))
        refused(client.create, "no", vector, ["a"], said="object of columns", field=("examples", 0, "input"))
        refused(client.create, "no", ["red"], ["a"], said="object of columns", field=("examples", 0, "input"))
        lacking = [{"wieght": 2, "color": "red", "day": None}]
        said = r"no column 'weight' \(did you mean 'wieght'\?\)"
        refused(client.predict, task, [*FIRST[0][:1], *lacking], said=said, field=("inputs", 1))
        text = [row("heavy", "red", None)]
        refused(client.predict, task, text, said="'weight'.*is not", field=("inputs", 0, "weight"), code="invalid-data")
        both = [row(3, "red", None), *text]
        place = "examples", 1, "input", "weight"
        refused(client.add, task, both, ["apple"] * 2, said="row 7", field=place, code="invalid-data")
        refused(client.correct, task, both, ["apple"] * 2, said="row 7", field=place, code="invalid-data")
        slip = [row(3, "red", None), row(3, "red", None) | {"colour": "red"}]
        place = "examples", 1, "input", "colour"
        refused(client.add, task, slip, ["pear"] * 2, said="'colour'.*Did you mean 'color'", field=place)
        refused(client.create, "no", *apart(FIRST[:2]), said="two classes", field=(), code="one-class")
        wide = [({f"column {place}": number for place in range(1_001)}, "ab"[number]) for number in (0, 1)]
        refused(client.create, "no", *apart(wide), said="1,001 columns", field=("examples",), code="input-too-large")
        with pytest.raises(DataError, match=r"51 different values, but.*Leave this column out") as error:
            client.create("no", *apart(numbered(51)))
        assert "kind 0" not in error.value.message
        assert client.create("many", *apart(numbered(50))).examples == 50
        assert client.get(task).version == 1

        forgotten = client.create("forgotten", *apart(FIRST), keep_examples=False).id
        torch.testing.assert_close(shown(client.predict(forgotten, QUERIES)), shown(client.predict(task, QUERIES)))
        with pytest.raises(DataError, match="does not contain the rows"):
            client.import_task("no", client.export(forgotten))
