"""What tasks and tenants use of a store, counted in the transactions that change it."""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    LargeBinary,
    String,
    Table,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from handful.serving.tables import (
    AUDIT,
    ENCODINGS,
    ERASURES,
    EXAMPLES,
    HEADS,
    KEYS,
    REQUESTS,
    SUPPORTS,
    TASKS,
    TENANTS,
    VERSIONS,
)

OF_TASK = {TASKS: TASKS.c.id} | {one: one.c.task for one in (VERSIONS, HEADS, EXAMPLES, ENCODINGS, SUPPORTS)}
"""Tables whose rows count for a task, by the column that names it."""

OF_TENANT = (KEYS, REQUESTS, ERASURES, AUDIT)
"""Tables whose rows count for their tenant alone."""

NUMBER = 8
"""Bytes for which a number, a time or a truth value counts, also where it is missing."""


@dataclass(frozen=True)
class Usage:
    """What is stored: of all versions, of deleted tasks too until they are erased.

    tasks: how many.
    examples: how many, those of earlier versions among them.
    bytes: of all values in rows of the tenant: its examples, as they were given and as each model sees them, versions
        with their states and the ids of their examples, keys, audit, receipts, and answers to requests with an
        idempotency key. The database takes more for its indexes and for room between them. Of one task: what would go
        with it.
    """

    tasks: int
    examples: int
    bytes: int


class Counts:
    """What one tenant and its tasks use, kept on their rows; what is written of them goes through here.

    connection: inside a transaction, before whose end `note` has to be called.
    """

    def __init__(self, connection: Connection, tenant: str) -> None:
        self._run, self._tenant = connection.execute, tenant
        self._moved: dict[str | None, list[int]] = defaultdict(lambda: [0, 0, 0])

    def insert(self, table: Table, task: str | None, *rows: dict[str, Any]) -> None:
        """Add rows of a task, or of none, whose tenant and task need not be in them."""
        of_all = {"tenant": self._tenant} if task is None else {"tenant": self._tenant, OF_TASK[table].name: task}
        whole = [of_all | row for row in rows]
        if whole:
            self._run(insert(table), whole)
            size = sum(_nbytes(value) for row in whole for value in row.values())
            self._move(table, task, len(whole), len(whole) * _fixed(table) + size)

    def update(self, table: Table, task: str | None, *where: ColumnElement[bool], **values: Any) -> None:
        """Change the values of some rows of a task, or of none."""
        own = self._own(table, task, *where)
        count, old = self._measure(own, sum((_length(table.c[name]) for name in values), literal(0)))
        if count:
            self._run(update(table).where(*own).values(**values))
            self._move(table, task, 0, count * sum(map(_nbytes, values.values())) - old)

    def delete(self, table: Table, task: str | None, *where: ColumnElement[bool]) -> None:
        """Remove some rows of a task, or of none."""
        own = self._own(table, task, *where)
        count, size = self._measure(own, _size(table))
        if count:
            self._run(delete(table).where(*own))
            self._move(table, task, -count, -size)

    def note(self) -> None:
        """Note on the rows of the tenant and its tasks what was counted."""
        moved, whole = dict(self._moved), TENANTS.c.tenant == self._tenant
        self._moved.clear()
        for task, (_, examples, size) in moved.items():
            if task is not None:
                more = {"examples": TASKS.c.examples + examples, "bytes": TASKS.c.bytes + size}
                self._run(update(TASKS).where(*self._own(TASKS, task)).values(more))
        if moved:
            more = {
                name: TENANTS.c[name] + sum(one[place] for one in moved.values())
                for place, name in enumerate(("tasks", "examples", "bytes"))
            }
            self._run(update(TENANTS).where(whole).values(more))

    def of_tenant(self) -> Usage:
        """The usage of the tenant; zero for an unknown one."""
        self.note()
        noted = select(TENANTS.c.tasks, TENANTS.c.examples, TENANTS.c.bytes).where(TENANTS.c.tenant == self._tenant)
        row = self._run(noted).first()
        return Usage(0, 0, 0) if row is None else Usage(*row)

    def of_tasks(self) -> Usage:
        """The usage of all tasks of the tenant, by what is noted of each."""
        self.note()
        sums = select(func.count(), func.sum(TASKS.c.examples), func.sum(TASKS.c.bytes))
        count, examples, size = self._run(sums.where(TASKS.c.tenant == self._tenant)).one()
        return Usage(count, int(examples or 0), int(size or 0))

    def of_task(self, task: str) -> Usage:
        """The usage of a task; zero for an unknown one."""
        self.note()
        row = self._run(select(TASKS.c.examples, TASKS.c.bytes).where(*self._own(TASKS, task))).first()
        return Usage(0, 0, 0) if row is None else Usage(1, *row)

    def measured(self, task: str) -> Usage:
        """What a task uses by all of its rows."""
        found = {table: self._measure(self._own(table, task), _size(table)) for table in OF_TASK}
        return Usage(found[TASKS][0], found[EXAMPLES][0], sum(size for _, size in found.values()))

    def summed(self) -> Usage:
        """What the tenant uses by what is noted of its tasks, and by all of its other rows."""
        tasks = self.of_tasks()
        others = sum(self._measure(self._own(table, None), _size(table))[1] for table in OF_TENANT)
        return replace(tasks, bytes=tasks.bytes + others)

    def _measure(self, where: list[ColumnElement[bool]], size: ColumnElement[int]) -> tuple[int, int]:
        """How many rows these are, and the sum of their sizes."""
        count, total = self._run(select(func.count(), func.sum(size)).where(*where)).one()
        return count, int(total or 0)

    def _move(self, table: Table, task: str | None, rows: int, size: int) -> None:
        moved = self._moved[task]
        moved[0] += rows if table is TASKS else 0
        moved[1] += rows if table is EXAMPLES else 0
        moved[2] += size

    def _own(self, table: Table, task: str | None, *where: ColumnElement[bool]) -> list[ColumnElement[bool]]:
        of_task = () if task is None else (OF_TASK[table] == task,)
        return [table.c.tenant == self._tenant, *of_task, *where]


class _Octets(GenericFunction[int]):
    """Bytes of a text, which SQLite before 3.43 has no function for."""

    name, inherit_cache = "octet_length", True


@compiles(_Octets, "sqlite")
def _octets(element: _Octets, compiler: SQLCompiler, **options: Any) -> str:
    return f"length(CAST({compiler.process(element.clauses, **options)} AS BLOB))"


def _size(table: Table) -> ColumnElement[int]:
    """Bytes of a row."""
    return sum((_length(column) for column in table.c), literal(_fixed(table)))


def _fixed(table: Table) -> int:
    """Bytes of a row but for its texts and blobs."""
    return NUMBER * sum(not isinstance(column.type, String | LargeBinary) for column in table.c)


def _length(column: Column[Any]) -> ColumnElement[int]:
    """Bytes of a row's text or blob, none of other values."""
    if isinstance(column.type, LargeBinary):  # whose length SQLite knows without reading it
        return func.coalesce(func.length(column), 0)
    return func.coalesce(_Octets(column), 0) if isinstance(column.type, String) else literal(0)


def _nbytes(value: object) -> int:
    """As `_length`, of a value."""
    return len(value) if isinstance(value, bytes) else len(value.encode()) if isinstance(value, str) else 0
