"""Each verb against the real service, blocking and awaited, with the digits of the library."""

import numpy as np
import pytest

from client import servers
from handful.errors import DataError, UserError
from handful.http.app import make_app
from handful.models.adapted_task import AdaptedTask
from handful.serving.service import Service
from serving.worlds import classifier, points, regressor

LABELS = ["apple", "pear", "apple", "pear"]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service({"classes": classifier(), "values": regressor()}, tmp_path_factory.mktemp("store")) as service:
        yield service


@pytest.fixture(params=[servers.blocking, servers.awaited], ids=["blocking", "awaited"])
def client(service, request):
    with request.param(make_app(service), service.keys.create("default", "admin", "of a test").token) as client:
        yield client
        for task in client.tasks():
            client.erase_task(task.id)


@pytest.fixture
def task(client):
    return client.create("shelf", points(0, 1, 2, 3), LABELS, model="classes")


def test_a_task_is_made_and_predicts_as_in_this_process(client, service, task):
    assert (task.name, task.version, task.labels, task.examples) == ("shelf", 1, ("apple", "pear"), 4)
    assert (task.model.name, task.keep_examples, task.deleted_at) == ("classes", True, None)
    made = client.predict(task.id, points(4, 5))
    own = service.create("own", points(0, 1, 2, 3), LABELS, model="classes")
    assert made.predictions == service.predict(own.id, points(4, 5)).predictions
    assert (made.task, made.version) == (task.id, 1)
    [top] = client.predict(task.id, np.array(points(4)), top=1).predictions
    assert len(top.probabilities) == 1
    assert client.predict(task.id, []).predictions == ()
    assert client.get(task.id) == task


def test_values_are_predicted_as_in_this_process(client, service):
    values = np.array([0.25, 1, -3, 2])
    task = client.create("prices", np.array(points(0, 1, 2, 3)), values, model="values")
    own = service.create("own", points(0, 1, 2, 3), values, model="values")
    assert task.labels is None
    assert client.predict(task.id, points(4)).predictions == service.predict(own.id, points(4)).predictions
    assert client.add(task.id, points(5), [7]).examples == 5
    assert [one.value for one in client.examples(task.id)][-1] == 7.0


def test_examples_are_added_corrected_and_removed(client, task):
    added = client.add(task.id, points(4), ["plum"], expected=1)
    assert (added.version, added.labels) == (2, ("apple", "pear", "plum"))
    corrected = client.correct(task.id, points(4), ["apple"])
    assert (corrected.version, corrected.labels) == (3, ("apple", "pear"))
    examples = list(client.examples(task.id))
    assert [one.label for one in examples] == [*LABELS, "apple"]
    assert examples[0].input == pytest.approx(points(0)[0])
    assert client.remove(task.id, examples[-1].id).version == 4
    assert len(list(client.examples(task.id))) == 4
    assert len(list(client.examples(task.id, 2))) == 5
    assert client.roll_back(task.id, 2, expected=4).labels == ("apple", "pear", "plum")
    assert [(one.number, one.change) for one in client.versions(task.id)] == [
        (1, "created"),
        (2, "added"),
        (3, "corrected"),
        (4, "removed"),
    ]
    assert client.version(task.id, 2).labels == ("apple", "pear", "plum")
    with pytest.raises(UserError) as caught:
        client.add(task.id, points(5), ["plum"], expected=1)
    assert caught.value.code == "version-conflict"
    assert client.get(task.id).version == 2


def test_numbers_are_names_of_classes_where_the_task_has_them(client):
    task = client.create("digits", points(0, 1), [3, 7], model="classes")
    assert task.labels == ("3", "7")
    assert client.correct(task.id, points(2), [3]).labels == ("3", "7")


def test_a_task_is_scored_renamed_pinned_and_moved(client, service):
    task = client.create("shelf", points(0, 0, 1, 1), LABELS[:1] * 2 + LABELS[1:2] * 2, model="classes", estimate=True)
    assert client.add(task.id, points(2), ["apple"]).estimate is None
    task = client.add(task.id, points(3), ["pear"], estimate=True)
    assert task.estimate.value == client.evaluate(task.id).score.value
    assert client.correct(task.id, points(4), ["pear"], estimate=True).estimate.metric == "accuracy"
    task = client.roll_back(task.id, task.version)
    given, own = client.evaluate(task.id, points(2, 3), ["apple", "pear"]), client.evaluate(task.id)
    assert (given.by, given.examples, own.by, own.examples) == ("examples", 2, "leave-one-out", task.examples)
    assert given.score.metric == "accuracy"
    assert sum(given.confusion["apple"].values()) == 1
    assert client.rename(task.id, "another", expected=3).name == "another"
    assert client.pin(task.id, 1).pinned
    assert not client.pin(task.id, 1, False).pinned
    moved = client.readapt(task.id)
    assert (moved.id, moved.name) == (task.id, "another")


