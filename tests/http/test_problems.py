"""One shape for all that goes wrong: every code has its kind, and nothing that was sent is shown."""

import asyncio
import json
import re

import pytest
from apps import Caller, caller
from fastapi import FastAPI
from tests.http.hostile import GOOD, examples, models

from handful.errors import CODES, DataError, UserError
from handful.http.kinds import KINDS
from handful.http.middleware import Around
from handful.http.problems import STATUSES, of_error, pointer
from handful.serving.service import Service
from serving.worlds import classifier, points

SECRET = "MARKER-7f3a"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    with Service({"points": classifier()}, tmp_path_factory.mktemp("store")) as service:
        yield caller(service)


@pytest.fixture(scope="module")
def task(call):
    labeled = [{"input": point, "label": label} for point, label in zip(points(0, 1), "ab", strict=True)]
    return call("POST", "/v1/tasks", json={"name": "shelf", "examples": labeled}).json()["id"]


def test_every_code_is_of_a_kind_and_every_kind_has_a_status_and_a_title():
    assert set(CODES.values()) <= set(KINDS)
    assert set(STATUSES) <= set(CODES)
    for code in CODES:
        answer = of_error(UserError("No.", code=code)).response("req_1")
        assert 400 <= answer.status_code < 600
        content = json.loads(answer.body)
        assert content["status"] == answer.status_code
        assert content["type"] == f"/problems/{CODES[code]}"
        assert content["errors"][0]["code"] == code
        assert content["title"].endswith(".")
        waits = answer.status_code in (429, 503) and CODES[code] != "quota-exceeded"
        assert ("retry-after" in answer.headers) == waits


def test_a_field_is_a_pointer_and_a_hint_names_fields_in_its_way():
    error = DataError("The class {x} is small.", field=("examples", 3, "a/b~c"), hint="Lower {way}.")
    [one] = of_error(error).errors
    assert one == {
        "pointer": "/examples/3/a~1b~0c",
        "code": "invalid-data",
        "detail": "The class {x} is small. Lower /way.",
    }
    assert pointer(()) == ""


