"""What changed from one version to the next, and which versions keep their states."""

import pytest

from handful import Service
from handful.errors import CODES, DataError, UserError
from handful.serving.records import Difference
from handful.serving.rows import KEPT_STATES
from serving.oracle import check
from serving.worlds import classifier, points, regressor


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture
def service(model, place):
    with Service(model, place) as service:
        yield service


def made(service, name="shelf"):
    return service.create(name, points(1, 2, 3, 4), ["a", "a", "b", "b"])


def ids(service, task, version):
    return [one.id for one in service.examples(task.id, version)]


def test_versions_show_what_changed_against_their_parents(service):
    task = made(service)
    service.add(task.id, points(5), ["c"])
    service.correct(task.id, points(1, 6), ["b", "a"])
    service.remove(task.id, [ids(service, task, 2)[4]])
    first, second, third = (ids(service, task, number) for number in (1, 2, 3))
    shown = [one.difference for one in service.versions(task.id)]
    assert shown == [
        None,
        Difference((second[4],), (), {}, ("c",), ()),
        Difference((third[5],), (), {third[4]: first[0]}, (), ()),
        Difference((), (second[4],), {}, (), ("c",)),
    ]
    assert service.version(task.id, 3).difference == shown[2]
    service.roll_back(task.id, 1)
    service.add(task.id, points(7), ["a"])
    assert service.version(task.id, 5).difference.removed == ()


def test_an_example_takes_the_place_of_the_last_one_with_its_input(place):
    with Service(regressor(), place) as service:
        task = service.create("prices", points(1, 1, 2), [1.0, 2.0, 3.0])
        service.correct(task.id, points(1, 3), [4.0, 5.0])
        [one, other, kept], after = ids(service, task, 1), ids(service, task, 2)
        assert after[0] == kept
        assert service.version(task.id, 2).difference == Difference((after[2],), (one,), {after[1]: other}, (), ())


def test_an_input_is_the_same_however_its_numbers_are_written(service):
    whole = service.create("shelf", [[1, 2, 3], [3, 2, 1]], ["a", "b"])
    service.correct(whole.id, [[1.0, 2.0, 3.0]], ["c"])
    came = service.import_task("came in", service.export(whole.id, 1))
    service.correct(came.id, [[1.0, 2.0, 3.0]], ["c"])
    for task in (whole, came):
        shown = service.version(task.id, 2).difference
        assert shown.relabeled == {ids(service, task, 2)[1]: ids(service, task, 1)[0]}
        assert (shown.added, shown.removed) == ((), ())


def test_versions_are_paged(service):
    task = made(service)
    service.add(task.id, points(5), ["c"])
    service.add(task.id, points(6), ["c"])
    assert [one.number for one in service.versions(task.id, limit=2)] == [1, 2]
    assert [one.number for one in service.versions(task.id, limit=2, after=2)] == [3]
    with pytest.raises(UserError, match="no version 4"):
        service.version(task.id, 4)


def test_nothing_is_shown_of_what_was_erased(service):
    task = made(service)
    service.add(task.id, points(5), ["secret"])
    service.pin(task.id, 2)
    service.remove(task.id, [ids(service, task, 2)[4]])
    service.erase(task.id, [ids(service, task, 2)[4]])
    _, tombstone, last = service.versions(task.id)
    assert (tombstone.pinned, tombstone.difference, last.difference) == (False, None, None)
    assert "secret" not in repr((tombstone, last))
    for use in (lambda: service.pin(task.id, 2), lambda: service.evaluate(task.id, version=2)):
        with pytest.raises(UserError, match="was erased"):
            use()
    check(service)


def test_the_estimate_of_an_erased_version_is_erased_too(service):
    task = made(service)
    service.add(task.id, points(5, 6), ["a", "b"], estimate=True)
    assert service.version(task.id, 2).estimate is not None
    service.erase(task.id, [ids(service, task, 2)[5]])
    assert service.version(task.id, 2).estimate is None


def test_pinned_versions_keep_their_states(service):
    task = made(service)
    service.pin(task.id, 1, actor="ann")
    for number in range(KEPT_STATES + 1):
        service.correct(task.id, points(1), ["ab"[number % 2 == 0]])

    def states():
        with service.store.reading("default") as rows:
            return [rows.state(task.id, one.number) is not None for one in service.versions(task.id)]

    assert states() == [True, False] + [True] * KEPT_STATES
    assert service.pin(task.id, 2).pinned  # it is adapted again
    assert states() == [True] * (KEPT_STATES + 2)
    assert not service.pin(task.id, 1, pinned=False).pinned
    service.correct(task.id, points(1), ["b" if service.examples(task.id)[-1].label == "a" else "a"])
    assert states() == [False, True, False] + [True] * KEPT_STATES
    with service.store.reading("default") as rows:
        entries = [(one.action, one.version, one.actor) for one in rows.audit(99) if "pin" in one.action]
    assert entries == [("pinned", 1, "ann"), ("pinned", 2, "local"), ("unpinned", 1, "local")]
    check(service)


def test_a_task_is_renamed_unless_the_name_is_taken(service):
    task, other = made(service), made(service, "other")
    assert service.rename(task.id, "cafe\u0301", actor="ann").name == "caf\u00e9"
    assert service.get(task.id).name == "caf\u00e9"
    assert service.rename(task.id, "caf\u00e9").head.number == 1
    for name, code in (("other", "name-taken"), ("a\nb", "invalid-request")):
        with pytest.raises(UserError) as error:
            service.rename(task.id, name)
        assert error.value.code == code
    with pytest.raises(UserError, match="does not exist"):
        service.rename(other.id, "third", tenant="u")
    made(service)  # the first name is free
    with service.store.reading("default") as rows:
        assert [one.actor for one in rows.audit(99) if one.action == "renamed"] == ["ann"]


def test_changes_for_another_version_are_refused(service):
    task = made(service)
    example = ids(service, task, 1)[0]
    uses = [
        lambda: service.rename(task.id, "other", expected=2),
        lambda: service.delete(task.id, expected=2),
        lambda: service.erase(task.id, [example], expected=2),
        lambda: service.remove(task.id, [example], expected=2),
        lambda: service.add(task.id, points(5), ["c"], expected=2),
        lambda: service.correct(task.id, points(5), ["c"], expected=2),
    ]
    for use in uses:
        with pytest.raises(UserError) as conflict:
            use()
        assert conflict.value.code == "version-conflict"
    assert service.get(task.id) == task
    service.erase(task.id, [example], expected=1)
    service.erase(task.id, [example], expected=1)  # sent again


def test_what_would_leave_one_class_is_too_few_examples(service):
    task = made(service)
    with pytest.raises(DataError, match="erase the whole task") as error:
        service.erase(task.id, ids(service, task, 1)[2:])
    assert CODES[error.value.code] == "too-few-examples"
