"""What a service is asked for while something fails, and what is stored before and after it."""

import os
import signal

from handful.errors import UserError
from serving.oracle import check
from serving.worlds import points

OPERATIONS = {
    "create": lambda s, t: s.create("new", points(20, 21), ["a", "b"], idempotency_key="k"),
    "add": lambda s, t: s.add(t, points(22), ["b"], idempotency_key="k"),
    "correct": lambda s, t: s.correct(t, points(1), ["b"], idempotency_key="k"),
    "remove": lambda s, t: s.remove(t, [s.examples(t, 2)[4].id], expected=2),
    "roll back": lambda s, t: s.roll_back(t, 1),
    "delete": lambda s, t: s.delete(t),
    "erase": lambda s, t: s.erase(t, [s.examples(t, 2)[4].id] if s.versions(t)[1].erased_at is None else erased(s, t)),
    "erase a task": lambda s, t: s.erase_task(t),
    "import": lambda s, t: s.import_task("new", s.export(t, 1), idempotency_key="k"),
    "key": lambda s, t: s.keys.create("default", "predict", "of a test", idempotency_key="k"),
    "tenant": lambda s, t: s.tenants.create("acme", idempotency_key="k"),
}

DONE = {"name-taken", "not-found", "version-conflict"}
"""What is answered to what was done already."""


def make(service):
    """Two tasks, one of which has two versions."""
    task = service.create("shelf", points(1, 2, 3, 4), ["a", "a", "b", "b"], idempotency_key="first").id
    service.add(task, points(5), ["a"])
    service.create("other", points(6, 7), ["c", "d"])


def erased(service, task):
    with service.store.reading("default") as found:
        return [one.strip('"[]') for one in found.receipts.of_task(task)[0].examples.split(", ")]


def shelf(service):
    """The id of the task, also where it is deleted or erased."""
    with service.store.reading("default") as found:
        return found.audit(1)[0].task


def shown(service):
    """All that is stored, but for ids and times."""
    with service.store.reading("default") as found:
        ids = found.all_tasks()
        records = [found.task(id_, deleted=True) for id_ in ids]
        tasks = [(one.name, one.deleted_at is None, one.head.number) for one in records]
        versions = [
            [(one.number, one.change, one.digest, one.parent, one.erased_at is None) for one in found.versions(id_)]
            for id_ in ids
        ]
        audit = [(entry.action, entry.version) for entry in found.audit(100)]
        erasures = [(row.version, row.digest) for row in found.receipts.of_task(audit and found.audit(1)[0].task)]
        answers = [found.answer(key, 0) is not None for key in ("first", "k")]
        usage, keys = found.counts.of_tenant(), len(found.directory.keys(9, ""))
    tenants = [one.name for one in service.tenants.list()]
    return tasks, versions, audit, erasures, answers, usage, keys, tenants


def held_though_erased(service):
    """Versions in memory that are in no table any more, or are tombstones there."""
    with service.store.reading("default") as found:
        there = [
            ("default", id_, one.number)
            for id_ in found.all_tasks()
            for one in found.versions(id_)
            if one.erased_at is None
        ]
    return [key for bank in service._states._banks.values() for key in bank._slots if key not in there]


def in_a_process(work):
    """Do work in a process that is killed meanwhile."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, "it did not come so far"


def finish(service, operation, goal):
    """Do an operation, unless it is done, and look whether all is stored that it should leave."""
    try:
        OPERATIONS[operation](service, shelf(service))
    except UserError as error:
        if error.code not in DONE:
            raise
    check(service)
    assert shown(service) == goal
    assert not held_though_erased(service)
