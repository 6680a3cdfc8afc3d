"""What is wrong with a store is found, each kind of it, and a good one is well."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from handful import Service
from handful.errors import ArtifactError
from handful.serving import rows as module
from handful.serving import verification
from handful.serving.backups import backup
from handful.serving.sqlite import FILE
from handful.serving.verification import check_chain, verify
from serving.worlds import classifier, points, regressor


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A store of two models and tenants, with tombstones, dropped states, deleted tasks and one without examples."""
    place = tmp_path_factory.mktemp("verification") / "store"
    with pytest.MonkeyPatch.context() as patch, Service({"a": classifier(), "b": regressor()}, place) as service:
        patch.setattr(module, "KEPT_STATES", 2)
        one = service.create("one", points(1, 2, 3, 4), ["a", "a", "b", "b"], model="a").id
        for number in range(5, 9):
            service.add(one, points(number), ["c"])
        service.erase(one, [service.examples(one)[-1].id])
        service.create("bare", points(1, 2), ["a", "b"], model="a", keep_examples=False)
        two = service.create("two", points(1, 2, 3), [1.0, 2.0, 5.0], model="b", tenant="acme").id
        service.correct(two, points(1), [3.0], tenant="acme")
        service.delete(two, tenant="acme")
        service.tenants.create("nothing")
    return place


@pytest.fixture
def place(good, tmp_path):
    return shutil.copytree(good, tmp_path / "store")


def changed(place, *statements):
    with closing(sqlite3.connect(place / FILE)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def found(place, **how):
    return [str(one) for one in verify(place, **how).findings]


def test_a_good_store_is_well_and_its_backup_too(good, tmp_path):
    made = verify(good)
    assert made.findings == ()
    assert (made.tenants, made.tasks, made.versions, made.adapted) == (3, 3, 9, 7)
    copy = backup(good, tmp_path / "copy")
    assert verify(copy) == made
    assert [path.name for path in tmp_path.iterdir()] == ["copy"], "nothing is made beside it"


def test_a_store_in_use_is_verified_without_a_second_connection_that_writes(place, monkeypatch):
    with Service({"a": classifier(), "b": regressor()}, place) as service:
        service.create("three", points(1, 2), ["a", "b"], model="a")
        opened, connect = [], sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda place, **how: opened.append(place) or connect(place, **how))
        assert verify(place).tasks == 4
    assert opened
    assert all(one.endswith("?mode=ro") for one in opened)


def test_a_sample_of_versions_is_adapted_anew(good):
    assert [verify(good, every=every).adapted for every in (0, 2, 100)] == [0, 3, 0]


NOT = "SELECT id FROM tasks WHERE name = 'one'"
STATE = f"WHERE number = 6 AND task = ({NOT})"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (f"UPDATE versions SET state = zeroblob(900) {STATE}", "version 6: its state does not match its digest"),
        (f"UPDATE versions SET state = NULL {STATE}", "the head has no state"),
        (f'UPDATE versions SET labels = \'["a", "x", "c"]\' {STATE}', "its examples have other classes"),
        (f"UPDATE versions SET examples = 3 {STATE}", "does not have all of its examples"),
        (f"UPDATE versions SET parent = 6 {STATE}", "its parent is not an earlier version"),
        ("UPDATE versions SET labels = '[]' WHERE erased_at > 0", "it was erased, but data of it remain"),
        (
            "UPDATE versions SET number = 9 WHERE number = 6; UPDATE heads SET version = 9 WHERE version = 6; "
            "UPDATE supports SET version = 9 WHERE version = 6",
            "not numbered from 1 without gaps",
        ),
        ("DELETE FROM heads", "the head is not a version"),
        (f"UPDATE heads SET version = 5 WHERE task = ({NOT})", "version 5: the head is not a version, or was erased"),
        ("UPDATE audit SET actor = 'eve' WHERE number = 2", "default: entry 2 of the audit was altered"),
        ("DELETE FROM audit WHERE number = 2", "default: entry 3 of the audit was altered, or one before it"),
        ("DELETE FROM audit WHERE number = 1 AND tenant = 'acme'", "acme: entry 2 of the audit"),
        ("UPDATE tenants SET bytes = 5", "default: its usage was counted wrong"),
        ("UPDATE tasks SET examples = 99", "default, task_"),
        ("UPDATE models SET content = zeroblob(5)", "it cannot be adapted again (damaged-artifact)"),
    ],
)
def test_what_is_wrong_is_found(place, statement, message):
    changed(place, "PRAGMA foreign_keys = OFF", *statement.split("; "))
    assert any(message in one for one in found(place)), found(place)


def test_a_state_that_predicts_otherwise_is_found_in_classes_and_values(place, tmp_path, monkeypatch):
    """Its digest is that of its bytes, but they are of other examples."""
    with Service({"a": classifier(), "b": regressor()}, tmp_path / "other") as service:
        others = [
            service.create("one", points(1, 2, 3, 4, 5, 6, 7), ["a", "b", "b", "b", "c", "c", "c"], model="a").id,
            service.create("two", points(1, 2, 3), [3.0, 2.0, 6.0], model="b").id,
        ]
        with service.store.reading("default") as rows:
            states = [(rows.state(id_, 1), rows.version(id_, 1).digest) for id_ in others]
    with closing(sqlite3.connect(place / FILE)) as connection, connection:
        for name, number, values in zip(("one", "two"), (6, 2), states, strict=True):
            where = "WHERE number = ? AND task = (SELECT id FROM tasks WHERE name = ?)"
            connection.execute(f"UPDATE versions SET state = ?, digest = ? {where}", (*values, number, name))
    told = [one for one in found(place) if "uses" not in one]
    assert len(told) == 2
    assert all("adapted again, it gives other predictions, by " in one for one in told)
    assert not [one for one in found(place, every=0) if "uses" not in one]
    monkeypatch.setattr("handful.serving.derivation.TOLERANCE", 100)
    assert not [one for one in found(place) if "uses" not in one]


def test_a_damaged_or_absent_database_is_refused_in_a_sentence(place, tmp_path):
    with pytest.raises(ArtifactError, match="does not contain a store"):
        verify(tmp_path / "nowhere")
    changed(place, "PRAGMA foreign_keys = OFF", "UPDATE heads SET version = 77")
    with pytest.raises(ArtifactError, match="heads has rows with broken"):
        verify(place)
    content = (place / FILE).read_bytes()
    (place / FILE).write_bytes(content[:8192] + b"\xff" * 20_000 + content[28_192:])
    with pytest.raises(ArtifactError, match="damaged"):
        verify(place)


def test_an_audit_of_many_pages_is_one_chain(place, monkeypatch):
    monkeypatch.setattr(verification, "PAGE", 2)
    assert verify(place, every=0).tenants == 3
    assert found(place, every=0) == []
    with Service({"a": classifier(), "b": regressor()}, place) as service:
        entries = service.audit()
    assert check_chain("default", entries) is None
    assert check_chain("default", entries[2:], entries[1]) is None
    assert check_chain("acme", entries) == 1
