"""How much a task and a tenant may have, and that what they use is counted."""

import contextlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import select

from handful import Service
from handful.errors import UserError
from handful.serving.opening import open_store
from handful.serving.quotas import Quotas
from handful.serving.sqlite import FILE
from handful.serving.sqlite_store import SqliteStore, upgrade
from handful.serving.tables import METADATA, TENANTS
from handful.serving.usage import Usage
from serving.oracle import check
from serving.worlds import classifier, filled, points, regressor

TASKS_OF_REQUESTS = (
    "PRAGMA writable_schema = ON",
    "UPDATE sqlite_schema SET sql = replace(sql, 'task VARCHAR,', 'task VARCHAR NOT NULL,') WHERE name = 'requests'",
    "PRAGMA writable_schema = RESET",
)
BACK = (
    "DROP TABLE keys",
    "DROP TABLE tenants",
    "ALTER TABLE tasks DROP COLUMN examples",
    "ALTER TABLE tasks DROP COLUMN bytes",
    "DROP TABLE encodings",
    "ALTER TABLE versions DROP COLUMN estimate",
    "ALTER TABLE versions DROP COLUMN pinned",
    "DROP INDEX requests_created",
    "DROP INDEX requests_task",
    *TASKS_OF_REQUESTS,
    "UPDATE alembic_version SET version_num = '0001'",
)
"""The way back to the first schema."""

FOUR = points(1, 2, 3, 4), ["a", "a", "b", "b"]


@pytest.fixture(scope="module")
def models():
    return {"classes": classifier(), "values": regressor()}


@pytest.fixture(scope="module")
def folder_store(tmp_path_factory):
    with SqliteStore(tmp_path_factory.mktemp("quotas") / "store") as store:
        yield store


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def store(request):
    if request.param == "sqlite":
        yield request.getfixturevalue("folder_store")
    else:
        with open_store(request.getfixturevalue("cluster").store()) as store:
            yield store


@pytest.fixture
def tenant(request):
    return request.node.name


@pytest.fixture
def opened(models, store):
    """A service with quotas, on the same store for all tests."""
    return lambda **most: Service(models, store, quotas=Quotas(**most))


def refused(code, act, *given, **how):
    with pytest.raises(UserError) as error:
        act(*given, **how)
    assert error.value.code == code
    return str(error.value)


def test_the_defaults_are_those_of_the_specification():
    assert Quotas() == Quotas(200, 2_000, 64 * 2**20, 10_000, 2 * 2**30)


def all_bytes(store, tenant):
    """Of all values that a tenant has in any table but the one that says how many they are, by table."""
    found = {}
    for table in METADATA.sorted_tables:
        if "tenant" in table.c and table is not TENANTS:
            with store.reading(tenant) as rows:
                all_ = rows._run(select(table).where(table.c.tenant == tenant)).all()
            found[table.name] = sum(
                nbytes(column, value) for row in all_ for column, value in zip(table.c, row, strict=True)
            )
    return found


def nbytes(column, value):
    if column.type.python_type not in (str, bytes):
        return 8
    return len(value.encode() if isinstance(value, str) else value or b"")


def test_what_is_used_is_counted(opened, tenant, store, monkeypatch):
    monkeypatch.setattr("handful.serving.rows.KEPT_STATES", 2)
    service = opened()
    assert service.usage(tenant=tenant) == Usage(0, 0, 0)

    def counted():
        check(service, tenant)
        used = service.usage(tenant=tenant)
        assert used.bytes == sum(all_bytes(store, tenant).values())
        return used.tasks, used.examples

    task = service.create("\u00e4pfel", FOUR[0], [*"aa\u00fc\u00fc"], model="classes", tenant=tenant).id
    service.create("two", *FOUR, model="classes", tenant=tenant, keep_examples=False, idempotency_key="k")
    service.keys.create(tenant, "predict", "\u65e5")
    assert min(size for name, size in all_bytes(store, tenant).items() if name not in ("encodings", "erasures")) > 0
    assert counted() == (2, 4)
    first = service.examples(task, tenant=tenant)[0].id
    service.add(task, points(5), ["a"], tenant=tenant, estimate=True)
    service.remove(task, [first], tenant=tenant)
    assert counted() == (2, 5), "earlier versions keep it, and the state of the first is dropped"
    service.erase(task, [first], tenant=tenant)
    service.rename(task, "x", tenant=tenant)
    assert counted() == (2, 4)
    service.delete(task, tenant=tenant)
    assert counted() == (2, 4), "until it is erased"
    service.erase_task(task, tenant=tenant)
    assert counted() == (1, 0)
    assert service.usage(tenant="nobody") == Usage(0, 0, 0)


