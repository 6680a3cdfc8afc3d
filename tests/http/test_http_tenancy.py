"""No tenant finds anything of another one: every route that there is, with the ids of others."""

import re

import pytest
from apps import Caller

from handful.http.app import make_app
from handful.serving.service import Service
from serving.worlds import classifier, points

CONTENTS = {
    "examples": {"examples": [{"input": points(9)[0], "label": "plum"}]},
    "corrections": {"examples": [{"input": points(9)[0], "label": "plum"}]},
    "rollback": {"version": 1},
    "predict": {"inputs": points(1)},
    "rotate": {},
    "{task}": {"name": "mine"},
    "pin": {},
    "readapt": {},
    "evaluate": {},
}
"""What routes take, by the last part of their paths."""
FOREIGN = "a name of the others"
EXAMPLES = [{"input": points(n)[0], "label": label} for n, label in enumerate("ab")]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The calls of one tenant, the service, and what another tenant has, by the names of parameters in paths."""
    with Service({"points": classifier()}, tmp_path_factory.mktemp("store")) as service:
        for tenant in ("ours", "others"):
            service.tenants.create(tenant)
        task = service.create(FOREIGN, points(0, 1), ["apple", "pear"], tenant="others")
        [example, _] = service.examples(task.id, tenant="others")
        theirs = service.keys.create("others", "write", "theirs")
        token = service.keys.create("ours", "admin", "ours").token
        names = {"task": task.id, "example": example.id, "key": theirs.key.id, "version": "1"}
        app = make_app(service)
        yield Caller(app, token), service, app, names


def operations(app):
    """Method and path of each route."""
    return [(method.upper(), path) for path, found in app.openapi()["paths"].items() for method in found]


def send(call, method, path, names):
    content = CONTENTS.get(path.split("/")[-1])
    more = {"json": content} if method in ("POST", "PATCH") and content is not None else {}
    return call(method, path.format(**names), headers={"If-Match": "*"}, **more)


def test_foreign_ids_are_not_found_on_any_route(world):
    call, service, app, names = world
    tried = [(method, path) for method, path in operations(app) if "{" in path]
    assert len(tried) >= 12
    for method, path in tried:
        assert set(re.findall(r"{(\w+)}", path)) <= set(names), f"what is the parameter of {path}?"
        for query in ("", "?erase=true") if method == "DELETE" and "key" not in path else ("",):
            answer = send(call, method, path + query, names)
            assert answer.status_code == 404, (method, path, answer.text)
            unknown = {name: value if name == "version" else value[:-4] + "0000" for name, value in names.items()}
            missing = send(call, method, path + query, unknown)
            assert _without_ids(missing, unknown) == _without_ids(answer, names), "one that exists shows"
    several = call("POST", "/v1/predict", json=[{"task": names["task"], "inputs": points(1)}])
    assert several.status_code == 404
    assert service.get(names["task"], tenant="others").head.number == 1
    assert len(service.keys.list("others")) == 1


def _without_ids(answer, names):
    text = answer.text.replace(answer.headers["x-request-id"], "")
    for value in names.values():
        text = text.replace(value, "")
    return answer.status_code, text


def test_lists_show_nothing_of_others(world):
    call, _, app, names = world
    lists = [path for method, path in operations(app) if method == "GET" and "{" not in path and path.startswith("/v1")]
    assert lists
    for path in lists:
        answer = call("GET", path)
        assert answer.status_code in (200, 403), (path, answer.text)
        for secret in (FOREIGN, *(value for name, value in names.items() if name != "version")):
            assert secret not in answer.text, path


def test_every_route_needs_a_key_of_its_scope(world):
    _, service, app, names = world
    weak = Caller(app, service.keys.create("ours", "predict", "weak").token)
    for method, path in operations(app):
        if not path.startswith("/v1"):
            continue
        assert send(Caller(app, "hf_none"), method, path, names).status_code == 401, (method, path)
        looks = method == "GET" or path.endswith(("/predict", "/evaluate"))
        if not looks or "keys" in path or "tenants" in path:
            assert send(weak, method, path, names).status_code == 403, (method, path)


def test_a_name_of_others_is_free(world):
    call, *_ = world
    assert call("POST", "/v1/tasks", json={"name": FOREIGN, "examples": EXAMPLES}).status_code == 201


def test_an_operator_manages_tenants_and_keys_of_all(world):
    _, service, app, _ = world
    call = Caller(app, service.keys.first_admin(None).token)
    assert call("POST", "/v1/tenants", json={"name": "third"}).status_code == 201
    assert call("POST", "/v1/tenants", json={"name": "third"}).status_code == 409
    assert "third" in [one["name"] for one in call("GET", "/v1/tenants").json()["data"]]
    made = call("POST", "/v1/keys", json={"name": "k", "scope": "write", "tenant": "third"})
    assert made.status_code == 201
    theirs = Caller(app, made.json()["token"])
    assert theirs("GET", "/v1/tasks").json()["data"] == []
    place = f"/v1/keys/{made.json()['id']}"
    new = call("POST", f"{place}/rotate", params={"tenant": "third"}, json={"overlap_seconds": 0}).json()
    assert theirs("GET", "/v1/tasks").status_code == 401
    assert Caller(app, new["token"])("GET", "/v1/tasks").status_code == 200
    assert call("DELETE", f"/v1/keys/{new['id']}", params={"tenant": "third"}).status_code == 204
    assert Caller(app, new["token"])("GET", "/v1/tasks").status_code == 401
    shown = call("GET", "/v1/keys", params={"tenant": "third"}).json()["data"]
    assert len(shown) == 2
    assert all("token" not in one for one in shown)


def test_a_request_for_a_key_or_tenant_that_is_sent_again_makes_no_other(world):
    _, service, app, _ = world
    call = Caller(app, service.keys.create("default", "admin", "of a test").token)

    def twice(path, content, once="k"):
        return [call("POST", path, json=content, headers={"Idempotency-Key": once}) for _ in range(2)]

    first, again = twice("/v1/tenants", {"name": "fourth"}, "of the fourth")
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    first, again = (one.json() for one in twice("/v1/keys", {"name": "k", "scope": "write"}))
    assert Caller(app, first["token"])("GET", "/v1/tasks").status_code == 200
    assert [note["code"] for note in again["notes"]] == ["token-not-shown"]
    assert again | {"token": first["token"], "notes": []} == first
    answers = twice(f"/v1/keys/{first['id']}/rotate", {})
    assert [one.status_code for one in answers] == [422, 422], "the idempotency key of another request"


def test_the_idempotency_keys_of_an_operator_are_none_of_the_tenants_own(world):
    _, service, app, _ = world
    operator = Caller(app, service.keys.create("default", "admin", "of a test").token)
    once = {"Idempotency-Key": "of the fifth"}
    assert operator("POST", "/v1/tenants", json={"name": "fifth"}, headers=once).status_code == 201
    content = {"name": "first", "scope": "admin", "tenant": "fifth"}
    token = operator("POST", "/v1/keys", json=content, headers={"Idempotency-Key": "k2"}).json()["token"]
    again = operator("POST", "/v1/keys", json=content, headers={"Idempotency-Key": "k2"})
    assert (again.status_code, again.json()["token"]) == (201, None)
    assert operator("POST", "/v1/keys", json=content, headers=once).status_code == 422, "of another request"
    theirs = Caller(app, token)
    assert theirs("POST", "/v1/tasks", json={"name": "x", "examples": EXAMPLES}, headers=once).status_code == 201
    own = theirs("POST", "/v1/keys", json=content, headers={"Idempotency-Key": "k2"})
    assert own.json()["token"] is not None


def test_an_idempotency_key_of_an_operator_is_for_one_tenant(world):
    _, service, app, _ = world
    made = service.keys.create("default", "admin", "of a test")
    operator = Caller(app, made.token)

    def ask(path, content, once, **how):
        return operator("POST", path, json=content, headers={"Idempotency-Key": once}, **how)

    first = {"name": "k", "scope": "write", "tenant": "ours"}
    assert ask("/v1/keys", first, "one").status_code == 201
    assert ask("/v1/tenants", {"name": "sixth"}, "two").status_code == 201
    own = ask("/v1/keys", {"name": "k", "scope": "write"}, "three").json()["id"]
    before = [service.keys.list(name) for name in ("ours", "others", "default")]
    refused = [
        ask("/v1/keys", first | {"tenant": "others"}, "one"),
        ask("/v1/keys", {"name": "k", "scope": "write"}, "one"),
        ask("/v1/tenants", {"name": "seventh"}, "two"),
        ask("/v1/keys", first | {"tenant": "sixth"}, "two"),
        ask(f"/v1/keys/{own}/rotate", {}, "three", params={"tenant": "ours"}),
        ask("/v1/tasks", {"name": "x", "examples": EXAMPLES}, "one"),
    ]
    assert {(one.status_code, one.json()["type"]) for one in refused} == {(422, "/problems/idempotency-mismatch")}
    assert [service.keys.list(name) for name in ("ours", "others", "default")] == before
    assert "seventh" not in [one.name for one in service.tenants.list()]
