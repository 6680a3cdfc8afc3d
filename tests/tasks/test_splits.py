"""Splits of the user's data: exact at first, nobody moves later; and whether data are still what they were."""

import pytest

from handful.errors import ArtifactError, DataError
from handful.tasks.splits import SPLITS, Contents, digests, split_names


def named(splits, names):
    return {names[number]: on for on in SPLITS for number in splits[on]}


NAMES = [f"shop{number}" for number in range(100)]


@pytest.mark.parametrize("count", [3, 4, 10, 100])
def test_the_first_split_is_exact_and_holds_each_name_once(count):
    splits = split_names(NAMES[:count], seed=1)
    assert sorted(number for part in splits.values() for number in part) == list(range(count))
    assert all(splits.values())
    assert splits == split_names(NAMES[:count], seed=1)
    if count >= 10:
        assert [len(splits[on]) for on in SPLITS] == [0.6 * count, 0.2 * count, 0.2 * count]


def test_the_split_of_a_name_depends_on_the_seed_and_on_the_names_alone():
    """Not on their order."""
    first = named(split_names(NAMES, 0), NAMES)
    assert named(split_names(NAMES[::-1], 0), NAMES[::-1]) == first
    assert named(split_names(NAMES, 1), NAMES) != first


def test_nobody_moves_where_names_are_added_or_removed():
    names = NAMES[:40]
    earlier = named(split_names(names, 0), names)
    more = named(split_names(NAMES[5:], 0, earlier), NAMES[5:])
    assert all(more[name] == earlier[name] for name in names[5:])
    one_by_one = {name: named(split_names([name], 0, earlier), [name])[name] for name in NAMES[40:]}
    assert all(more[name] == one_by_one[name] for name in NAMES[40:]), "each by its own hash"
    assert set(one_by_one.values()) == set(SPLITS)


@pytest.mark.parametrize(
    ("count", "noun", "message"), [(2, "class", "2 classes, but"), (1, "task", "1 task only, but")]
)
def test_too_few_to_split(count, noun, message):
    with pytest.raises(DataError, match=message):
        split_names(NAMES[:count], seed=0, noun=noun)


def contents(test, **more):
    return Contents({"train": {"a": ["1", "2"]} | more, "val": {"b": ["3"]}, "test": test}, {"kind": "table"})


def test_contents_tell_what_changed_from_what_is_new():
    first = contents({"c": ["4", "5"]})
    assert Contents.from_json(first.to_json()) == first
    assert first.changed_since(first) == first.new_since(first) == ""
    grown = contents({"c": ["4", "9", "5"]}, d=["6"])
    assert grown.changed_since(first) == ""
    assert grown.new_since(first) == "1 examples and 1 names in train, 1 examples in test"
    assert "of 1 ('c') of the test split are others" in contents({"c": ["4", "6"]}).changed_since(first)
    assert "'c') no longer there" in contents({}).changed_since(first)
    moved = contents({}, c=["4", "5"])
    assert "'c') in another split" in moved.changed_since(first)
    assert moved.unsplit_digest() == first.unsplit_digest()
    assert moved.digest("val") == first.digest("val")
    assert moved.digest("test") != first.digest("test")


@pytest.mark.parametrize("facts", [None, {}, {"pipeline": None, "splits": {"train": []}}])
def test_contents_that_are_incomplete_are_refused(facts):
    with pytest.raises(ArtifactError, match="incomplete"):
        Contents.from_json(facts)


def test_digests_tell_rows_apart():
    assert len(set(digests([("1", 2), ("1", "2"), ("12",), b"1", None, ("\ud800",)]))) == 6
