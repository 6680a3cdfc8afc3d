"""Which threads a request waits for, and for how long."""

import asyncio
import contextlib
import json
import threading
import time
from functools import partial
from types import SimpleNamespace

import httpx2
import pytest
from apps import caller

from handful.http.bodies import AT_ONCE
from handful.http.calls import LEAST_SECONDS, Call
from handful.serving.service import Service
from serving.worlds import classifier, points


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    with Service({"points": classifier()}, tmp_path_factory.mktemp("store")) as service:
        yield caller(service)


@pytest.fixture(scope="module")
def task(call):
    examples = [{"input": p, "label": label} for p, label in zip(points(0, 1), "ab", strict=True)]
    return call("POST", "/v1/tasks", json={"name": "one", "examples": examples}).json()["id"]


@contextlib.contextmanager
def hanging(pool):
    """Inside, all threads of a pool hang."""
    release, hung = threading.Event(), threading.Barrier(pool.threads + 1)

    def hang():
        hung.wait(20)
        release.wait(20)

    futures = [pool.submit(hang) for _ in range(pool.threads)]
    hung.wait(20)
    try:
        yield
        assert not any(future.done() for future in futures), "it was waited for them"
    finally:
        release.set()
        for future in futures:
            future.result(20)


def test_a_key_is_looked_up_while_all_threads_for_other_look_ups_hang(call, task):
    token = call("POST", "/v1/keys", json={"name": "new", "scope": "predict"}).json()["token"]
    pool = call.app.state.server.batcher._pools["look"]
    with hanging(pool):
        asked = {"inputs": points(2)}
        assert call("POST", f"/v1/tasks/{task}/predict", json=asked, key=token).status_code == 200
        assert call("POST", f"/v1/tasks/{task}/predict", json=asked, key="hf_none").status_code == 401


def in_a_full_lane(call, name, hang, use):
    """What `use(client)` returns while each thread of a lane hangs, as `hang(work)` has it work."""
    release = threading.Event()

    async def scenario():
        lane = call.app.state.server.batcher.lanes[name]
        busy = [asyncio.ensure_future(hang(lambda: release.wait(20))) for _ in range(lane._pool.threads)]
        while lane._free:
            await asyncio.sleep(0.001)
        transport, own = httpx2.ASGITransport(call.app), {"authorization": f"Bearer {call.key}"}
        try:
            async with httpx2.AsyncClient(transport=transport, base_url="http://handful", headers=own) as client:
                return await use(client)
        finally:
            release.set()
            await asyncio.gather(*busy)

    return asyncio.run(scenario())


def test_looks_and_uploaded_blocks_are_refused_where_they_would_wait_too_long(call, task):
    parts = {"task": (None, b"{}", "application/json")}

    async def use(client):
        headers = {"x-request-timeout-ms": "50"}
        return [
            await client.get(f"/v1/tasks/{task}", headers=headers),
            await client.get("/v1/keys", headers=headers),
            await client.post(f"/v1/tasks/{task}/predict", headers=headers, files=parts),
        ]

    for found in in_a_full_lane(call, "look", partial(call.app.state.server.batcher.look, "t"), use):
        assert (found.status_code, found.json()["type"]) == (503, "/problems/deadline-exceeded")
        assert int(found.headers["retry-after"]) >= 1


def test_a_key_is_not_looked_up_for_ever(call, task, monkeypatch):
    token = call("POST", "/v1/keys", json={"name": "slow", "scope": "predict"}).json()["token"]
    monkeypatch.setattr("handful.serving.batcher.CHECK", 0.05)

    async def use(client):
        return await client.get(f"/v1/tasks/{task}", headers={"authorization": f"Bearer {token}"})

    found = in_a_full_lane(call, "check", partial(call.app.state.server.batcher.check, "t"), use)
    assert (found.status_code, found.json()["type"]) == (503, "/problems/deadline-exceeded")
    assert call("GET", f"/v1/tasks/{task}", key=token).status_code == 200