def test_labels_come_from_whatever_gives_them_once(client):
    task = client.create("digits", points(0, 1), iter([3, 7]), model="classes")
    assert client.add(task.id, points(2), iter([3])).examples == 3
    assert client.evaluate(task.id, points(0, 1), iter([3, 7])).examples == 2
    lines = client.create("lines", points(0, 1), (value for value in (0.5, 1.5)), model="values")
    assert lines.labels is None


def test_a_request_is_carried_out_once(client):
    again = [client.create("shelf", points(0, 1), ["a", "b"], model="classes", idempotency_key="k") for _ in range(2)]
    assert again[0] == again[1]
    assert len(list(client.tasks())) == 1


def test_a_task_is_deleted_and_restored(client, task):
    client.delete(task.id)
    assert list(client.tasks()) == []
    assert [one.id for one in client.tasks(deleted=True, limit=1)] == [task.id]
    with pytest.raises(UserError) as caught:
        client.get(task.id)
    assert (caught.value.code, caught.value.status, bool(caught.value.request_id)) == ("not-found", 404, True)
    assert client.restore(task.id).version == 1
    assert list(client.tasks()) == [task]


def test_examples_and_tasks_are_erased_with_a_receipt(client, task):
    client.add(task.id, points(4), ["plum"])
    erased = list(client.examples(task.id))[-1].id
    with pytest.raises(UserError, match="at version 2, not 1"):
        client.erase(task.id, erased, expected=1)
    with pytest.raises(UserError, match="at version 2, not 1"):
        client.erase_task(task.id, expected=1)
    receipt = client.erase(task.id, erased, expected=2)
    assert (receipt.task, receipt.examples, receipt.version) == (task.id, (erased,), 3)
    assert [one.change for one in client.versions(task.id) if one.erased_at] == ["added"]
    assert client.erase(task.id, erased, expected=2) == receipt
    assert client.erase_task(task.id).version is None


def test_a_task_moves_as_a_file(client, task):
    content = client.export(task.id)
    assert AdaptedTask.from_bytes(content).labels == ("apple", "pear")
    other = client.import_task("shelf 2", content)
    assert (other.name, other.labels) == ("shelf 2", task.labels)
    first, second = client.predict_many([(task.id, points(4)), (other.id, points(4, 5))])
    assert first.predictions[0].probability == pytest.approx(second.predictions[0].probability, abs=1e-5)


def test_what_the_server_has(client):
    assert [(one.name, one.kind) for one in client.models()] == [
        ("classes", "classification"),
        ("values", "regression"),
    ]


def test_what_the_tenant_has_and_did(client, task):
    client.roll_back(task.id, 1)
    client.add(task.id, points(4), ["plum"])
    used = client.usage()
    assert used.tasks >= 1
    assert used.quotas
    assert [(one.action, one.version) for one in client.audit() if one.task == task.id] == [
        ("created", 1),
        ("added", 2),
    ]


def test_many_inputs_are_predicted_as_the_server_takes_them(client, task):
    most = client.limits().inputs
    inputs = [[float(number % 7), 1.0, 0.0] for number in range(most + 5)]
    made = client.predict(task.id, inputs, top=1).predictions
    few = client.predict(task.id, inputs[:7], top=1).predictions
    assert [one.label for one in made] == [few[number % 7].label for number in range(most + 5)]
    assert made[-1].probability == pytest.approx(few[(most + 4) % 7].probability, abs=1e-5)


def test_keys_are_made_rotated_and_revoked(client, service):
    made = client.create_key("scanner", "predict")
    assert service.keys.check(made.token).scope == "predict"
    assert made.token not in repr(made)
    new = client.rotate_key(made.id, overlap=0)
    assert service.keys.check(new.token).key == new.id
    client.revoke_key(new.id)
    with pytest.raises(UserError):
        service.keys.check(new.token)
    held = list(client.keys())
    assert {one.id for one in held} >= {made.id, new.id}
    assert all(one.token is None for one in held)


def test_a_key_whose_answer_was_lost_is_found_without_its_token(client):
    made = [client.create_key("lost", "predict", idempotency_key="lost") for _ in range(2)]
    assert made[0].id == made[1].id
    assert (made[1].token, [note.code for note in made[1].notes]) == (None, ["token-not-shown"])


def test_tenants_are_made(client):
    name = f"tenant-{len(list(client.tenants()))}"
    assert client.create_tenant(name).name == name
    assert name in {one.name for one in client.tenants()}
    assert client.create_key("of another", "write", tenant=name).tenant == name
    assert [one.name for one in client.keys(tenant=name)] == ["of another"]


def test_what_is_refused_is_the_library_s_error(client, task):
    with pytest.raises(DataError) as caught:
        client.predict(task.id, [[0.0, 0.0, 0.0], [1.0]])
    assert (caught.value.code, caught.value.status) == ("ragged-input", 422)
    with pytest.raises(UserError) as caught:
        client.create("shelf", points(0, 1), ["a", "b"], model="classes")
    assert caught.value.code == "name-taken"
    with pytest.raises(DataError) as caught:
        client.create("other", points(0, 0), ["a", "b"], model="classes")
    assert (caught.value.code, caught.value.field[:2]) == ("contradictory-labels", ("examples", 1))
