"""Plain predictions past the framework: the same answers as by its route, which takes all that is not plain."""

import asyncio
import json

import pytest
from apps import Caller

from handful.http import short_way
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
    shown = short_way._shown
    monkeypatch.setattr(short_way, "_shown", lambda made: taken.append(made) or shown(made))

    def ask(content, task="classes", path="/v1/tasks/{}/predict", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        path = path.format(tasks.get(task, task))
        taken.clear()
        first = caller("POST", path, headers=head, content=body)
        short = bool(taken)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(short_way.ShortWay, "_plain", lambda self, scope: None)
            second = caller("POST", path, headers=head, content=body)
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
    assert short == ("top" not in content or content["top"] is not None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"null",
        b'{"inputs": [[1, 2, 3]], "inputs": [[0, 0, 0]]}',
        b'{"inputs": [[1, 2, 1e999]]}',
        b'{"inputs": [[1, 2, NaN]]}',
        {"inputs": []},
        {"inputs": [[]]},
        {"inputs": [[1e39, 0, 0]]},
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


def test_a_request_whose_content_trickles_takes_no_turn(world):
    caller, tasks = world
    body = json.dumps({"inputs": points(3)}).encode()
    head = {"authorization": f"Bearer {caller.key}", "content-type": "application/json", "content-length": len(body)}
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/v1/tasks/{tasks['classes']}/predict",
        "query_string": b"",
        "headers": [(name.encode(), str(value).encode()) for name, value in head.items()],
    }
    turns, sent = caller.app.state.server.turns, []

    async def scenario():
        rest = asyncio.Event()

        async def content():
            yield {"type": "http.request", "body": body[:9], "more_body": True}
            await rest.wait()
            yield {"type": "http.request", "body": body[9:]}
            await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        answered = asyncio.ensure_future(caller.app(scope, content().__anext__, send))
        await asyncio.sleep(0.05)
        assert not turns._tenants
        taken = turns.seen.taken
        rest.set()
        await asyncio.wait_for(answered, 5)
        assert turns.seen.taken == taken + 1

    asyncio.run(scenario())
    assert sent[0]["status"] == 200