def test_requests_for_one_readaptation_hold_one_thread(call, task, monkeypatch):
    service, lane = call.app.state.server.service, call.app.state.server.batcher.lanes["adapt"]
    readapt, ran, go = service.readapt, [], threading.Event()

    def slow(*arguments, **named):
        ran.append(named)
        assert go.wait(10)
        return readapt(*arguments, **named)

    async def scenario():
        transport, own = httpx2.ASGITransport(call.app), {"authorization": f"Bearer {call.key}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://handful", headers=own) as client:
            path = f"/v1/tasks/{task}/readapt"
            asked = [asyncio.ensure_future(client.post(path, json={})) for _ in range(20)]
            while lane.seen.taken == before:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            assert (lane._free, lane.waiting.count) == (lane._pool.threads - 1, 0)
            go.set()
            return await asyncio.gather(*asked)

    monkeypatch.setattr(service, "readapt", slow)
    before = lane.seen.taken
    found = asyncio.run(scenario())
    assert [one.status_code for one in found] == [200] * 20
    assert len(ran) == 1


def large(path):
    body = json.dumps({"inputs": points(2)}) + " " * AT_ONCE
    return {"method": "POST", "url": path, "content": body, "headers": {"content-type": "application/json"}}


def test_large_contents_and_exports_wait_in_their_own_queue_with_a_deadline(call, task):
    batcher, release = call.app.state.server.batcher, threading.Event()
    wanted = [large(f"/v1/tasks/{task}/predict"), {"method": "GET", "url": f"/v1/tasks/{task}/export"}]
    own = {"authorization": f"Bearer {call.key}"}

    async def scenario():
        transport = httpx2.ASGITransport(call.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://handful", headers=own) as client:
            before = batcher.lanes["convert"].seen.taken
            assert [(await client.request(**one)).status_code for one in wanted] == [200, 200]
            assert batcher.lanes["convert"].seen.taken == before + 2
            hanging = [asyncio.ensure_future(batcher.convert("other", lambda: release.wait(20))) for _ in range(2)]
            await asyncio.sleep(0.05)
            for one in wanted:
                one["headers"] = one.get("headers", {}) | {"x-request-timeout-ms": "50"}
                found = await client.request(**one)
                assert (found.status_code, found.json()["type"]) == (503, "/problems/deadline-exceeded")
            assert (await client.get(f"/v1/tasks/{task}")).status_code == 200
            assert not any(one.done() for one in hanging)
            release.set()
            await asyncio.gather(*hanging)

    asyncio.run(scenario())


def test_a_score_costs_all_that_is_adapted_to_for_it(call):
    lane = call.app.state.server.batcher.lanes["adapt"]

    def costs(method, path, content):
        before = lane.seen.rows
        found = call(method, path, json=content)
        assert found.status_code in (200, 201), found.text
        return lane.seen.rows - before, found.json()

    def examples(*labels):
        return [{"input": p, "label": label} for p, label in zip(points(*range(len(labels))), labels, strict=True)]

    first, task = costs("POST", "/v1/tasks", {"name": "a", "examples": examples(*"aabb"), "estimate": True})
    place = f"/v1/tasks/{task['id']}"
    more = [{"input": points(9)[0], "label": "a"}]
    second, _ = costs("POST", f"{place}/examples", {"examples": more, "estimate": True})
    third, _ = costs("POST", f"{place}/corrections", {"examples": [more[0] | {"label": "b"}]})
    scored, _ = costs("POST", f"{place}/evaluate", {})
    given, _ = costs("POST", f"{place}/evaluate", {"examples": more})
    assert (first, second, third, scored, given) == (4 + 4 * 4, 5 + 5 * 5, 1 + 5, 5 + 5 * 5, 1)


def test_the_time_for_a_request_begins_when_its_content_is_there():
    def left(since):
        return Call(None, SimpleNamespace(state=SimpleNamespace(since=time.monotonic() - since)), None, 60).seconds_left

    assert 29 < left(30) <= 30
    assert left(90) == LEAST_SECONDS