def test_a_task_has_so_many_examples_and_classes(opened, tenant):
    service = opened(examples=4, classes=2)
    task = service.create("one", *FOUR, model="classes", tenant=tenant).id
    for act in (service.add, service.correct):
        assert "would have 5 examples" in refused("task-too-large", act, task, points(5), ["a"], tenant=tenant)
    told = refused("task-too-large", service.correct, task, points(1), ["c"], tenant=tenant)
    assert told == "The task would have 3 classes; at most 2 are allowed."
    too_many = points(*range(5)), [*"aabbb"]
    refused("task-too-large", service.create, "two", *too_many, model="classes", tenant=tenant)
    refused("task-too-large", service.create, "two", *too_many, model="classes", keep_examples=False, tenant=tenant)
    values = {"model": "values", "tenant": tenant}
    service.create("values", points(1, 2, 3, 4), [1.0, 2.0, 3.0, 4.0], **values)
    assert service.usage(tenant=tenant).tasks == 2
    file = opened().export(opened().create("big", *too_many, model="classes", tenant=tenant).id, tenant=tenant)
    refused("task-too-large", service.import_task, "three", file, tenant=tenant)


def test_a_task_and_a_tenant_have_so_many_bytes(opened, tenant):
    task = opened().create("one", *FOUR, model="classes", tenant=tenant).id
    used = opened().usage(tenant=tenant)
    assert "with all its versions; at most" in refused(
        "task-too-large", opened(task_bytes=used.bytes + 1).add, task, points(5), ["a"], tenant=tenant
    )
    full = opened(tenant_bytes=used.bytes)
    assert "Erase tasks" in refused("quota-exceeded", full.add, task, points(5), ["a"], tenant=tenant)
    refused("quota-exceeded", full.create, "two", *FOUR, model="classes", tenant=tenant)
    assert (full.usage(tenant=tenant), full.get(task, tenant=tenant).head.number) == (used, 1)
    full.create("two", *FOUR, model="classes", tenant=tenant[::-1])


def test_who_has_too_much_already_may_make_it_less(opened, tenant):
    task = opened().create("one", points(*range(9)), [*"aaabbbccc"], model="classes", tenant=tenant)
    low = opened(classes=1, examples=2, task_bytes=1, tasks=0, tenant_bytes=1)
    one, other, *_ = low.examples(task.id, tenant=tenant)
    low.remove(task.id, [one.id], tenant=tenant)
    low.erase(task.id, [other.id], tenant=tenant)
    low.roll_back(task.id, 3, tenant=tenant)
    low.delete(task.id, tenant=tenant)
    low.restore(task.id, tenant=tenant)
    low.erase_task(task.id, tenant=tenant)
    left = low.usage(tenant=tenant)
    assert (left.tasks, left.examples) == (0, 0)
    assert left.bytes > 0, "the audit and the receipts"


def test_no_tenant_is_locked_by_what_it_cannot_remove(opened, tenant):
    """The audit, receipts and keys."""
    task = opened().create("one", *FOUR, model="classes", tenant=tenant).id
    most = opened().usage(tenant=tenant).bytes + 10_000
    service = opened(tenant_bytes=most)
    while service.usage(tenant=tenant).bytes < most:
        service.delete(task, tenant=tenant)
        service.restore(task, tenant=tenant)
    service.rename(task, "x" * 100, tenant=tenant)
    service.keys.create(tenant, "predict", "one")
    service.add(task, points(5), ["a"], tenant=tenant)
    assert "bytes of tasks" in refused(
        "quota-exceeded", opened(tenant_bytes=1).add, task, points(6), ["a"], tenant=tenant
    )


def test_a_state_that_was_dropped_needs_room_to_be_pinned(opened, tenant, monkeypatch):
    monkeypatch.setattr("handful.serving.rows.KEPT_STATES", 1)
    service = opened()
    task = service.create("one", *FOUR, model="classes", tenant=tenant).id
    service.add(task, points(5), ["a"], tenant=tenant)
    used = service.usage(tenant=tenant)
    full = opened(task_bytes=used.bytes)
    refused("task-too-large", full.pin, task, 1, tenant=tenant)
    assert not full.version(task, 1, tenant=tenant).pinned
    assert full.usage(tenant=tenant) == used
    assert full.pin(task, 2, tenant=tenant).pinned
    assert service.pin(task, 1, tenant=tenant).pinned


