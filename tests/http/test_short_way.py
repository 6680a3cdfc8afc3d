"""Plain predictions past the framework: the same answers as by its route, which takes all that is not plain."""

import asyncio
import contextlib
import gc
import json
import logging
import threading
import weakref

import pytest
from apps import Caller, wired, written

from handful.errors import OverloadedError
from handful.http import connections, short_way
from handful.http.app import make_app
from handful.serving.service import Service
from serving.worlds import classifier, points, regressor

CLASSES, VALUES = ["apple", "pear", "apple"], [1.0, 2.0, 4.0]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    models = {"classes": classifier(), "values": regressor()}
    with Service(models, tmp_path_factory.mktemp("store")) as service:
        tasks = {
            "classes": service.create("classes", points(0, 1, 2), CLASSES, model="classes").id,
            "values": service.create("values", points(0, 1, 2), VALUES, model="values").id,
        }
        caller = Caller(make_app(service), service.keys.first_admin(None).token)
        caller("GET", "/v1/tasks")  # the key is known from then on
        yield caller, tasks


@pytest.fixture
def ways(world, monkeypatch):
    """Answers by the short way and by the route to the same request, and whether the first one was short."""
    caller, tasks = world
    taken = []
    shown = short_way.of_one
    monkeypatch.setattr(short_way, "of_one", lambda made: taken.append(made) or shown(made))

    def ask(content, task="classes", path="/v1/tasks/{}/predict", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = {name.replace("_", "-"): value for name, value in headers.items()}
        request = written(caller, path.format(tasks.get(task, task)), body, **head)

        async def answered():
            with wired(caller.app) as wire:
                wire.receive(request)
                return await wire.answer()

        taken.clear()
        first = asyncio.run(answered())
        short = bool(taken)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(short_way.Head, "of", lambda scope, limits: None)
            second = asyncio.run(answered())
        return first, second, short

    return ask


def same(first, second):
    one, other = first.json(), second.json()
    for answer in (one, other):
        answer.pop("instance", None)
    numbered = {"x-request-id", "content-length"}
    heads = [{name: value for name, value in each.headers.items() if name not in numbered} for each in (first, second)]
    return (first.status_code, one, heads[0]) == (second.status_code, other, heads[1])


@pytest.mark.parametrize("task", ["classes", "values"])
@pytest.mark.parametrize(
    "content",
    [
        {"inputs": points(3)},
        {"inputs": points(3, 4, 5), "version": 1},
        {"inputs": points(3), "top": 1},
        {"inputs": [[1, 2, 3]], "top": None},
        {"inputs": [[1, 2.5, -0.0], [0, 0, 0]]},
        {"inputs": [[2**63, 0, 1]]},
    ],
)
def test_plain_predictions_are_answered_alike(ways, task, content):
    first, second, short = ways(content, task)
    assert first.status_code == 200
    assert same(first, second)
    assert short == ("version" not in content and content.get("top", 1) is not None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"null",
        b'{"inputs": [[1, 2, 3]], "inputs": [[0, 0, 0]]}',
        b'\xef\xbb\xbf{"inputs": [[1, 2, 3]]}',
        b'{"inputs": [[1, 2, 3]]}{}',
        b'{"inputs": 3}',
        b'{"inputs": [1, 2, 3]}',
        b'{"inputs": [[1, [2, 3]]]}',
        b'{"inputs": [[1, 2, 3]], "top": 1.0}',
        b'{"inputs": [[1, 2, 3]], "top": true}',
        b'{"top": 1}',
        b"[[1, 2, 3]]",
        b'{"inputs": [[1, 2, 1e999]]}',
        b'{"inputs": [[1, 2, NaN]]}',
        {"inputs": []},
        {"inputs": [[]]},
        {"inputs": [[1e39, 0, 0]]},
        {"inputs": [[1e300, 0, 0]]},
        {"inputs": [[9e29, 9e29, 0]]},
        {"inputs": [[1, 2], [1, 2, 3]]},
        {"inputs": [[2**2000, 0, 0]]},
        {"inputs": [[1, 2, "3"]]},
        {"inputs": [[1, 2, True]]},
        {"inputs": [[1, 2, None]]},
        {"inputs": [[[1, 2, 3]]]},
        {"inputs": ["text"]},
        {"inputs": [{"column": 1}]},
        {"inputs": points(3), "top": 0},
        {"inputs": points(3), "version": "1"},
        {"inputs": points(3), "more": 1},
        {"inputs": points(3), "version": 2**31},
        {"inputs": [[1, 2, 3]] * (short_way.ROWS + 1)},
    ],
)
def test_what_is_not_plain_takes_the_route(ways, content):
    first, second, short = ways(content)
    assert not short
    assert same(first, second)


