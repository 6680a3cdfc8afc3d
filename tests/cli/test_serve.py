"""`handful serve`: what it refuses, and what it says to send first, which is what the model reads."""

import base64
import io
import json
import logging
import re
import subprocess

import numpy as np
import pytest
from PIL import Image
from test_main import refused

from handful.cli.serve import named_models, welcome, written_log
from handful.errors import UserError
from handful.http.first_steps import first_steps
from handful.http.server import Address
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.pipelines.images import ImagePipeline
from handful.pipelines.own_tables import ManyTablesPipeline
from handful.pipelines.rows import TablePipeline
from handful.serving.log_lines import log_line
from handful.serving.service import Service
from handful.types import TaskSpec
from serving.worlds import classifier, regressor


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return classifier().save_pretrained(tmp_path_factory.mktemp("models") / "points")


# What is refused


def test_each_careless_start_is_one_sentence(model, tmp_path):
    data = ("--data", tmp_path / "store", "--port", 0)
    assert "no-such" in refused("serve", "--model", "no-such", *data)
    assert "NAME=PATH" in refused("serve", "--model", model, "--model", model, *data)
    assert "--behind-proxy" in refused("serve", "--model", model, *data, "--host", "0.0.0.0")
    assert "--tls-key" in refused("serve", "--model", model, *data, "--tls-cert", model)
    assert "admin key" in refused("serve", "--model", model, *data, "--admin-key", "short")
    (tmp_path / "file").write_text("no folder")
    assert "file" in refused("serve", "--model", model, "--data", tmp_path / "file", "--port", 0)
    with Address(port=0).bound() as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert f"Cannot listen at 127.0.0.1:{port}" in refused("serve", "--model", model, "--port", port, *data[:2])
    with Service(classifier(), tmp_path / "store"):
        assert "Another service is running" in refused("serve", "--model", model, *data)


def test_models_are_called_by_their_folders_or_as_one_says():
    assert list(named_models(["runs/photos", "x=runs/texts"])) == ["photos", "x"]
    with pytest.raises(UserError, match="Two models have the name 'photos'"):
        named_models(["runs/photos", "other/photos"])


# What it says


def test_the_key_is_shown_with_lines_that_use_it(tmp_path, capsys):
    with Service({"points": classifier()}, tmp_path / "store") as service:
        welcome(service, "http://127.0.0.1:1", "hf_a_key")
        text = capsys.readouterr().out
        assert "http://127.0.0.1:1/docs" in text
        assert text.count("hf_a_key") == 2
        assert "First steps (in another terminal, in this folder):" in text
        welcome(service, "http://127.0.0.1:1", None)
        assert "hf_a_key" not in capsys.readouterr().out


def sent(line):
    """What a line sends, as a shell makes it."""
    writes, _, sends = line.rpartition(" | curl ")
    assert re.fullmatch(r'-s -H "Authorization: Bearer \$KEY" .* -d @- "http://h:1/v1/tasks(/\$TASK/predict)?"', sends)
    made = subprocess.run(["sh", "-c", writes], capture_output=True, text=True, check=True)
    return json.loads(made.stdout)


def learner(shape):
    return PrototypicalNetwork.build(TaskSpec("classification", shape, 2), backbone="linear")


def table():
    numbers = {"name": "it's $5", "median": 2.0, "width": 1.0, "clipped": True}
    return TablePipeline(columns=[numbers, {"name": "color", "categories": ["red", 'b"lue']}], label="kind")


@pytest.mark.parametrize(
    "make",
    [
        classifier,
        regressor,
        lambda: MetaModel(learner((1, 4, 4)), ImagePipeline(size=4, channels=1)),
        lambda: MetaModel(learner((3,)), table()),
        lambda: MetaModel(learner((2, 300))),
        lambda: MetaModel(learner((4,)), ManyTablesPipeline(width=4, label="last")),
    ],
    ids=["vectors", "values", "images", "rows", "long", "own columns"],
)
def test_the_first_steps_are_of_the_models_kind_of_input(make, tmp_path):
    images = [tmp_path / "it's a.png", tmp_path / "b.png"]
    for number, file in enumerate(images):
        file.write_bytes(png(number))
    meta = make()
    create, predict = (sent(line) for line in first_steps(meta, "m", "http://h:1", images))
    with Service({"m": meta}, tmp_path / "store") as service:
        inputs = [taken(one["input"]) for one in create["examples"]]
        labels = [one.get("label", one.get("value")) for one in create["examples"]]
        task = service.create(create["name"], inputs, labels, model=create["model"])
        made = service.predict(task.id, [taken(one) for one in predict["inputs"]]).predictions
    assert made[0].label == (labels[0] if meta.spec.classification else None)


def taken(value):
    return base64.b64decode(value["image"]) if isinstance(value, dict) and "image" in value else value


def png(number):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (4, 4), np.uint8)).save(file, "PNG")
    return file.getvalue()


# The log


def test_every_line_of_the_log_is_one_object(capsys):
    own, other = logging.getLogger("handful.http"), logging.getLogger("asyncio")
    with written_log():
        own.info(log_line("request", status=200))
        try:
            raise ValueError("broken\nin \ud800 two")
        except ValueError:
            own.exception(log_line("error", work="purge"))
            other.exception("not %s", "ours")
    plain, error, others = map(json.loads, capsys.readouterr().err.splitlines())
    assert plain == {"event": "request", "status": 200}
    assert error.pop("traceback").endswith("ValueError: broken\nin \ud800 two")
    assert error == {"event": "error", "work": "purge"}
    assert others.pop("traceback").startswith("Traceback")
    assert others == {"event": "log", "log": "asyncio", "message": "not ours"}
