"""The catalog is what the registries hold, and nobody keeps it."""

import pytest

from handful.errors import UserError
from handful.learners.options import options_of
from handful.registry import BACKBONES, LEARNERS, TASKS
from handful.workflows.catalog import catalog, entry


def test_everything_registered_is_there_once_with_a_line_about_it():
    rows = [row for members in catalog().values() for row in members]
    assert sorted(row["name"] for row in rows) == sorted([*LEARNERS, *TASKS, *BACKBONES])
    for row in rows:
        assert row["summary"].endswith((".", "`."))
        assert len(row["summary"]) < 130, row


def test_baselines_stand_apart():
    found = catalog()
    assert {row["name"] for row in found["Learners"]} == {key for key, cls in LEARNERS.items() if not cls.baseline}


def test_a_learner_says_what_it_does_and_whether_it_keeps_to_its_way():
    does = {row["name"]: row["does"] for row in catalog()["Learners"]}
    assert does["protonet"] == "classes"
    assert does["maml"] == "classes, values"
    assert does["boil"] == "classes (as many as trained), values"
    assert does["cnp"] == "values"
    assert "classes (as many as trained), values, from any number of examples" in entry("boil")["text"]
    assert "have a standard deviation" in entry("dkt")["text"]
    assert "have a standard deviation" not in entry("r2d2")["text"]


@pytest.mark.parametrize("name", [*LEARNERS, *TASKS, *BACKBONES])
def test_an_entry_says_all_about_a_member(name):
    found = entry(name)
    assert found["text"]
    if name in LEARNERS:
        assert [option["name"] for option in found["options"]] == list(options_of(LEARNERS[name]))
        for option in found["options"]:
            assert option["default"]
            assert "<" not in option["type"], "a type in words"


def test_an_unknown_name_is_answered_by_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'maml'"):
        entry("mamel")
