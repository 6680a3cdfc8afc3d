"""Routes of tasks: what is sent, what comes back, and what goes wrong."""

import json

import pytest
from apps import caller

from handful.serving.service import Service
from serving.worlds import classifier, points


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    with Service({"points": classifier()}, tmp_path_factory.mktemp("store")) as service:
        yield caller(service)


def examples(*labels):
    return [{"input": point, "label": label} for point, label in zip(points(*range(len(labels))), labels, strict=True)]


def created(call, name, *labels):
    answer = call("POST", "/v1/tasks", json={"name": name, "examples": examples(*labels or ("apple", "pear"))})
    assert answer.status_code == 201, answer.text
    return answer


def test_a_task_is_created_found_and_predicts(call):
    answer = created(call, "shelf 12", "apple", "pear", "apple")
    task = answer.json()
    assert task["labels"] == ["apple", "pear"]
    assert (task["version"], task["examples"], task["model"]["name"]) == (1, 3, "points")
    assert answer.headers["location"] == f"/v1/tasks/{task['id']}"
    assert answer.headers["etag"] == '"1"'
    assert call("GET", answer.headers["location"]).json() == task
    made = call("POST", f"/v1/tasks/{task['id']}/predict", json={"inputs": points(1), "top": 1}).json()
    assert made["task"] == task["id"]
    [one] = made["predictions"]
    assert one["label"] == "pear"
    assert list(one["probabilities"]) == ["pear"]


def test_tasks_are_listed_page_by_page(call):
    names = [f"page {number}" for number in range(3)]
    for name in names:
        created(call, name)
    seen, after = [], ""
    while True:
        page = call("GET", "/v1/tasks", params={"limit": 2, "after": after}).json()
        assert len(page["data"]) <= 2
        seen += [task["name"] for task in page["data"]]
        if not page["has_more"]:
            assert page["next_after"] is None
            break
        after = page["next_after"]
    assert [name for name in seen if name in names] == names


def test_a_request_with_a_key_is_carried_out_once(call):
    content = {"name": "once", "examples": examples("a", "b")}
    first, second = (call("POST", "/v1/tasks", json=content, headers={"Idempotency-Key": "k1"}) for _ in range(2))
    assert first.json() == second.json()
    other = call("POST", "/v1/tasks", json=content | {"name": "twice"}, headers={"Idempotency-Key": "k1"})
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-mismatch")


def test_a_task_is_added_to_corrected_rolled_back_and_listed(call):
    task = created(call, "life", "apple", "pear").json()["id"]
    [third, fourth] = points(10, 11)
    place = f"/v1/tasks/{task}"
    more = call("POST", f"{place}/examples", json={"examples": [{"input": third, "label": "plum"}]})
    assert (more.json()["labels"], more.headers["etag"]) == (["apple", "pear", "plum"], '"2"')
    fixed = call("POST", f"{place}/corrections", json={"examples": [{"input": third, "label": "fig"}]})
    assert fixed.json()["labels"] == ["apple", "fig", "pear"]
    shown = call("GET", f"{place}/examples").json()
    assert {tuple(one["input"]): one["label"] for one in shown["data"]}[tuple(third)] == "fig"
    first = call("GET", f"{place}/examples", params={"limit": 2}).json()
    assert first["has_more"]
    rest = call("GET", f"{place}/examples", params={"limit": 2, "after": first["next_after"]}).json()
    assert [*first["data"], *rest["data"]] == shown["data"]
    removed = call("DELETE", f"{place}/examples/{first['data'][0]['id']}")
    assert (removed.json()["version"], removed.json()["examples"]) == (4, 2)
    back = call("POST", f"{place}/rollback", json={"version": 1}, headers={"If-Match": '"4"'})
    assert (back.json()["version"], back.headers["etag"]) == (1, '"1"')
    versions = call("GET", f"{place}/versions", params={"limit": 3}).json()
    assert [one["change"] for one in versions["data"]] == ["created", "added", "corrected"]
    assert versions["next_after"] == 3
    assert call("GET", f"{place}/versions/4").json()["change"] == "removed"
    assert call("GET", f"{place}/versions/5").status_code == 404
    assert fourth


def test_a_task_is_deleted_restored_and_erased(call):
    task = created(call, "gone").json()["id"]
    place = f"/v1/tasks/{task}"
    assert call("DELETE", place).status_code == 428
    assert call("DELETE", place, headers={"If-Match": '"2"'}).status_code == 412
    assert call("DELETE", place, headers={"If-Match": 'W/"1"'}).status_code == 204
    assert call("GET", place).status_code == 404
    [found] = call("GET", "/v1/tasks", params={"deleted": "true"}).json()["data"]
    assert (found["id"], found["deleted_at"] is None) == (task, False)
    assert task not in call("GET", "/v1/tasks").text
    assert call("POST", f"{place}/restore").json()["id"] == task
    [example, *_] = call("GET", f"{place}/examples").json()["data"]
    again = call("POST", f"{place}/examples", json={"examples": [{"input": points(20)[0], "label": "apple"}]})
    assert again.status_code == 200
    receipt = call("DELETE", f"{place}/examples/{example['id']}", params={"erase": "true"}).json()
    assert (receipt["examples"], receipt["version"]) == ([example["id"]], 3)
    tombstone = call("GET", f"{place}/versions/1").json()
    assert tombstone["erased_at"].endswith("Z")
    assert tombstone["digest"] is None
    whole = call("DELETE", place, params={"erase": "true"}, headers={"If-Match": "*"}).json()
    assert whole["version"] is None
    assert call("POST", f"{place}/restore").status_code == 404


