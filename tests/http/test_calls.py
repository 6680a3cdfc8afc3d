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


def test_who_asks_steadily_waits_for_no_look_at_its_key(call, monkeypatch):
    """It is read anew before it is to be, once and beside the requests, whatever goes wrong there."""
    server = call.app.state.server
    keys, looks = server.service.keys, []
    read = keys.read
    monkeypatch.setattr("handful.serving.keys.FRESH", 60.0)
    monkeypatch.setattr("handful.http.calls.LOOK_AGAIN", 60.0)

    def ask():
        return asyncio.run(server.identity(call.key))

    def looked():
        while server._looking_again:
            time.sleep(0.001)
        return looks

    def broken(token):
        looks.append(token)
        raise OSError("the disk is gone")

    identity = ask()
    looked()
    with hanging(server.batcher._pools["check"]):
        monkeypatch.setattr(keys, "read", lambda token: (looks.append(token), read(token))[1])
        assert [ask(), ask(), looks] == [identity, identity, []]
    assert looked() == [call.key]
    monkeypatch.setattr(keys, "read", broken)
    assert ask() == identity
    assert looked() == [call.key] * 2
    keys._held.clear()  # which other tests are to find as it is usual


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


@pytest.fixture
def readapting(call, task, monkeypatch):
    """Runs `use(readapt)` in a loop, which sends requests for one readaptation; it waits until the event is set.

    Returns who has made it so far, what lets it go on, and how to run.
    """
    service, made, go = call.app.state.server.service, [], threading.Event()
    readapt = service.readapt

    def slow(*arguments, **named):
        made.append(named["actor"])
        assert go.wait(10)
        return readapt(*arguments, **named)

    def run(use):
        async def scenario():
            async with httpx2.AsyncClient(
                transport=httpx2.ASGITransport(call.app), base_url="http://handful"
            ) as client:

                def send(token, milliseconds):
                    own = {"authorization": f"Bearer {token}", "x-request-timeout-ms": f"{milliseconds}"}
                    return asyncio.ensure_future(client.post(f"/v1/tasks/{task}/readapt", json={}, headers=own))

                return await use(send)

        return asyncio.run(scenario())

    monkeypatch.setattr(service, "readapt", slow)
    yield made, go, run
    go.set()


async def there(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_who_joins_another_request_for_a_readaptation_keeps_its_own_deadline(call, readapting):
    made, go, run = readapting
    lane, release = call.app.state.server.batcher.lanes["adapt"], threading.Event()
    others = call.app.state.server.batcher.adapt

    async def use(send):
        busy = [asyncio.ensure_future(others("t", 1, lambda: release.wait(20))) for _ in range(lane._pool.threads)]
        try:
            await there(lambda: not lane._free)
            first, long, short = send(call.key, 300), send(call.key, 10_000), send(call.key, 50)
            assert (await short).json()["type"] == "/problems/deadline-exceeded"
            assert not first.done()
            assert (await first).json()["type"] == "/problems/deadline-exceeded"
            assert not long.done()
        finally:
            go.set()
            release.set()
            await asyncio.gather(*busy)
        return (await long).status_code

    assert run(use) == 200
    assert len(made) == 1


def test_a_readaptation_that_runs_is_waited_for_by_its_own_key_alone_and_each_acts_in_its_own_name(call, readapting):
    made, go, run = readapting
    other = call("POST", "/v1/keys", json={"name": "other", "scope": "write"}).json()
    lane = call.app.state.server.batcher.lanes["adapt"]

    async def use(send):
        first = send(call.key, 10_000)
        await there(lambda: made)
        joined, late, next_one = send(call.key, 20), send(other["token"], 20), send(other["token"], 10_000)
        asked = (first, joined, next_one)
        try:
            await asyncio.wait([late], timeout=2)
            assert not joined.done(), "what runs is answered as it ends"
            assert (lane._free, lane.waiting.count) == (lane._pool.threads - 1, 0)
        finally:
            go.set()
            await asyncio.gather(*asked, late)
        assert late.result().json()["type"] == "/problems/deadline-exceeded"
        return [one.result().status_code for one in asked]

    assert run(use) == [200, 200, 200]
    assert made[1:] == [other["id"]]
    assert made[0] != other["id"]


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
