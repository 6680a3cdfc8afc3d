"""What holds of every store, whatever happened to it."""

from handful.serving.rows import entry_hash
from handful.serving.states import digest_of
from handful.serving.supports import adapted


def check(service, tenant="default"):
    """Raise an `AssertionError` where a tenant's tasks break an invariant; returns the number of versions seen."""
    with service.store.reading(tenant) as rows:
        tasks, audit = rows.tasks(10**6), rows.audit(10**6)
        versions = {task.id: rows.versions(task.id) for task in tasks}
        states = {(id_, one.number): rows.state(id_, one.number) for id_, all_ in versions.items() for one in all_}
        examples = {(id_, one.number): rows.examples(id_, one.number) for id_, all_ in versions.items() for one in all_}
        for id_ in rows.all_tasks():
            assert rows.counts.of_task(id_) == rows.counts.measured(id_)
        assert rows.counts.of_tenant() == rows.counts.summed(), "what is used is counted as it changes"
    before = ""
    for place, entry in enumerate(audit, 1):
        at = round(entry.at.timestamp() * 1000)
        facts = tenant, place, at, entry.actor, entry.action, entry.task, entry.version
        assert (entry.number, entry.hash) == (place, entry_hash(before, *facts))
        before = entry.hash
    logged = [(entry.task, entry.version, entry.action) for entry in audit]
    for task in tasks:
        numbers = [one.number for one in versions[task.id]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert task.head in versions[task.id]
        assert task.head.erased_at is None
        assert states[task.id, task.head.number] is not None
        moves = [entry for entry in audit if entry.task == task.id and "pin" not in entry.action]
        moved = [entry.version for entry in moves if entry.version is not None]
        assert moved[-1] == task.head.number, "the audit tells of the last move of the head"
        for one in versions[task.id]:
            assert one.parent in (None, *numbers[: one.number - 1])
            kept, state = examples[task.id, one.number], states[task.id, one.number]
            if one.erased_at is not None:
                assert (one.labels, one.examples, one.digest, state, kept) == (None, None, None, None, [])
                assert (one.estimate, one.pinned) == (None, False)
                continue
            count = logged.count((task.id, one.number, one.change))
            assert count == 1 or (one.change == "erased" and count), "each version is in the audit"
            assert digest_of(state) == one.digest if state is not None else not one.pinned
            if task.keep_examples:
                assert one.examples == len(kept)
                again = adapted(service._states.model(one.model_digest), kept)
                assert digest_of(again.to_bytes()) == one.digest
    return sum(map(len, versions.values()))
