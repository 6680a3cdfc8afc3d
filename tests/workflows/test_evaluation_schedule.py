"""An evaluation keeps to its time: fewer tasks, a shorter rest, and what is left out is said."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import own_data
from handful.evaluation.pace import Costs, Pace
from handful.events import NoteEvent
from handful.workflows import evaluation_schedule
from handful.workflows.evaluate import evaluate
from handful.workflows.evaluation_schedule import FEWEST, TASKS, Schedule
from handful.workflows.experiment import Experiment, Source
from handful.workflows.train import train


class Paced:
    """In place of a ladder: `seconds` a task one by one, `together` of several at once."""

    rungs = ()
    minutes = 1

    def __init__(self, seconds, together=None):
        self.paces = {False: seconds, True: seconds if together is None else together}

    def costs(self, place, *, together=False):
        return Costs(Pace(self.paces[together]), (Pace(0.0),), 50)


@pytest.fixture
def still(monkeypatch):
    """The clock stands still."""
    monkeypatch.setattr(evaluation_schedule.time, "monotonic", lambda: 1000.0)


def schedule(seconds, tasks=None, *, together=None, minutes=1.0, end=None, places=1):
    end = 1000 + 60 * minutes if end is None else end
    return Schedule.of(Paced(seconds, together), [None] * places, tasks, end=end, seconds=60 * minutes)


def test_all_tasks_are_scored_where_there_is_time(still):
    found = schedule(0.05)
    assert (found.tasks, found.choosing) == (TASKS, 50)
    assert list(found.notes()) == []
    assert "600 tasks is expected to take at most 30.0 s" in found.described(Paced(0))


def test_fewer_are_scored_where_there_is_not_and_it_is_said(still):
    found = schedule(0.4)
    assert found.tasks == 90
    assert found.seconds <= 36
    assert found.choosing == 22
    assert "More tasks, up to 600, would exceed the time" in found.described(Paced(0))
    assert list(found.notes()) == ["Scored on 90 tasks instead of 600, for lack of time."]
    assert schedule(0.4, places=2).tasks == 40, "half for each setting"
    assert schedule(0.4, end=1001).tasks == 30, "a part of the time in any case"
    assert schedule(100).tasks == FEWEST


def test_tasks_that_are_fast_together_are_not_fewer(still):
    assert schedule(0.4, together=0.01).tasks == TASKS


def test_a_number_that_is_given_is_kept(still):
    found = schedule(10.0, 300)
    assert (found.tasks, found.choosing) == (300, 50)
    assert "300 tasks is expected to take at most 50 min 0 s" in found.described(Paced(0))


def test_without_a_limit_nothing_is_cut(still):
    found = schedule(10.0, end=math.inf).after_scoring(1e6)
    assert found.tasks == TASKS
    assert (found.curve_tasks(5, 60), found.diagnosis_tasks(20)) == (60, 20)
    assert found.end_of_costly(sizes=5, curve_tasks=60, diagnosis_tasks=20) == 1000


def test_the_rest_is_kept_and_keeps_to_what_is_left(still):
    found = schedule(0.01).after_scoring(6.0)
    assert (found.curve_tasks(5, 60), found.diagnosis_tasks(20)) == (60, 20)
    assert found.end_of_costly(sizes=5, curve_tasks=60, diagnosis_tasks=20) == pytest.approx(1060 - 6 - 2)
    assert found.end_of_costly(sizes=0, curve_tasks=60, diagnosis_tasks=20) == pytest.approx(1060 - 2)
    slower = found.after_scoring(60.0)
    assert slower.end_of_costly(sizes=5, curve_tasks=60, diagnosis_tasks=20) == 1060 - 15, "a part at the most"
    late = replace(slower, end=1020)
    assert (late.curve_tasks(5, 60), late.diagnosis_tasks(20)) == (20, 20)
    over = replace(slower, end=999)
    assert (over.curve_tasks(5, 60), over.diagnosis_tasks(20)) == (0, 0)


@pytest.mark.slow
def test_a_report_says_how_many_tasks_there_was_time_for(monkeypatch, tmp_path):
    monkeypatch.setattr("handful.evaluation.ladder.CHOOSING_TASKS", 2)
    monkeypatch.setattr("handful.evaluation.ladder.pace", lambda *arguments, **more: Pace(1.0))
    source = Source(str(own_data.species(tmp_path / "species.csv")), label="kind")
    settings = {"steps": 2, "meta_batch_size": 2, "validation_tasks": 2}
    train(
        Experiment(source, "protonet", backbone_options={"hidden": [8]}, settings=settings, way=2, shot=1),
        tmp_path / "run",
    )
    heard = []
    report = evaluate(tmp_path / "run", minutes=0.001, on_event=heard.append)
    assert {len(row.evaluation.scores) for row in report.comparisons[0].rows} == {FEWEST}
    assert f"Scored on {FEWEST} tasks instead of 600, for lack of time." in report.to_markdown({})
    assert {"diagnosis", "scores by the number of examples", "fine-tune-all"} <= set(report.left_out)
    assert any("is expected to take" in event.message for event in heard if isinstance(event, NoteEvent))


@pytest.mark.slow
def test_photos_keep_to_the_time(tmp_path):
    """Of 84 x 84 pixels 600 tasks by gradient steps take minutes: with a quarter of one there are fewer.

    Processor time, which others that compute beside it do not prolong.
    """
    generator = np.random.default_rng(0)
    for number in range(12):
        (tmp_path / "photos" / f"class{number}").mkdir(parents=True)
        for index in range(20):
            pixels = generator.integers(0, 256, (84, 84, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / f"class{number}" / f"{index}.png")
    source = Source(str(tmp_path / "photos"), image_size=84)
    network = {"backbone": "conv4", "backbone_options": {"widths": [8, 8, 8, 8]}}
    settings = {"steps": 2, "meta_batch_size": 1, "validation_tasks": 2}
    sizes = {"way": 2, "shot": 1, "query_shot": 10}
    train(Experiment(source, learner="maml", settings=settings, **network, **sizes), tmp_path / "run")
    began = time.process_time()
    report = evaluate(tmp_path / "run", minutes=0.25)
    assert time.process_time() - began < 1.5 * 15
    assert FEWEST <= len(report.comparisons[0].learner.evaluation.scores) < TASKS
