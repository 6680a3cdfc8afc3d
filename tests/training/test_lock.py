"""One training at a time in a folder, and a folder is free again whatever the end of the one before."""

import os
import signal
import subprocess
import sys

import pytest

from handful.errors import UserError
from handful.training.lock import emptied, locked
from handful.workflows.experiment import Experiment, Source
from handful.workflows.train import train
from handful.workflows.tune import tune

HOLDING = """
import sys, time
from pathlib import Path
from handful.training.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_training_is_refused_with_the_process_of_the_first_until_that_ends(tmp_path):
    run = tmp_path / "run"
    experiment = Experiment(Source("sine"), learner="maml", settings={"steps": 2, "meta_batch_size": 2, "plan": "loop"})
    first = subprocess.Popen([sys.executable, "-c", HOLDING, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        for options in ({}, {"force": True}, {"resume": True}):
            with pytest.raises(UserError, match=rf"Another training is under way in .*run, by process {first.pid}\."):
                train(experiment, run, **options)
            assert os.listdir(run) == [".lock"]
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    train(experiment, run)
    assert (run / "model" / "model.safetensors").exists()
    train(experiment, run, force=True)
    assert ".lock" not in os.listdir(run)


def test_a_search_waits_for_no_training(tmp_path):
    pytest.importorskip("optuna")
    experiment = Experiment(Source("sine"), learner="maml", settings={"steps": 2, "meta_batch_size": 2, "plan": "loop"})
    with locked(tmp_path / "run"), pytest.raises(UserError, match="Another training is under way"):
        tune(experiment, tmp_path / "run", 1)


def test_an_emptied_folder_stays_locked(tmp_path):
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "checkpoints").mkdir()
        (tmp_path / "run" / "checkpoints" / "one").touch()
        (tmp_path / "run" / "link").symlink_to(tmp_path)
        emptied(tmp_path / "run")
        assert os.listdir(tmp_path / "run") == [".lock"]
        with pytest.raises(UserError, match="Another training"), locked(tmp_path / "run"):
            pass


def test_a_place_for_no_folder_is_told(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="Cannot write"), locked(place):
            pass


def test_nothing_is_left_where_nothing_was_written(tmp_path):
    (tmp_path / "own").mkdir()
    for name in ("own", "new"):
        with locked(tmp_path / name):
            pass
    assert os.listdir(tmp_path) == ["own"]
    assert os.listdir(tmp_path / "own") == []
