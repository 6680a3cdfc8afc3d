"""The catalog is what the registries hold, and nobody keeps it."""

import pytest

from handful.apps.catalog import catalog, entry
from handful.errors import UserError
from handful.learners.learner import options_of
from handful.registry import BACKBONES, LEARNERS, TASKS


def test_everything_registered_is_there_once_with_a_line_about_it():
    rows = [row for members in catalog().values() for row in members]
    assert sorted(row["name"] for row in rows) == sorted([*LEARNERS, *TASKS, *BACKBONES])
    for row in rows:
        assert row["summary"].endswith((".", "`."))
        assert len(row["summary"]) < 130, row


def test_baselines_stand_apart():
    found = catalog()
    assert {row["name"] for row in found["Learners"]} == {key for key, cls in LEARNERS.items() if not cls.baseline}


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
