"""What tasks and tenants use of a store, counted in the transactions that change it."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, select, update

from handful.serving.tables import ENCODINGS, EXAMPLES, TASKS, TENANTS, VERSIONS

_OF_EXAMPLES = (EXAMPLES.c.tenant == TASKS.c.tenant) & (EXAMPLES.c.task == TASKS.c.id)
_OF_ENCODINGS = (ENCODINGS.c.tenant == TASKS.c.tenant) & (ENCODINGS.c.task == TASKS.c.id)
_OF_VERSIONS = (VERSIONS.c.tenant == TASKS.c.tenant) & (VERSIONS.c.task == TASKS.c.id)
_SIZE = func.sum(func.length(EXAMPLES.c.content) + func.length(EXAMPLES.c.encoded))
COUNTED = select(
    TASKS.c.examples,
    TASKS.c.bytes,
    select(func.count()).select_from(EXAMPLES).where(_OF_EXAMPLES).scalar_subquery().label("held"),
    select(_SIZE).where(_OF_EXAMPLES).scalar_subquery().label("given"),
    select(func.sum(func.length(ENCODINGS.c.encoded))).where(_OF_ENCODINGS).scalar_subquery().label("encodings"),
    select(func.sum(func.length(VERSIONS.c.state))).where(_OF_VERSIONS).scalar_subquery().label("states"),
).where(TASKS.c.tenant == bindparam("of_tenant"), TASKS.c.id == bindparam("of_task"))
"""What is noted of a task, and how many examples it has, their bytes and those of its states, by all of its rows."""


@dataclass(frozen=True)
class Usage:
    """What is stored: of all versions, of deleted tasks too until they are erased.

    tasks: how many.
    examples: how many, those of earlier versions among them.
    bytes: of the examples, as they were given and as each model sees them, and of the versions' states. Not counted
        are names, labels and scores of versions, which examples each version has (some 100 bytes for each of them), the
        audit, receipts, and answers to requests with an idempotency key.
    """

    tasks: int
    examples: int
    bytes: int


class Counts:
    """What one tenant and its tasks use, kept on their rows.

    connection: inside a transaction.
    """

    def __init__(self, connection: Connection, tenant: str) -> None:
        self._run, self._tenant = connection.execute, tenant

    def of_tenant(self) -> Usage:
        """What the tenant uses; nothing where there is none."""
        row = self._run(select(TENANTS.c.tasks, TENANTS.c.examples, TENANTS.c.bytes).where(self._row())).first()
        return Usage(0, 0, 0) if row is None else Usage(*row)

    def of_task(self, task: str) -> Usage:
        """What a task uses, as of its last count; nothing where there is none."""
        row = self._run(select(TASKS.c.examples, TASKS.c.bytes).where(self._of(task))).first()
        return Usage(0, 0, 0) if row is None else Usage(1, *row)

    def summed(self) -> Usage:
        """What the tenant's tasks use together, as of their last counts."""
        sums = select(func.count(), func.sum(TASKS.c.examples), func.sum(TASKS.c.bytes))
        count, examples, size = self._run(sums.where(TASKS.c.tenant == self._tenant)).one()
        return Usage(count, int(examples or 0), int(size or 0))

    def add(self, at: int) -> None:
        """Count a new task, of a tenant that is new where it has no row."""
        if not self._run(update(TENANTS).where(self._row()).values(tasks=TENANTS.c.tasks + 1)).rowcount:
            self._run(insert(TENANTS).values(tenant=self._tenant, created_at=at, tasks=1))

    def recount(self, task: str) -> None:
        """Count what a task uses now."""
        old, new = self.counted(task)
        if new != old:
            self._run(update(TASKS).where(self._of(task)).values(examples=new.examples, bytes=new.bytes))
            self._move(0, new.examples - old.examples, new.bytes - old.bytes)

    def counted(self, task: str) -> tuple[Usage, Usage]:
        """What a task uses as of its last count, and by all of its rows."""
        row = self._run(COUNTED, {"of_tenant": self._tenant, "of_task": task}).one()
        size = sum(int(part or 0) for part in (row.given, row.encodings, row.states))
        return Usage(1, row.examples, row.bytes), Usage(1, row.held, size)

    def remove(self, task: str) -> None:
        """Count a task no more."""
        old = self.of_task(task)
        self._move(-old.tasks, -old.examples, -old.bytes)

    def _move(self, tasks: int, examples: int, size: int) -> None:
        values = {"tasks": tasks, "examples": examples, "bytes": size}
        moved = {name: TENANTS.c[name] + more for name, more in values.items() if more}
        if moved:
            self._run(update(TENANTS).where(self._row()).values(**moved))

    def _row(self) -> ColumnElement[bool]:
        return TENANTS.c.tenant == self._tenant

    def _of(self, task: str) -> ColumnElement[bool]:
        return (TASKS.c.tenant == self._tenant) & (TASKS.c.id == task)
