"""The doctor's visit: of a run, of its model, of data alone."""

from pathlib import Path

import pytest

import own_data
from handful.errors import DataError, UserError
from handful.workflows.diagnose import checkup
from handful.workflows.experiment import Experiment, Source
from handful.workflows.train import train
from noted import noted


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    source = Source(str(own_data.photos(folder / "photos")), image_size=16)
    backbone = {"backbone": "conv4", "backbone_options": {"widths": [4, 4, 4, 4]}}
    settings = {"steps": 2, "validation_tasks": 4}
    train(Experiment(source, "protonet", **backbone, way=2, shot=2, query_shot=2, settings=settings), folder / "run")
    return folder / "run"


@pytest.mark.slow
def test_a_run_is_looked_at_with_its_model_and_its_own_sizes(run):
    findings = checkup(Source(str(run)))
    checks = {finding["check"] for finding in findings}
    assert {"overlap", "leakage", "memorization", "transduction"} <= checks
    assert {finding["status"] for finding in findings} <= {"ok", "warning", "problem", "skipped"}
    told = next(finding for finding in findings if finding["check"] == "memorization")
    assert "protonet" in told["message"]
    assert checkup(Source(str(run / "model"))) == findings


def test_data_alone_is_looked_at_without_a_model(run):
    findings = checkup(Source(str(run.parent / "photos"), image_size=16), 2, 2, 2)
    by_check = {finding["check"]: finding for finding in findings}
    assert by_check["overlap"]["status"] == "ok"
    assert by_check["leakage"]["status"] == "ok"
    assert not any("protonet" in finding["message"] for finding in findings)


def test_a_folder_of_data_with_a_config_of_another_program_is_data(run):
    (run.parent / "photos" / "config.json").write_text("{}")
    with noted("are ignored"):
        assert checkup(Source(str(run.parent / "photos"), image_size=16), 2, 2, 2)


def test_the_same_picture_in_two_classes_is_found(tmp_path):
    folder = own_data.photos(tmp_path / "photos")
    for number in range(12):
        copied = (folder / "class00" / "0.png").read_bytes()
        (folder / f"class{number:02}" / "0.png").write_bytes(copied)
    findings = checkup(Source(str(folder), image_size=16), 2, 2, 2)
    assert next(finding for finding in findings if finding["check"] == "leakage")["status"] != "ok"


def test_what_is_neither_is_named(tmp_path):
    with pytest.raises(DataError, match="absent does not exist"):
        checkup(Source(str(tmp_path / "absent")))


def test_a_run_is_not_told_what_is_in_its_data(run):
    with pytest.raises(UserError, match="is a run, which records the options of its data"):
        checkup(Source(str(run), label="kind"))
