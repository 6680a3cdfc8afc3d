"""What fails at one step in PostgreSQL leaves all as it was or as it should be, and the next request is carried out."""

from functools import partial

import pytest

from handful import Service
from handful.errors import HandfulError
from handful.serving import rows
from serving.failing import Failpoint, failing_in_postgres
from serving.operations import OPERATIONS, finish, in_a_process, make, shelf, shown
from serving.worlds import classifier, points

POINTS = [
    # operation, step, statement, whether it fails after it
    ("create", "the transaction begins", "SELECT set_config.*advisory", False),
    ("create", "the lock of the tenant is taken", "SELECT set_config.*advisory", True),
    ("create", "the counts of the tenant", "INSERT INTO tenants|UPDATE tenants", True),
    ("create", "the row of the task", "INSERT INTO tasks", True),
    ("create", "its examples", "INSERT INTO examples", True),
    ("create", "the version with its state", "INSERT INTO versions", False),
    ("create", "after the state", "INSERT INTO versions", True),
    ("create", "the support", "INSERT INTO supports", True),
    ("create", "the head", "INSERT INTO heads", True),
    ("create", "the audit", "INSERT INTO audit", True),
    ("create", "the answer that is kept", "INSERT INTO requests", True),
    ("create", "the commit", "COMMIT", False),
    ("create", "after the commit", "COMMIT", True),
    ("import", "the version", "INSERT INTO versions", True),
    ("add", "the examples", "INSERT INTO examples", True),
    ("add", "after the commit", "COMMIT", True),
    ("correct", "the head moves", "UPDATE heads", False),
    ("correct", "the states of old versions are dropped", "UPDATE versions", True),
    ("correct", "the commit", "COMMIT", False),
    ("remove", "the head has moved", "UPDATE heads", True),
    ("roll back", "the state is there again", "UPDATE versions", True),
    ("roll back", "the commit", "COMMIT", False),
    ("delete", "the task is marked", "UPDATE tasks", True),
    ("erase", "the support is deleted", "DELETE FROM supports", True),
    ("erase", "the examples are deleted", "DELETE FROM examples", True),
    ("erase", "versions become tombstones", r"UPDATE versions SET .*erased_at=%", True),
    ("erase", "kept answers are deleted", "DELETE FROM requests", True),
    ("erase", "the erasure is noted", "INSERT INTO erasures", True),
    ("erase", "the commit", "COMMIT", False),
    ("erase", "after the commit", "COMMIT", True),
    ("erase", "the receipt", "UPDATE erasures", False),
    ("erase a task", "the rows of its versions", "DELETE FROM versions", True),
    ("key", "its row", "INSERT INTO keys", True),
    ("tenant", "the audit", "INSERT INTO audit", False),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(autouse=True)
def few_states(monkeypatch):
    monkeypatch.setattr(rows, "KEPT_STATES", 1)


@pytest.fixture(scope="module")
def wanted(model, cluster):
    """What is stored before anything and once each operation was done."""
    found = {}

    def after(operation):
        if operation not in found:
            with Service(model, made(model, cluster)) as service:
                before = shown(service)
                OPERATIONS[operation](service, shelf(service))
                found[operation] = before, shown(service)
        return found[operation]

    return after


def made(model, cluster):
    """The address of a store with some tasks, in place of the one before."""
    address = cluster.store()
    with Service(model, address, clock=lambda: 10**18) as service:
        make(service)
    return address


@pytest.mark.parametrize("how", ["a lost connection", "a full disk", "a kill"])
@pytest.mark.parametrize(
    ("operation", "statement", "after"),
    [pytest.param(name, *point, id=f"{name}: {step}") for name, step, *point in POINTS],
)
def test_a_request_that_fails_in_postgresql_is_done_or_not_and_the_next_one_is(
    model, cluster, wanted, operation, statement, after, how
):
    committing = statement == "COMMIT"
    if how == "a full disk" and committing and after:
        how = "a lost connection"  # a full disk undoes a commit
    point, do, (before, goal) = Failpoint(statement, after, how, met=True), OPERATIONS[operation], wanted(operation)
    address = made(model, cluster)

    def fail(service):
        task = shelf(service)
        for version in (1, 2):
            service.predict(task, points(9), version=version)
        point.met = False
        if how == "a lost connection" and not committing:
            do(service, task)  # it is begun anew
            assert point.met
            assert shown(service) == goal
            return
        with pytest.raises(HandfulError) as told:
            do(service, task)
        assert point.met
        assert told.value.code == ("failed" if how == "a lost connection" else "unwritable")
        if shown(service) != before:
            partly = "in no table any more" in told.value.message
            assert partly or told.value.code == "failed", "it was said that nothing was done"

    def use(*works):
        with failing_in_postgres(point), Service(model, address) as service:
            for work in works:
                work(service)

    go_on = partial(finish, operation=operation, goal=goal)
    if how == "a kill":
        in_a_process(lambda: use(fail))
        use(go_on)
    else:
        use(fail, go_on)
