"""Decisions of a race are written before they take effect, and are taken again from there."""

import json

import pytest

from handful.errors import UserError
from handful.training.run import RACE
from handful.workflows import race_record
from handful.workflows.race_record import RaceRecord, budget_of


def test_a_decision_is_on_disk_before_it_is_returned(tmp_path):
    record = RaceRecord.open(tmp_path, 1.0)
    assert record.decide("steps", lambda: 7) == 7
    assert json.loads((tmp_path / RACE).read_text())["decided"] == {"steps": 7}
    assert record.decide("steps", lambda: 8) == 7, "it is not taken again"


def test_a_race_goes_on_with_what_was_decided_and_found_and_the_time_that_was_spent(tmp_path):
    first = RaceRecord.open(tmp_path, 1.0)
    first.began -= 20
    first.decide("seconds", lambda: (0.1, 0.2))
    first.found("scores", lambda: {"scores": [0.25]})
    again = RaceRecord.open(tmp_path, 5.0)
    assert again.minutes == 1.0
    assert 39 < again.left < 41
    assert again.decide("seconds", list) == [0.1, 0.2]
    assert again.found("scores", dict) == {"scores": [0.25]}


def test_reading_the_data_is_no_part_of_the_time(tmp_path, monkeypatch):
    clock = {"now": 100.0}
    monkeypatch.setattr(race_record.time, "monotonic", lambda: clock["now"])
    record = RaceRecord.open(tmp_path, 1.0)
    clock["now"] += 10
    with record.paused():
        clock["now"] += 500
    assert (record.spent, record.left) == (10, 50)


def test_a_budget_is_taken_from_a_race_that_has_ended_and_its_results_are_not(tmp_path):
    whole = RaceRecord.open(tmp_path / "whole", 1.0)
    whole.decide("steps", lambda: 7)
    with pytest.raises(UserError, match="no finished race"):
        budget_of(tmp_path / "whole")
    whole.found("scores", lambda: 1)
    whole.end({"winner": "cnp"})
    for budget in (budget_of(tmp_path / "whole"), None):  # a new one, and one that goes on without the other
        other = RaceRecord.open(tmp_path / "other", 2.0, budget)
        assert (other.minutes, other.given, other.results) == (1.0, True, {})
        assert other.decide("steps", lambda: 8) == 7
        with pytest.raises(UserError, match=r"has no entry 'more'.*other data"):
            other.decide("more", lambda: 1)
        other.write()


def test_there_is_no_budget_in_a_folder_without_a_race(tmp_path):
    with pytest.raises(UserError, match="has no finished race"):
        budget_of(tmp_path)


def test_what_went_before_the_record_counts(tmp_path):
    assert 49 < RaceRecord.open(tmp_path, 1.0, spent=10.0).left <= 50
