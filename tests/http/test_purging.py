"""What was deleted long ago is erased, and old answers are forgotten, without being asked for."""

import asyncio

import pytest

from handful.http import purging
from handful.http.app import make_app
from handful.serving.service import Service
from serving.worlds import classifier, points

DAY = 86400 * 10**9


@pytest.fixture
def now():
    return [10**18]


@pytest.fixture
def service(tmp_path, now):
    with Service(classifier(), tmp_path / "store", clock=lambda: now[0]) as service:
        yield service


def test_the_tasks_and_requests_of_all_tenants_are_purged(service, now):
    service.tenants.create("other")
    tasks = [
        service.create("shelf", points(1, 2), ["a", "b"], tenant=tenant, idempotency_key="k").id
        for tenant in ("default", "other")
    ]
    kept = service.create("kept", points(1, 2), ["a", "b"]).id
    for task, tenant in zip(tasks, ("default", "other"), strict=True):
        service.delete(task, tenant=tenant)
    assert not service.purge()
    now[0] += 8 * DAY
    assert service.usage(tenant="other").tasks == 1
    assert not service.purge(tenant="none")
    assert [receipt.task for receipt in service.purge()] == tasks
    assert (service.usage(tenant="other").tasks, [one.id for one in service.tasks()]) == (0, [kept])


def test_old_answers_are_forgotten(service, now):
    service.create("shelf", points(1, 2), ["a", "b"], idempotency_key="k")

    def held():
        with service.store.reading("default") as rows:
            return rows.answer("k", 0) is not None

    now[0] += DAY
    service.purge()
    assert held()
    now[0] += 10**6
    service.purge()
    assert not held()


def test_a_server_purges_at_its_start_and_then_regularly(service, monkeypatch, caplog):
    monkeypatch.setattr(purging, "EVERY", 0.001)
    seen = []

    def purge():
        seen.append(1)
        if len(seen) == 1:
            raise RuntimeError("the disk is full")

    monkeypatch.setattr(service, "purge", purge)

    async def run():
        app = make_app(service)
        async with app.router.lifespan_context(app):
            while len(seen) < 3:
                await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(run(), 20))
    assert "disk is full" in caplog.text