def test_what_changed_since_it_was_seen_is_not_erased(call):
    task = created(call, "seen", "apple", "pear", "apple", "pear").json()["id"]
    place, erase, seen = f"/v1/tasks/{task}", {"erase": "true"}, {"If-Match": '"1"'}
    [example, other, *_] = call("GET", f"{place}/examples").json()["data"]
    receipts = [call("DELETE", f"{place}/examples/{example['id']}", params=erase, headers=seen) for _ in range(2)]
    assert [one.json() for one in receipts] == [receipts[0].json() | {"version": 2}] * 2
    for path in (f"{place}/examples/{other['id']}", place):
        assert call("DELETE", path, params=erase, headers=seen).json()["type"] == "/problems/version-conflict"
    assert call("GET", place).json()["version"] == 2
    receipts = [call("DELETE", place, params=erase, headers={"If-Match": '"2"'}) for _ in range(2)]
    assert [one.json() for one in receipts] == [receipts[0].json() | {"version": None}] * 2


def test_a_task_moves_as_a_file(call):
    task = created(call, "travels").json()
    file = call("GET", f"/v1/tasks/{task['id']}/export")
    assert file.headers["content-type"] == "application/octet-stream"
    copy = call("POST", "/v1/tasks/import", params={"name": "arrived"}, content=file.content)
    assert (copy.status_code, copy.json()["labels"]) == (201, task["labels"])
    damaged = call("POST", "/v1/tasks/import", params={"name": "broken"}, content=file.content[:-9])
    assert (damaged.status_code, damaged.json()["type"]) == (422, "/problems/invalid-request")


def test_several_tasks_predict_in_one_request(call):
    tasks = [created(call, name, *labels).json()["id"] for name, labels in (("x", ("a", "b")), ("y", ("c", "d")))]
    content = [{"task": task, "inputs": points(1)} for task in tasks]
    made = call("POST", "/v1/predict", json=content).json()
    assert [one["predictions"][0]["label"] for one in made] == ["b", "d"]
    missing = call("POST", "/v1/predict", json=[content[0], content[1] | {"inputs": [[1.0]]}])
    assert missing.status_code == 422
    assert missing.json()["errors"][0]["pointer"].startswith("/1")


def test_the_models_are_listed(call):
    [model] = call("GET", "/v1/models").json()["data"]
    assert (model["name"], model["kind"], model["takes"]) == ("points", "classification", "arrays of shape (3,)")


def test_a_task_is_renamed_pinned_evaluated_and_moved_to_its_present_model(call):
    labels = ("a", "b", "a", "b", "a", "b")
    content = {"name": "before", "examples": examples(*labels), "estimate": True}
    task = call("POST", "/v1/tasks", json=content).json()
    place = f"/v1/tasks/{task['id']}"
    assert task["estimate"]["metric"] == "accuracy"
    assert call("PATCH", place, json={"name": "after"}).status_code == 428
    renamed = call("PATCH", place, json={"name": "after"}, headers={"If-Match": '"1"'})
    assert (renamed.json()["name"], renamed.json()["version"]) == ("after", 1)
    assert call("POST", f"{place}/versions/1/pin", json={}).json()["pinned"]
    assert not call("POST", f"{place}/versions/1/pin", json={"pinned": False}).json()["pinned"]
    own = call("POST", f"{place}/evaluate", json={}).json()
    assert (own["by"], own["examples"], own["score"]["value"]) == ("leave-one-out", 6, task["estimate"]["value"])
    given = call("POST", f"{place}/evaluate", json={"examples": examples("a", "b"), "version": 1}).json()
    assert (given["by"], given["examples"]) == ("examples", 2)
    assert [sum(row.values()) for row in given["confusion"].values()] == [1, 1]
    assert given["score"]["value"] == sum(given["confusion"][label][label] for label in "ab") / 2
    same = call("POST", f"{place}/readapt", json={})
    assert (same.status_code, same.json()["promoted"]) == (200, False)
    call("POST", f"{place}/corrections", json={"examples": [examples("c")[0]]})
    change = call("GET", f"{place}/versions/2").json()["difference"]
    assert (len(change["relabeled"]), change["labels_added"]) == (1, ["c"])


def test_a_request_for_many_tasks_waits_with_its_size_once(call):
    task = created(call, "many").json()["id"]
    content = json.dumps([{"task": task, "inputs": points(1)}] * 100).ljust(10**6)
    headers = {"content-type": "application/json", "x-request-timeout-ms": "60000"}
    made = call("POST", "/v1/predict", content=content, headers=headers)
    assert made.status_code == 200, made.text
    assert len(made.json()) == 100


@pytest.mark.parametrize(("inputs", "what"), [([[0.5]] * 1001, "inputs"), ([[1] * 100_000] * 3, "numbers")])
def test_a_request_for_several_tasks_has_no_more_than_one_for_a_single_one(call, inputs, what):
    content = [{"task": "task_" + "0" * 32, "inputs": inputs}] * (2 if what == "inputs" else 4)
    refused = call("POST", "/v1/predict", json=content)
    assert (refused.status_code, refused.json()["type"]) == (413, "/problems/payload-too-large")
    assert f"{what}." in refused.json()["detail"]
