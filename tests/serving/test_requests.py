"""Requests that come again with the same key are carried out once."""

import threading
from datetime import UTC, datetime

import pytest

from handful import Service
from handful.errors import UserError
from serving.worlds import classifier, points

DAY = 86400 * 10**9


@pytest.fixture
def now():
    return [10**18]


@pytest.fixture
def service(place, now):
    with Service(classifier(), place, clock=lambda: now[0]) as service:
        yield service


def made(service, name="shelf", key="k", **options):
    return service.create(name, points(1, 2, 3, 1), ["a", "b", "b", "a"], idempotency_key=key, **options)


def test_a_repeated_request_is_answered_as_the_first_time(service, place, now):
    first = made(service)
    assert [note.code for note in first.notes] == ["repeated"]
    added = service.add(first.id, points(5), ["c"], idempotency_key="k2")
    service.remove(first.id, [service.examples(first.id)[0].id])
    assert made(service) == first
    assert service.add(first.id, points(5), ["c"], idempotency_key="k2") == added
    assert len(service.versions(first.id)) == 3
    service.close()
    with Service(classifier(), place, clock=lambda: now[0]) as again:
        assert made(again) == first
        assert [one.id for one in again.tasks()] == [first.id]


def test_a_repeated_request_that_changed_nothing_changes_nothing_later(service):
    task = made(service).id
    same = service.correct(task, points(1), ["a"], idempotency_key="k2")
    assert same.head.number == 1
    moved = service.correct(task, points(1), ["c"]).head.number
    assert service.correct(task, points(1), ["a"], idempotency_key="k2") == same
    assert service.get(task).head.number == moved


def test_a_key_with_another_request_is_refused(service):
    task = made(service)
    for use in (
        lambda: made(service, "other"),
        lambda: made(service, keep_examples=False),
        lambda: service.add(task.id, points(5), ["c"], idempotency_key="k"),
        lambda: service.import_task("shelf", service.export(task.id), idempotency_key="k"),
    ):
        with pytest.raises(UserError) as error:
            use()
        assert error.value.code == "idempotency-mismatch"


def test_keys_are_of_one_tenant_and_for_a_day(service, now):
    task = made(service)
    assert made(service, tenant="other").id != task.id
    now[0] += DAY - 10**9
    assert made(service).id == task.id
    now[0] += 2 * 10**9
    assert made(service, "later").id != task.id


def test_a_key_is_made_once_and_its_token_shown_once(service, now):
    how = {"tenant": "default", "scope": "write", "name": "one", "idempotency_key": "k"}
    first = service.keys.create(**how)
    assert (service.keys.check(first.token).key, first.notes) == (first.key.id, ())
    again = service.keys.create(**how)
    assert (again.key, again.token, [note.code for note in again.notes]) == (first.key, None, ["token-not-shown"])
    with service.store.reading("default") as rows:
        assert first.token.rpartition("_")[2] not in rows.answer("k", 0)[1]
    service.tenants.create("acme")
    assert service.keys.create(**how | {"asker": "acme"}).key.id != first.key.id, "asked by another tenant"
    new = service.keys.rotate("default", first.key.id, idempotency_key="k2")
    again = service.keys.rotate("default", first.key.id, idempotency_key="k2")
    assert (again.key, again.token) == (new.key, None)
    for other in (
        lambda: service.keys.create(**how | {"scope": "admin"}),
        lambda: service.keys.create(**how | {"tenant": "acme"}),
        lambda: service.tenants.create("more", idempotency_key="k"),
        lambda: service.keys.rotate("default", first.key.id, idempotency_key="k"),
        lambda: made(service),
    ):
        with pytest.raises(UserError) as error:
            other()
        assert error.value.code == "idempotency-mismatch"
    now[0] += DAY + 10**9
    assert service.keys.create(**how).key.id != first.key.id


def test_a_key_that_expired_meanwhile_is_found_by_its_request(service, now):
    until = datetime.fromtimestamp(now[0] / 10**9 + 60, UTC)
    first = service.keys.create("default", "write", "one", until, idempotency_key="k")
    now[0] += 120 * 10**9
    assert service.keys.create("default", "write", "one", until, idempotency_key="k").key == first.key


def test_a_tenant_is_made_once(service):
    first = service.tenants.create("acme", idempotency_key="k")
    assert service.tenants.create("acme", idempotency_key="k") == first
    assert len(service.audit(tenant="acme")) == 1
    with pytest.raises(UserError) as error:
        service.tenants.create("acme", idempotency_key="k2")
    assert error.value.code == "name-taken"


def test_only_what_was_carried_out_is_kept(service, monkeypatch):
    with pytest.raises(UserError):
        service.create("shelf", points(1), ["a"], idempotency_key="k")

    def fail(*_):
        raise RuntimeError("after all writes")

    with monkeypatch.context() as patch:
        patch.setattr("handful.serving.rows.Rows.insert_answer", fail)
        with pytest.raises(RuntimeError):
            made(service)
    assert service.tasks() == []
    assert made(service).head.number == 1


def test_a_request_that_is_under_way_is_not_begun_again(service, monkeypatch):
    running, go, results = threading.Event(), threading.Event(), []
    write = service.store.write

    def slow(*arguments):
        running.set()
        go.wait(10)
        return write(*arguments)

    monkeypatch.setattr(service.store, "write", slow)
    thread = threading.Thread(target=lambda: results.append(made(service)))
    thread.start()
    running.wait(10)
    with pytest.raises(UserError) as error:
        made(service)
    assert error.value.code == "idempotency-in-progress"
    go.set()
    thread.join()
    assert [made(service)] == results
