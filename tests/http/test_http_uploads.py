"""Uploads over HTTP: images beside the task, or one file of examples."""

import io
import json
import zipfile

import pytest
from apps import Caller
from PIL import Image

from handful.http.app import make_app
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.pipelines.images import ImagePipeline
from handful.serving.service import Service
from handful.types import TaskSpec


def png(color):
    file = io.BytesIO()
    Image.new("L", (2, 2), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def call(tmp_path):
    pipeline = ImagePipeline(size=2)
    spec = TaskSpec("classification", pipeline.input_shape, 2, "permuted")
    meta = MetaModel(PrototypicalNetwork.build(spec, backbone="linear"), pipeline)
    with Service(meta, tmp_path / "store") as service:
        app = make_app(service, spool=tmp_path / "spool")
        yield Caller(app, service.keys.first_admin(None).token)
    assert not any((tmp_path / "spool").iterdir())


def sent(call, path, task, **files):
    parts = {"task": (None, json.dumps(task), "application/json"), **files}
    return call("POST", path, files=parts, headers={"idempotency-key": "once"})


def named(**labels):
    return [{"input": {"image": name}, "label": label} for name, label in labels.items()]


def test_images_beside_the_task(call):
    task = {"name": "shelf", "examples": named(a="x", b="y")}
    made = sent(call, "/v1/tasks", task, a=("1.png", png(0)), b=("2.png", png(255)))
    assert (made.status_code, made.json()["labels"]) == (201, ["x", "y"])
    again = sent(call, "/v1/tasks", task, b=("2.png", png(255)), a=("1.png", png(0)))
    assert again.json()["id"] == made.json()["id"]
    path = made.headers["location"]
    more = call("POST", f"{path}/corrections", files={"task": json.dumps({"examples": named(c="z")}), "c": png(255)})
    assert (more.status_code, more.json()["labels"], more.json()["examples"]) == (200, ["x", "z"], 2)


def test_one_file_of_examples(call):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, color in {"x/1.png": 0, "y/1.png": 255}.items():
            archive.writestr(name, png(color))
    made = sent(call, "/v1/tasks", {"name": "shelf"}, file=("classes.zip", file.getvalue()))
    assert (made.status_code, made.json()["labels"]) == (201, ["x", "y"])
    assert call("GET", f"{made.headers['location']}/examples").json()["data"][0]["input"].keys() == {"image"}


def test_what_goes_wrong_has_its_place(call):
    def refused(task, **files):
        problem = sent(call, "/v1/tasks", task, **files)
        return problem.status_code, problem.json()["errors"][0]["pointer"]

    assert refused({"name": "a", "examples": named(a="x", b="y")}, a=png(0)) == (422, "/examples/1/input/image")
    assert refused({"name": "a", "examples": named(a="x")}, a=png(0), b=png(1)) == (422, "")
    assert refused({"name": "a", "examples": named(a="x", b="y")}, a=png(0), b=b"no image") == (
        415,
        "/examples/1/input",
    )
    assert refused({"name": "a"}) == (422, "/examples")
    assert refused({"name": "a", "examples": named(a="x")}, a=png(0), file=("a.zip", b"")) == (422, "/examples")
    assert refused({"name": "a"}, file=("a.zip", b"PK")) == (422, "/file")
    assert refused({"name": "a", "more": 1}) == (422, "/more")
    assert call("POST", "/v1/tasks", content=b"x", headers={"content-type": "multipart/form-data"}).status_code == 415


def test_uploads_are_predicted_and_scored(call):
    task = {"name": "shelf", "examples": named(a="x", b="y")}
    path = sent(call, "/v1/tasks", task, a=png(0), b=png(255)).headers["location"]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, color in {"x/1.png": 0, "y/1.png": 255}.items():
            archive.writestr(name, png(color))
    beside = sent(call, f"{path}/predict", {"inputs": [{"image": "c"}], "top": 1}, c=png(250))
    assert [one["label"] for one in beside.json()["predictions"]] == ["y"]
    flat = io.BytesIO()
    with zipfile.ZipFile(flat, "w") as archive:
        for name, color in {"1.png": 3, "2.png": 250}.items():
            archive.writestr(name, png(color))
    whole = sent(call, f"{path}/predict", {"version": 1}, file=("new.zip", flat.getvalue()))
    assert [one["label"] for one in whole.json()["predictions"]] == ["x", "y"]
    scored = sent(call, f"{path}/evaluate", {}, file=("classes.zip", file.getvalue())).json()
    assert (scored["by"], scored["examples"], scored["score"]["value"]) == ("examples", 2, 1.0)
    for content, files in (({}, {}), ({"inputs": []}, {"file": ("new.zip", flat.getvalue())})):
        problem = sent(call, f"{path}/predict", content, **files)
        assert (problem.status_code, problem.json()["errors"][0]["pointer"]) == (422, "/inputs")
    assert sent(call, f"/v1/tasks/task_{'0' * 32}/predict", {}, file=("new.zip", b"")).status_code == 404
    assert call("POST", f"{path}/predict", json={}).json()["errors"][0]["pointer"] == "/inputs"