@pytest.mark.parametrize(
    "content", [{"inputs": [[1, 2]]}, {"inputs": points(3), "version": 9}, {"inputs": [[1, 2, 3], [1, 2]]}]
)
def test_problems_with_a_plain_prediction_are_told_alike(ways, content):
    first, second, _ = ways(content)
    assert first.status_code in (404, 422)
    assert same(first, second)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/tasks/task_" + "0" * 32 + "/predict", {}),
        ("/v1/tasks/other/predict", {}),
        ("/v1/tasks/{}/predict?key=1", {}),
        ("/v1/tasks/{}/predict", {"x_request_timeout_ms": "0"}),
        ("/v1/tasks/{}/predict", {"x_request_timeout_ms": "61000"}),
        ("/v1/tasks/{}/predict", {"x_request_timeout_ms": "1e3"}),
        ("/v1/tasks/{}/predict", {"content_type": "text/plain"}),
        ("/v1/tasks/{}/predict", {"authorization": "Bearer hf_none"}),
        ("/v1/tasks/{}/predict", {"authorization": "Basic x"}),
    ],
)
def test_heads_with_problems_are_told_alike(ways, path, headers):
    first, second, short = ways({"inputs": points(3)}, path=path, **headers)
    assert first.status_code >= 400
    assert not short
    assert same(first, second)


def test_a_deadline_is_kept(ways):
    first, second, short = ways({"inputs": points(3)}, x_request_timeout_ms="60000")
    assert short
    assert same(first, second)


def test_a_revoked_key_is_refused_at_once(world, ways):
    caller, _ = world
    made = caller("POST", "/v1/keys", json={"name": "short", "scope": "predict"}).json()
    token = made["token"]
    assert ways({"inputs": points(3)}, authorization=f"Bearer {token}")[0].status_code == 200
    assert ways({"inputs": points(3)}, authorization=f"Bearer {token}")[2]
    caller("DELETE", f"/v1/keys/{made['id']}")
    assert ways({"inputs": points(3)}, authorization=f"Bearer {token}")[0].status_code == 401


def in_a_loop(world, scenario, task="classes"):
    """Run `scenario(wire, request, caller)`, which has a connection and a plain request."""
    caller, tasks = world

    async def run():
        with wired(caller.app) as wire:
            await scenario(wire, path_request(caller, tasks[task]), caller)

    asyncio.run(run())


def path_request(caller, task, content=None, **headers):
    body = json.dumps({"inputs": points(3)} if content is None else content).encode()
    return written(caller, f"/v1/tasks/{task}/predict", body, **headers)


def test_a_request_whose_content_trickles_waits_with_none(world):
    async def scenario(wire, request, caller):
        lane = caller.app.state.server.batcher.lanes["predict"]
        taken = lane.seen.taken
        wire.receive(request[:-9])
        await asyncio.sleep(0.02)
        assert lane.seen.taken == taken
        wire.receive(request[-9:])
        assert (await wire.answer()).status_code == 200
        assert lane.seen.taken == taken + 1

    in_a_loop(world, scenario)


def test_content_that_does_not_come_in_time_has_one_answer_and_one_line(world, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "handful.http")
    monkeypatch.setattr(connections, "BODY", 0.02)

    async def scenario(wire, request, caller):
        wire.receive(request[:-9])
        answer = await wire.answer()
        assert (answer.status_code, answer.json()["type"], wire.closing) == (408, "/problems/deadline-exceeded", True)

    in_a_loop(world, scenario)
    lines = [json.loads(one.message) for one in caplog.records if one.name == "handful.http"]
    assert [(one["status"], one["route"]) for one in lines] == [(408, "/v1/tasks/{task}/predict")]


