"""Splits of the user's data: exact at first, nobody moves later; and whether data are still what they were."""

from collections import Counter

import pytest

from handful.errors import ArtifactError, DataError
from handful.tasks.splits import SPLITS, Contents, digests, set_aside, split_names


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
    assert grown.new_since(first) == "1 example and 1 name in train, 1 example in test"
    assert "of 1 ('c') of the test split have changed" in contents({"c": ["4", "6"]}).changed_since(first)
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


# Examples set aside of classes that are all trained on


def test_a_fifth_of_the_examples_of_each_class_is_set_aside_for_each_split():
    units = [0] * 20 + [1] * 6 + [2] * 5
    where = set_aside(units, [f"row{place}" for place in range(31)], ["val", "test"], seed=0)
    counts = [Counter(on for on, unit in zip(where, units, strict=True) if unit == one) for one in range(3)]
    assert counts[0] == {"train": 12, "val": 4, "test": 4}
    assert counts[1] == {"train": 2, "val": 2, "test": 2}
    assert counts[2] == {"train": 5}, "a task takes two of a class"


def test_equal_keys_stay_together_and_their_order_does_not_matter():
    keys = [f"writer{place % 10}" for place in range(50)]
    where = set_aside([0] * 50, keys, ["val"], seed=3)
    assert len({*zip(keys, where, strict=True)}) == 10
    assert Counter(where) == {"train": 40, "val": 10}
    assert set_aside([0] * 50, keys[::-1], ["val"], seed=3) == where[::-1]
    assert set_aside([0] * 50, keys, ["val"], seed=4) != where


def test_the_latest_examples_are_set_aside_where_they_have_an_order():
    moments = [9, 1, 8, 2, 7, 3, 6, 4, 5, 0]
    where = set_aside([0] * 10, moments, ["val", "test"], seed=0, ordered=True)
    parts = {on: {moment for moment, one in zip(moments, where, strict=True) if one == on} for on in SPLITS}
    assert parts == {"train": set(range(6)), "val": {6, 7}, "test": {8, 9}}


def test_examples_stay_where_an_earlier_run_had_them():
    keys = [f"row{place}" for place in range(40)]
    first = set_aside([0] * 20, keys[:20], ["val", "test"], seed=0)
    earlier = {(0, key): on for key, on in zip(keys, first, strict=False)}
    again = set_aside([0] * 40, keys, ["val", "test"], seed=0, earlier=earlier)
    assert again[:20] == first
    assert set(again[20:]) == set(SPLITS)
    later = set_aside([0] * 4, [1, 2, 3, 4], ["val"], seed=0, ordered=True, earlier={(0, 1): "train", (0, 3): "val"})
    assert later == ["train", "train", "val", "val"], "a new moment goes with the one before it"