def check(answer, status, slug):
    """That an answer is a problem, whole and of this kind."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    content = answer.json()
    assert content["type"] == f"/problems/{slug}"
    assert content["status"] == status
    assert content["instance"] == answer.headers["x-request-id"]
    assert set(content) == {"type", "title", "status", "detail", "instance", "errors"}
    return content


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "slug"),
    [
        ("GET", "/v1/nothing", {}, 404, "not-found"),
        ("GET", "/v1/tasks/", {}, 404, "not-found"),
        ("PUT", "/v1/tasks", {}, 405, "invalid-request"),
        ("GET", "/v1/tasks?limit=x", {}, 422, "invalid-request"),
        ("GET", "/v1/tasks?limit=0", {}, 422, "invalid-request"),
        ("GET", "/v1/tasks", {"key": ""}, 401, "unauthenticated"),
        ("GET", "/v1/tasks", {"key": "hf_no"}, 401, "unauthenticated"),
        (
            "POST",
            "/v1/tasks",
            {"content": b"{", "headers": {"content-type": "application/json"}},
            400,
            "invalid-request",
        ),
        ("POST", "/v1/tasks", {"content": b"a=1"}, 415, "unsupported-media"),
        ("POST", "/v1/tasks", {"json": {"name": SECRET}}, 422, "invalid-request"),
        ("POST", "/v1/tasks", {"json": [SECRET]}, 422, "invalid-request"),
        (
            "POST",
            "/v1/tasks",
            {"json": {"name": 3, "examples": [{"input": SECRET, "label": 1.5}]}},
            422,
            "invalid-request",
        ),
        (
            "POST",
            "/v1/tasks",
            {"json": {"name": "x", "examples": [{"input": [SECRET], "label": "a"}]}},
            422,
            "invalid-request",
        ),
    ],
)
def test_what_cannot_be_done_is_a_problem_that_shows_nothing_of_what_was_sent(call, method, path, more, status, slug):
    answer = call(method, path, **more)
    check(answer, status, slug)
    assert SECRET not in answer.text


@pytest.mark.parametrize("cell", [SECRET, f"12,5 {SECRET}"])
def test_a_wrong_cell_is_pointed_at_and_not_shown(tmp_path, cell):
    wrong = {"size": cell, "color": "red"}
    labeled = [*examples("rows"), {"input": wrong, "label": "a"}]
    with Service({"rows": models()["rows"]}, tmp_path) as service:
        call = caller(service)
        id_ = call("POST", "/v1/tasks", json={"name": "x", "examples": examples("rows")}).json()["id"]
        for path, content, place in (
            ("/v1/tasks", {"name": "y", "examples": labeled}, "/examples/2/input/size"),
            (f"/v1/tasks/{id_}/evaluate", {"examples": labeled}, "/examples/2/input/size"),
            (f"/v1/tasks/{id_}/predict", {"inputs": [GOOD["rows"][0][0], wrong]}, "/inputs/1/size"),
        ):
            answer = call("POST", path, json=content)
            [error] = check(answer, 422, "invalid-request")["errors"]
            assert error["pointer"] == place
            assert "the cell is not a finite number" in error["detail"]
            assert SECRET not in answer.text


def test_a_problem_names_each_field_that_is_wrong(call):
    answer = call("POST", "/v1/tasks", json={"name": 3, "examples": [{"input": 1, "label": 1.5}], "more": 1})
    errors = check(answer, 422, "invalid-request")["errors"]
    assert [one["pointer"] for one in errors] == ["/name", "/examples/0/label", "/more"]
    assert all(one["detail"].endswith(".") for one in errors)


@pytest.mark.parametrize(
    ("path", "content", "status", "pointer"),
    [
        ("/v1/tasks", {"name": "x", "examples": [0] * 1999}, 422, "/examples/0"),
        ("/v1/tasks", {"name": "x", "examples": [0] * 2001}, 413, "/examples"),
        ("/v1/tasks", {"name": "x", "examples": [{"input": 1, "label": "a"}] * 2001}, 413, "/examples"),
        ("/v1/tasks", {f"field {n}": 0 for n in range(9999)}, 422, ""),
        ("/v1/tasks", {"name": "x", "examples": [{f"field {n}": 0 for n in range(9999)}] * 9}, 422, "/examples/0"),
        (
            "/v1/tasks",
            {"name": "x", "examples": [{"input": 1, "value": {str(n): "" for n in range(10_001)}}] * 9},
            422,
            "/examples/0/value",
        ),
        ("/v1/tasks/{task}/evaluate", {"examples": [0] * 1999}, 422, "/examples/0"),
        ("/v1/predict", [0] * 999, 422, "/0"),
    ],
    ids=lambda value: "",
)
def test_of_many_things_that_are_wrong_few_are_looked_at(call, task, path, content, status, pointer):
    answer = call("POST", path.format(task=task), json=content)
    assert answer.status_code == status, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    more = re.search(r" And (\d+) more", answer.json()["detail"])
    assert more is None or int(more[1]) < 10


def test_an_error_of_the_service_names_the_example(call):
    labeled = [{"input": point, "label": label} for point, label in zip(points(0, 0), "ab", strict=True)]
    answer = call("POST", "/v1/tasks", json={"name": "both", "examples": labeled})
    [error] = check(answer, 422, "contradictory-labels")["errors"]
    assert (error["pointer"], error["code"]) == ("/examples/1/label", "contradictory-labels")


def test_an_unexpected_error_is_told_to_the_log_alone(caplog):
    app = FastAPI()

    @app.get("/broken")
    async def broken():
        raise RuntimeError(SECRET)

    app.add_middleware(Around, count=lambda *_: None)
    answer = Caller(app, "none")("GET", "/broken")
    check(answer, 500, "outcome-unknown")
    assert SECRET not in answer.text
    assert SECRET in caplog.text
    assert answer.json()["instance"] in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "slug"),
    [
        ("GET", "/v1/tasks", 503, "not-ready"),
        ("POST", "/v1/predict", 503, "not-ready"),
        ("POST", "/v1/tasks", 503, "outcome-unknown"),
    ],
)
def test_a_change_that_the_end_of_the_server_cuts_off_may_have_been_made(method, path, status, slug):
    app = FastAPI()

    @app.api_route(path, methods=[method])
    async def cut_off():
        raise asyncio.CancelledError

    app.add_middleware(Around, count=lambda *_: None)
    check(Caller(app, "none")(method, path), status, slug)


@pytest.mark.parametrize("query", ["api_key=1", "access_token=x", "q=hf_abc", "Key=", "%6bey=3"])
@pytest.mark.parametrize("path", ["/v1/tasks", "/livez", "/nowhere"])
def test_a_key_in_an_address_is_refused_and_in_no_log(call, path, query, caplog):
    caplog.set_level("INFO", "handful.http")
    answer = call("GET", f"{path}?{query}")
    check(answer, 401, "unauthenticated")
    assert "hf_abc" not in caplog.text
    assert "hf_abc" not in answer.text


def test_the_id_of_a_request_is_the_callers_where_it_is_one(call):
    assert call("GET", "/livez", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for bad in ("x" * 65, "a b", "é".encode()):
        assert call("GET", "/livez", headers={"X-Request-Id": bad}).headers["x-request-id"].startswith("req_")


def test_the_trace_of_a_request_is_passed_on(call):
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    assert call("GET", "/livez", headers={"traceparent": trace}).headers["traceparent"] == trace
    assert "traceparent" not in call("GET", "/livez", headers={"traceparent": "x"}).headers
