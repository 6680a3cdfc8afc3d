"""What a store takes for one request does not grow with what it holds."""

import pytest

from handful import Service
from handful.serving import states
from handful.serving.differences import with_differences
from handful.serving.rows import Rows
from serving.worlds import classifier, points


@pytest.fixture
def service(tmp_path):
    with Service(classifier(), tmp_path / "store") as service:
        yield service


def counted(connection, act):
    """Steps that SQLite takes for this on a connection of its driver, in tens."""
    steps = []
    connection.set_progress_handler(lambda: steps.append(1), 10)
    try:
        act()
    finally:
        connection.set_progress_handler(None, 0)
    return len(steps)


def fill(service):
    """Make 400 tasks, of an answered request each, and as many receipts of tasks that were erased."""

    def work(rows):
        for number in range(400):
            at, task = service._now(), f"task_{number}"
            rows.insert_task(task, f"task {number}", keep_examples=True, at=at)
            rows.insert_answer(f"key {number}", "", task, "{}", at, 0)
            rows.receipts.insert(f"erasure_{number}", f"gone_{number}", [], None, at)
            rows.log(at, "ann", "created", task, 1)

    service.store.write("default", work)


@pytest.mark.parametrize("use", ["create", "erase_task", "restore"])
def test_a_request_among_many_tasks_takes_as_long_as_among_few(service, use):
    connection = service.store.writer.outside(lambda driver: driver)

    def create(name):
        return service.create(name, points(1, 2), ["a", "b"], idempotency_key=name).id

    def steps(name):
        if use == "create":
            return counted(connection, lambda: create(name))
        task = create(name)
        if use == "restore":
            service.delete(task)
        return counted(connection, lambda: getattr(service, use)(task))

    create("first")
    few = steps("few")
    fill(service)
    assert steps("many") <= 1.1 * few + 5


def test_differences_of_many_examples_take_as_long_for_each_as_those_of_few(service):
    def steps(count):
        task = service.create(f"{count}", points(*range(count)), (["a", "b"] * count)[:count])
        service.correct(task.id, points(*range(count)), (["b", "a"] * count)[:count])
        with service.store._reading.begin() as connection:
            rows = Rows(connection, "default")
            version = rows.version(task.id, 2)
            found = []
            driver = connection.connection.dbapi_connection
            used = counted(driver, lambda: found.extend(with_differences(rows, task.id, [version])))
        assert len(found[0].difference.relabeled) == count
        return used

    assert steps(200) <= 5 * steps(50)


def test_a_bounded_number_of_erased_versions_is_known(service, monkeypatch):
    monkeypatch.setattr(states, "ERASED", 3)
    for number in range(5):
        task = service.create(f"{number}", points(1, 2), ["a", "b"])
        service.predict(task.id, points(3))
        service.erase_task(task.id)
    assert len(service._states._erased) == 3
