"""Large answers: made in another thread, in pieces, and let go of piece by piece."""

import json

import pytest
from apps import caller

from handful.http import answers
from handful.http.schemas import ExamplePage, PredictionsOfTasks
from handful.http.schemas import Predictions as Shown
from handful.models.results import Result
from handful.notes import Note
from handful.serving.records import Predictions
from handful.serving.service import Service
from serving.worlds import classifier, points


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    with Service({"points": classifier()}, tmp_path_factory.mktemp("store")) as service:
        yield caller(service)


@pytest.fixture(scope="module")
def task(call):
    examples = [{"input": p, "label": label} for p, label in zip(points(0, 1, 2), "abc", strict=True)]
    return call("POST", "/v1/tasks", json={"name": "one", "examples": examples}).json()["id"]


def made(rows, way=3):
    results = tuple(Result("c0", 0.5, {f"c{number}": row / 8 for number in range(way)}) for row in range(rows))
    return Predictions("task_1", 7, "photos", "sha256:0", results, (Note("unknown-category", "New.", count=2),))


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_predictions_are_written_as_their_schema_says(monkeypatch, rows):
    monkeypatch.setattr(answers, "NUMBERS", 6)  # two results of three classes
    one = [made(rows)]
    shown = Shown.model_validate_json(b"".join(answers.of_one(one)), strict=True)
    assert one == []
    assert [(each.label, each.probabilities) for each in shown.predictions] == [
        (each.label, dict(each.probabilities)) for each in made(rows).predictions
    ]
    assert (shown.task, shown.version, shown.model.name, shown.notes[0].count) == ("task_1", 7, "photos", 2)
    several = [made(rows), made(2, way=2)]
    first, second = PredictionsOfTasks.model_validate_json(b"".join(answers.of_each(several)), strict=True).root
    assert (first, len(second.predictions), several) == (shown, 2, [])


def test_only_what_is_worth_it_is_sent_together(monkeypatch):
    monkeypatch.setattr(answers, "PIECE", 4)
    assert answers.joined([b"a", b"bc", b"d", b"", b"efghij", b"k"]) == [b"abcd", b"efghij", b"k"]
    assert answers.joined([]) == []


def test_a_large_answer_is_made_in_another_thread(call, task, monkeypatch):
    lane = call.app.state.server.batcher.lanes["convert"]
    asked, path = {"inputs": points(*range(5))}, f"/v1/tasks/{task}/predict"
    headers = {"content-type": "application/json; charset=utf-8"}  # no plain request, which goes the short way
    sent = {"content": json.dumps(asked), "headers": headers}
    small = call("POST", path, **sent)
    before = lane.seen.taken
    assert call("POST", path, **sent).json() == small.json()
    assert lane.seen.taken == before
    monkeypatch.setattr(answers, "NUMBERS", 6)
    monkeypatch.setattr(answers, "PIECE", 100)
    large = call("POST", path, **sent)
    assert (large.json(), lane.seen.taken) == (small.json(), before + 1)
    assert int(large.headers["content-length"]) == len(large.content)
    several = call("POST", "/v1/predict", json=[{"task": task, **asked}] * 2).json()
    labels = [[one["label"] for one in each["predictions"]] for each in (*several, small.json())]
    assert labels == [labels[2]] * 3


def test_a_page_of_examples_is_bounded_in_bytes(call, task, monkeypatch):
    path, whole = f"/v1/tasks/{task}/examples", 3 * 8  # bytes of an input
    every = ExamplePage.model_validate_json(call("GET", path).content)
    assert (len(every.data), every.has_more, every.next_after) == (3, False, None)
    for size, count in ((2 * whole, 2), (2 * whole - 1, 1), (1, 1)):
        monkeypatch.setattr("handful.http.examples.PAGE", size)
        seen, sizes, after = [], [], ""
        while after is not None:
            page = call("GET", path, params={"after": after}).json()
            seen, sizes, after = seen + page["data"], [*sizes, len(page["data"])], page["next_after"]
            assert page["has_more"] == (after is not None)
        assert sizes == {2: [2, 1], 1: [1, 1, 1]}[count]
        assert json.dumps(seen) == json.dumps([one.model_dump() for one in every.data])


def test_no_examples_are_a_page(call):
    content = {"name": "forgets", "keep_examples": False}
    content["examples"] = [{"input": p, "label": label} for p, label in zip(points(0, 1), "ab", strict=True)]
    made = call("POST", "/v1/tasks", json=content).json()
    page = call("GET", f"/v1/tasks/{made['id']}/examples").json()
    assert page == {"data": [], "has_more": False, "next_after": None}