def test_rolling_back_and_forth_keeps_no_more_states(opened, tenant, monkeypatch):
    monkeypatch.setattr("handful.serving.rows.KEPT_STATES", 1)
    service = opened()
    task = service.create("one", *FOUR, model="classes", tenant=tenant).id
    for number in range(5, 8):
        service.add(task, points(number), ["a"], tenant=tenant)
    for version in (1, 2, 3, 4):
        service.roll_back(task, version, tenant=tenant)
    with service.store.reading(tenant) as rows:
        assert [rows.state(task, version) is not None for version in (1, 2, 3, 4)] == [False] * 3 + [True]


def test_requests_at_once_do_not_pass_a_quota_together(opened, tenant):
    service, together = opened(tasks=3), threading.Barrier(8)

    def make(number):
        together.wait()
        try:
            service.create(str(number), *FOUR, model="classes", tenant=tenant)
        except UserError as error:
            return error.code
        return "made"

    with ThreadPoolExecutor(8) as pool:
        made = sorted(pool.map(make, range(8)))
    assert made == ["made"] * 3 + ["quota-exceeded"] * 5
    assert service.usage(tenant=tenant).tasks == 3


def test_a_refused_request_is_carried_out_once_there_is_room(opened, tenant):
    service, how = opened(tasks=1), {"model": "classes", "tenant": tenant}
    first = service.create("one", *FOUR, **how)
    refused("quota-exceeded", service.create, "two", *FOUR, **how, idempotency_key="k")
    service.erase_task(first.id, tenant=tenant)
    assert service.create("two", *FOUR, **how, idempotency_key="k").name == "two"


def test_the_audit_comes_in_pages(opened, tenant):
    service = opened()
    task = service.create("one", *FOUR, model="classes", tenant=tenant, actor="ann")
    service.delete(task.id, tenant=tenant, actor="bob")
    whole = service.audit(tenant=tenant)
    assert [(one.actor, one.action) for one in whole] == [("ann", "created"), ("bob", "deleted")]
    assert service.audit(limit=1, after=1, tenant=tenant) == whole[1:]
    assert service.audit(limit=1, tenant=tenant) == [replace(whole[0])]


def test_an_earlier_store_gets_its_tenants_and_counts(models, tmp_path):
    """Versions before tenants had rows of their own counted nothing."""
    with Service(models, tmp_path / "store") as service:
        kept = service.create("kept", points(1, 2, 3, 4), ["a", "a", "b", "b"], tenant="acme", model="classes").id
        service.add(kept, points(5), ["b"], tenant="acme")
        bare = {"tenant": "acme", "model": "classes", "keep_examples": False}
        service.delete(service.create("bare", points(1, 2), ["a", "b"], **bare).id, tenant="acme")
        wanted = service.usage(tenant="acme")
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / FILE)) as connection, connection:
        for statement in BACK:
            connection.execute(statement)
        assert ("task", 1) in connection.execute("SELECT name, [notnull] FROM pragma_table_info('requests')").fetchall()
    upgrade(tmp_path / "store")
    with Service(models, tmp_path / "store") as service:
        assert service.usage(tenant="acme") == wanted
        assert [one.name for one in service.tenants.list()] == ["acme", "default"]
        check(service, "acme")
        service.keys.create("acme", "predict", "one", idempotency_key="k")


def test_a_store_that_counted_less_is_counted_anew(models, tmp_path):
    """Versions before counted examples and states alone."""
    with Service(models, tmp_path / "store") as service:
        service.tenants.create("acme")
        filled(service, "acme", model="classes")
        wanted = service.usage(tenant="acme")
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / FILE)) as connection, connection:
        for table in ("keys", "requests", "erasures", "audit"):
            assert connection.execute(f"SELECT COUNT(*) FROM {table} WHERE tenant = 'acme'").fetchone() > (0,), table
        for table in ("tasks", "tenants"):
            connection.execute(f"UPDATE {table} SET bytes = 1")
        for statement in (*TASKS_OF_REQUESTS, "UPDATE alembic_version SET version_num = '0004'"):
            connection.execute(statement)
    upgrade(tmp_path / "store")
    with Service(models, tmp_path / "store") as service:
        assert service.usage(tenant="acme") == wanted
        check(service, "acme")
