"""One training at a time in a folder, and a folder is free again whatever the end of the one before."""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from handful.errors import UserError
from handful.training import lock
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
            with pytest.raises(UserError, match=rf"Another training is running in .*run, in process {first.pid}\."):
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
    with locked(tmp_path / "run"), pytest.raises(UserError, match="Another training is running"):
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


@pytest.mark.parametrize("removed", ["the lock", "its folder"])
def test_a_lock_whose_holder_ends_meanwhile_is_made_again(monkeypatch, tmp_path, removed):
    run, got = tmp_path / "run", lock._got

    def ending(file):
        monkeypatch.setattr(lock, "_got", got)
        (run / lock.LOCK).unlink() if removed == "the lock" else shutil.rmtree(run)
        return got(file)

    monkeypatch.setattr(lock, "_got", ending)
    with locked(run), pytest.raises(UserError, match="Another training"), locked(run):
        pass


def test_of_many_one_at_a_time_holds_it(tmp_path):
    inside, most, refused = [], [], []

    def hold(thread):
        for _ in range(100):
            try:
                with locked(tmp_path / "run"):
                    inside.append(thread)
                    most.append(len(inside))
                    inside.remove(thread)
            except UserError as error:
                refused.append(error.code)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hold, range(4)))
    assert set(most) == {1}
    assert set(refused) <= {"invalid-request"}, "none could not be written"


def test_a_place_for_no_folder_is_told(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for place, why in [
        (tmp_path / "loop", "it is a link that leads nowhere"),
        (tmp_path / "file", "it is a file, not a folder"),
        (tmp_path / "file" / "run", "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ]:
        with pytest.raises(UserError, match=f"Cannot write .*: {why}"), locked(place):
            pass


def test_a_link_leads_to_the_folder_that_is_made(tmp_path):
    (tmp_path / "link").symlink_to("run")
    with locked(tmp_path / "link"):
        (tmp_path / "link" / "config.json").touch()
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "run") == ["config.json"]


def test_nothing_is_left_where_nothing_was_written(tmp_path):
    (tmp_path / "own").mkdir()
    for name in ("own", "new"):
        with locked(tmp_path / name):
            pass
    assert os.listdir(tmp_path) == ["own"]
    assert os.listdir(tmp_path / "own") == []
