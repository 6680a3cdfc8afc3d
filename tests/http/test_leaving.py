"""Clients that leave: their requests are dropped unless they have started."""

import asyncio
import json
import threading

import pytest
from apps import caller

from handful.serving.service import Service
from serving.worlds import classifier, points


class Asking:
    """A request to an application that leaves when it is told to."""

    def __init__(self, call, method, path, content):
        self.call, self.left, self.sent = call, asyncio.Event(), []
        head = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {call.key}".encode())]
        self.scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": head}
        self.messages = [{"type": "http.request", "body": json.dumps(content).encode(), "more_body": False}]
        self.task = asyncio.ensure_future(call.app(dict(self.scope), self._receive, self._send))

    async def _receive(self):
        if self.messages:
            return self.messages.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        self.sent.append(message)

    async def status(self):
        await asyncio.wait_for(self.task, 10)
        return self.sent[0]["status"]


@pytest.fixture
def service(tmp_path):
    with Service(classifier(), tmp_path / "store") as service:
        yield service


async def waiting(lane, count):
    while lane.waiting.count < count:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(("all_", "left"), [(20, 18), pytest.param(200, 190, marks=pytest.mark.slow)])
def test_of_clients_that_have_left_nothing_is_predicted(service, monkeypatch, all_, left):
    task = service.create("shelf", points(1, 2), ["a", "b"]).id
    executed, let_go, predict = [], threading.Event(), service.predictor.predict

    def slow(requests):
        executed.extend(requests)
        assert let_go.wait(10)
        return predict(requests)

    monkeypatch.setattr(service.predictor, "predict", slow)
    call = caller(service)

    def ask():
        return Asking(call, "POST", f"/v1/tasks/{task}/predict", {"inputs": points(3)})

    async def use():
        lane = call.app.state.server.batcher.lanes["predict"]
        busy = []
        for threads in (1, 2):
            busy.append(ask())
            while len(executed) < threads:
                await asyncio.sleep(0.001)
        asked = [ask() for _ in range(all_)]
        await waiting(lane, min(all_, 20))
        for one in asked[:left]:
            one.left.set()
        assert [await one.status() for one in asked[:left]] == [499] * left
        let_go.set()
        stay = [*busy, *asked[left:]]
        assert [await one.status() for one in stay] == [200] * len(stay)
        return lane.seen.left

    try:
        assert asyncio.run(use()) <= left
    finally:
        let_go.set()
    assert len(executed) == 2 + all_ - left


def test_one_watch_for_all_tasks_of_a_request_drops_them_all(service, monkeypatch):
    task = service.create("shelf", points(1, 2), ["a", "b"]).id
    executed, let_go, predict = [], threading.Event(), service.predictor.predict

    def slow(requests):
        executed.extend(requests)
        assert let_go.wait(10)
        return predict(requests)

    monkeypatch.setattr(service.predictor, "predict", slow)
    call = caller(service)

    async def use():
        lane = call.app.state.server.batcher.lanes["predict"]
        busy = []
        for threads in (1, 2):
            busy.append(Asking(call, "POST", f"/v1/tasks/{task}/predict", {"inputs": points(3)}))
            while len(executed) < threads:
                await asyncio.sleep(0.001)
        asked = Asking(call, "POST", "/v1/predict", [{"task": task, "inputs": points(3)}] * 50)
        while lane.waiting.count < 50:
            await asyncio.sleep(0.001)
        assert len(asyncio.all_tasks()) < 50 + 20, "a watch for each part"
        asked.left.set()
        assert await asked.status() == 499
        assert lane.waiting.count == 0
        wrong = {"task": task, "inputs": points(3), "version": 9}
        asked = Asking(call, "POST", "/v1/predict", [wrong | {"task": "none"}, *[wrong] * 50])
        assert await asked.status() == 404
        assert lane.waiting.count == 0, "others of a request that has failed go on"
        let_go.set()
        assert [await one.status() for one in busy] == [200, 200]

    try:
        asyncio.run(use())
    finally:
        let_go.set()
    assert len(executed) == 2


def test_a_readaptation_is_dropped_once_all_that_wait_for_it_have_left(service):
    task = service.create("shelf", points(1, 2), ["a", "b"]).id
    call, let_go, ran, readapt = caller(service), threading.Event(), [], service.readapt
    service.readapt = lambda *arguments, **named: ran.append(named["actor"]) or readapt(*arguments, **named)
    service.readapt.__name__ = "readapt"

    async def use():
        batcher = call.app.state.server.batcher
        lane = batcher.lanes["adapt"]
        busy = [
            asyncio.ensure_future(batcher.adapt("t", 1, lambda: let_go.wait(10))) for _ in range(lane._pool.threads)
        ]
        while lane._free:
            await asyncio.sleep(0.001)
        first, second = (Asking(call, "POST", f"/v1/tasks/{task}/readapt", {}) for _ in range(2))
        await waiting(lane, 1)
        [change] = call.app.state.server._shared.values()
        while change.wanted < 2:
            await asyncio.sleep(0.001)
        first.left.set()
        assert await first.status() == 499
        assert lane.waiting.count == 1, "another one waits for it"
        second.left.set()
        assert await second.status() == 499
        await asyncio.sleep(0)
        assert (lane.waiting.count, lane.seen.left) == (0, 1)
        last = Asking(call, "POST", f"/v1/tasks/{task}/readapt", {})
        await waiting(lane, 1)
        let_go.set()
        assert await last.status() == 200
        await asyncio.gather(*busy)

    try:
        asyncio.run(use())
    finally:
        let_go.set()
    assert len(ran) == 1


def test_a_change_that_has_started_is_done_though_its_client_has_left(service, monkeypatch):
    let_go, write, started = threading.Event(), service.store.write, threading.Event()

    def slow(*arguments):
        started.set()
        assert let_go.wait(10)
        return write(*arguments)

    call = caller(service)
    monkeypatch.setattr(service.store, "write", slow)
    examples = [{"input": point, "label": label} for point, label in zip(points(1, 2), "ab", strict=True)]

    async def use():
        asked = Asking(call, "POST", "/v1/tasks", {"name": "shelf", "examples": examples})
        while not started.is_set():
            await asyncio.sleep(0.001)
        asked.left.set()
        assert await asked.status() == 499
        let_go.set()
        await call.app.state.server.close()

    try:
        asyncio.run(use())
    finally:
        let_go.set()
    assert [task.name for task in service.tasks()] == ["shelf"]
