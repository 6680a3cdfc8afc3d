"""Routes of tasks: what is sent, what comes back, and what goes wrong."""

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