def test_requests_that_come_together_are_answered_in_their_order(world):
    _, tasks = world

    async def scenario(wire, request, caller):
        other = path_request(caller, tasks["classes"], {"inputs": points(3, 4)})
        wrong = path_request(caller, tasks["classes"], {"inputs": [["x"]]})
        wire.receive(request + other + wrong + b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" + request)
        answers = [await wire.answer() for _ in range(5)]
        assert [one.status_code for one in answers] == [200, 200, 422, 200, 200]
        assert [len(answers[place].json()["predictions"]) for place in (0, 1, 4)] == [1, 2, 1]

    in_a_loop(world, scenario)


def test_who_wants_the_connection_closed_gets_that_after_the_answer(world):
    async def scenario(wire, request, caller):
        wire.receive(request.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
        answer = await wire.answer()
        assert (answer.status_code, answer.headers["connection"], wire.closing) == (200, "close", True)

    in_a_loop(world, scenario)


@pytest.fixture
def busy(world, monkeypatch):
    """Who predicts, a thread since the event loop expects to wait, waits until this event is set."""
    caller, _ = world
    lane, go = caller.app.state.server.batcher.lanes["predict"], threading.Event()
    work = lane._work
    monkeypatch.setattr(lane, "_work", lambda batch: go.wait(10) and work(batch))
    monkeypatch.setattr(lane, "_brief", None)
    yield go
    go.set()


async def counted(lane, name, count):
    while getattr(lane.seen, name) < count:
        await asyncio.sleep(0.001)


def test_a_request_is_not_predicted_once_its_client_has_left(world, busy, caplog):
    caplog.set_level(logging.INFO, "handful.http")

    async def scenario(wire, request, caller):
        lane = caller.app.state.server.batcher.lanes["predict"]
        before, rows = lane.seen.left, lane.seen.rows
        with contextlib.ExitStack() as stack:
            others = [stack.enter_context(wired(caller.app)) for _ in range(3)]
            for one in others:  # one batch for each thread
                one.receive(request)
                await asyncio.sleep(0.01)
            wire.receive(request)
            wire.close()
            assert lane.seen.left == before + 1
            busy.set()
            assert [(await one.answer()).status_code for one in others] == [200] * 3
        assert lane.seen.rows == rows + 3

    in_a_loop(world, scenario)
    statuses = [json.loads(one.message)["status"] for one in caplog.records if one.name == "handful.http"]
    assert sorted(statuses) == [200, 200, 200, 499]


def test_a_deadline_that_passes_is_told_as_on_the_route(world, busy):
    _, tasks = world

    async def scenario(wire, request, caller):
        wire.receive(path_request(caller, tasks["classes"], **{"x-request-timeout-ms": "20"}))
        answer = await wire.answer()
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/deadline-exceeded")
        assert answer.headers["retry-after"] == "1"
        wire.receive(path_request(caller, tasks["classes"]))
        busy.set()
        assert (await wire.answer()).status_code == 200

    in_a_loop(world, scenario)


def test_the_end_of_the_server_is_told(world, busy):
    async def scenario(wire, request, caller):
        wire.receive(request)
        wire.connection.end()
        answer = await wire.answer()
        assert (answer.status_code, answer.json()["type"], wire.closing) == (503, "/problems/not-ready", True)

    in_a_loop(world, scenario)


def test_an_error_that_nobody_thought_of_is_told_as_such(world, monkeypatch, caplog):
    def broken(made):
        raise RuntimeError("broken")

    caller, _ = world
    monkeypatch.setattr(caller.app.state.server.batcher.lanes["predict"], "_work", broken)

    async def scenario(wire, request, caller):
        wire.receive(request)
        answer = await wire.answer()
        assert (answer.status_code, answer.json()["type"]) == (500, "/problems/outcome-unknown")
        assert "broken" not in answer.text

    in_a_loop(world, scenario)
    assert any(one.exc_info and "broken" in str(one.exc_info[1]) for one in caplog.records)


def test_a_prediction_that_cannot_be_written_is_told_as_an_error(world, monkeypatch, caplog):
    def broken(made):
        raise ValueError("broken")

    monkeypatch.setattr(short_way, "of_one", broken)

    async def scenario(wire, request, caller):
        wire.receive(request)
        answer = await wire.answer()
        assert (answer.status_code, answer.json()["type"]) == (500, "/problems/outcome-unknown")

    in_a_loop(world, scenario)
    assert any(one.exc_info and "broken" in str(one.exc_info[1]) for one in caplog.records)


def test_a_request_that_is_over_is_freed_without_the_garbage_collector(world, monkeypatch):
    made = []

    class Watched(short_way.PlainRequest):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(weakref.ref(self))

    monkeypatch.setattr(short_way, "PlainRequest", Watched)

    async def scenario(wire, request, caller):
        for _ in range(3):
            wire.receive(request)
            assert (await wire.answer()).status_code == 200
        assert [one() is None for one in made] == [True, True, False], "the connection holds the last one"

    gc.disable()
    try:
        in_a_loop(world, scenario)
    finally:
        gc.enable()


def test_a_key_that_was_read_long_ago_is_looked_up_again(world, monkeypatch):
    caller, _ = world
    monkeypatch.setattr(caller.app.state.server.service.keys, "held", lambda token: None)

    async def scenario(wire, request, caller):
        wire.receive(request)
        assert (await wire.answer()).status_code == 200

    in_a_loop(world, scenario)


def test_who_is_refused_is_not_read_on_for_a_while_where_many_are(world, monkeypatch):
    monkeypatch.setattr(short_way, "REFUSALS", 20)
    monkeypatch.setattr(short_way, "BURST", 1)

    def refuse(*given, **named):
        raise OverloadedError("Nothing was done: too many wait.", retry_after=3)

    async def scenario(wire, request, caller):
        monkeypatch.setattr(caller.app.state.server.batcher, "enter", refuse)
        for paused in (False, True):
            wire.receive(request)
            answer = await wire.answer()
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
            assert wire.connection.flow.read_paused == paused
        await asyncio.sleep(0.09)
        assert not wire.connection.flow.read_paused
        wire.receive(request)
        wire.close()
        await asyncio.sleep(0.09)  # it is not read on then

    in_a_loop(world, scenario)


def test_nothing_is_begun_while_its_client_does_not_read_on_in_the_answers(world):
    async def scenario(wire, request, caller):
        lane = caller.app.state.server.batcher.lanes["predict"]
        taken = lane.seen.taken
        wire.connection.pause_writing()
        wire.receive(request + b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" + request)
        await asyncio.sleep(0.02)
        assert (lane.seen.taken, wire.sent) == (taken, b"")
        wire.connection.resume_writing()
        assert [(await wire.answer()).status_code for _ in range(3)] == [200, 200, 200]

    in_a_loop(world, scenario)


def test_what_is_held_back_is_not_begun_once_its_client_has_left(world):
    async def scenario(wire, request, caller):
        lane = caller.app.state.server.batcher.lanes["predict"]
        taken = lane.seen.taken
        wire.connection.pause_writing()
        wire.receive(request)
        wire.close()
        await asyncio.sleep(0.02)
        assert lane.seen.taken == taken

    in_a_loop(world, scenario)


def test_nothing_more_is_read_while_requests_wait_for_earlier_ones(world):
    async def scenario(wire, request, caller):
        read_on = []
        wire.resume_reading = lambda: read_on.append(len(wire.connection.pipeline))
        wire.receive(request + b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" + request + request[:-9])
        assert wire.connection.flow.read_paused
        assert [(await wire.answer()).status_code for _ in range(3)] == [200, 200, 200]
        assert read_on == [0]
        wire.receive(request[-9:])
        assert (await wire.answer()).status_code == 200

    in_a_loop(world, scenario)
