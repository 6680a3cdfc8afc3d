"""The queries of a store: everything that is read or written of one tenant, on one connection."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, case, exists, func, insert, select, true, update

from handful.errors import UserError
from handful.serving.directory import Directory
from handful.serving.receipts import Receipts
from handful.serving.records import AuditEntry, Estimate, Example, TaskRecord, Version, as_datetime
from handful.serving.tables import (
    AUDIT,
    ENCODINGS,
    EXAMPLES,
    HEADS,
    MODELS,
    REQUESTS,
    SUPPORTS,
    TASKS,
    VERSIONS,
)
from handful.serving.usage import Counts

KEPT_STATES = 20
"""So many of a task's last versions keep their states, as the head and pinned ones do; others are adapted again."""

FACTS = [column for column in VERSIONS.c if column.name not in ("tenant", "task", "state")]
"""What is read of a version without its state."""


class Rows:
    """The rows of one tenant; no method but `of` leads to those of another.

    connection: inside a transaction.
    tenant: whose rows they are.
    changed: to which tasks are added whose head may be another one afterwards, or deleted.
    enter: lets the transaction see the rows of a tenant, and those alone; None: it sees all.
    """

    def __init__(
        self,
        connection: Connection,
        tenant: str,
        changed: set[str] | None = None,
        enter: Callable[[str], None] | None = None,
    ) -> None:
        self._connection, self._run, self._tenant = connection, connection.execute, tenant
        self._changed = set() if changed is None else changed
        self._enter = enter or (lambda _: None)
        self.counts = Counts(connection, tenant)
        self.directory = Directory(connection, tenant, self.counts)
        self.receipts = Receipts(connection, tenant, self.counts)

    # Tasks

    def insert_task(self, id_: str, name: str, *, keep_examples: bool, at: int) -> None:
        """Add a task; `UserError` if one that is not deleted has its name."""
        self.check_free(name)
        if not self.directory.tenants(1, ""):
            self.directory.insert_tenant(at)
        self.counts.insert(TASKS, id_, {"name": name, "keep_examples": keep_examples, "created_at": at})

    def check_free(self, name: str) -> None:
        """Raise `UserError` if a task that is not deleted has this name."""
        taken = select(TASKS.c.id).where(self._own(TASKS), TASKS.c.name == name, TASKS.c.deleted_at.is_(None))
        if self._run(taken).first():
            raise UserError(f"A task {name!r} already exists. Choose another name.", code="name-taken")

    def task(self, id_: str, *, deleted: bool = False) -> TaskRecord:
        """A task with its head; `UserError` if it does not exist, or is deleted and not requested as such."""
        row = self._run(self._tasks().where(TASKS.c.id == id_)).first()
        if row is None or (row.deleted_at is not None and not deleted):
            raise UserError(f"The task {id_!r} does not exist.", code="not-found")
        return _task(row)

    def tasks(self, limit: int, after: str = "", *, deleted: bool = False) -> list[TaskRecord]:
        """Tasks that are not deleted, or those that are, by id."""
        chosen = TASKS.c.deleted_at.is_not(None) if deleted else TASKS.c.deleted_at.is_(None)
        wanted = self._tasks().where(TASKS.c.id > after, chosen)
        return [_task(row) for row in self._run(wanted.order_by(TASKS.c.id).limit(limit))]

    def head_number(self, task: str) -> int | None:
        """The number of a task's head; None if it has none, or does not exist."""
        return self._run(select(HEADS.c.version).where(self._of(HEADS, task))).scalar()

    def set_name(self, id_: str, name: str) -> None:
        """Rename a task; `UserError` if another one that is not deleted has the name."""
        self.check_free(name)
        self.counts.update(TASKS, id_, name=name)

    def set_deleted(self, id_: str, at: int | None) -> None:
        """Say since when a task is deleted; None: it is not."""
        self._changed.add(id_)
        self._run(update(TASKS).where(self._own(TASKS), TASKS.c.id == id_).values(deleted_at=at))

    def _tasks(self) -> Any:
        """All tasks with their heads."""
        return (
            select(
                TASKS.c.id, TASKS.c.name, TASKS.c.keep_examples, TASKS.c.deleted_at, TASKS.c.created_at.label("made")
            )
            .add_columns(*FACTS)
            .join(HEADS, (HEADS.c.tenant == TASKS.c.tenant) & (HEADS.c.task == TASKS.c.id))
            .join(
                VERSIONS,
                (VERSIONS.c.tenant == HEADS.c.tenant)
                & (VERSIONS.c.task == HEADS.c.task)
                & (VERSIONS.c.number == HEADS.c.version),
            )
            .where(self._own(TASKS))
        )

    def all_tasks(self) -> list[str]:
        """The ids of all tasks, the deleted ones too."""
        return list(self._run(select(TASKS.c.id).where(self._own(TASKS)).order_by(TASKS.c.id)).scalars())

    def deleted_before(self, at: int) -> list[str]:
        """The ids of tasks that were deleted before this time."""
        return list(self._run(select(TASKS.c.id).where(self._own(TASKS), TASKS.c.deleted_at < at)).scalars())

    # Versions

    def insert_version(self, task: str, number: int, support: Iterable[str], **facts: Any) -> None:
        """Add a version with the ids of its examples, which are there already; see the table for its facts."""
        self.counts.insert(VERSIONS, task, {"number": number, **facts})
        self.counts.insert(SUPPORTS, task, *({"version": number, "example": id_} for id_ in support))

    def last_number(self, task: str) -> int:
        """The number of a task's newest version; 0 if it has none."""
        return self._run(select(func.max(VERSIONS.c.number)).where(self._of(VERSIONS, task))).scalar() or 0

    def version(self, task: str, number: int) -> Version:
        """A version; `UserError` if it does not exist."""
        row = self._run(select(*FACTS).where(self._of(VERSIONS, task), VERSIONS.c.number == number)).first()
        if row is None:
            raise UserError(f"The task has no version {number}.", code="not-found")
        return _version(row)

    def versions(self, task: str, limit: int | None = None, after: int = 0) -> list[Version]:
        """Versions of a task, from the first one after this number."""
        wanted = select(*FACTS).where(self._of(VERSIONS, task), VERSIONS.c.number > after)
        return [_version(row) for row in self._run(wanted.order_by(VERSIONS.c.number).limit(limit))]

    def set_pinned(self, task: str, number: int, pinned: bool) -> None:
        """Say whether a version keeps its state, unless it was erased."""
        self._changed.add(task)
        self._run(
            update(VERSIONS)
            .where(self._of(VERSIONS, task), VERSIONS.c.number == number, VERSIONS.c.erased_at.is_(None))
            .values(pinned=pinned)
        )

    def state(self, task: str, number: int) -> bytes | None:
        """The state of a version; None if it was dropped or erased."""
        return self._run(select(VERSIONS.c.state).where(self._of(VERSIONS, task), VERSIONS.c.number == number)).scalar()

    def set_state(self, task: str, number: int, state: bytes, digest: str) -> None:
        """Put a state that was adapted again in its place, unless the version was erased meanwhile."""
        self._changed.add(task)
        there = VERSIONS.c.number == number, VERSIONS.c.erased_at.is_(None)
        self.counts.update(VERSIONS, task, *there, state=state, digest=digest)

    def drop_old_states(self, task: str, head: int) -> None:
        """Drop the states of all versions but the last ones, pinned ones and the head."""
        old = VERSIONS.c.number <= self.last_number(task) - KEPT_STATES, VERSIONS.c.number != head
        self.counts.update(VERSIONS, task, *old, ~VERSIONS.c.pinned, VERSIONS.c.state.is_not(None), state=None)

    def set_head(self, task: str, version: int, *, expected: int | None = None) -> None:
        """Move the head of a task from the version where it is expected; None: the task is new.

        Raises `UserError` if it is elsewhere.
        """
        self._changed.add(task)
        if expected is None:
            self.counts.insert(HEADS, task, {"version": version})
            return
        moved = self._run(
            update(HEADS).where(self._of(HEADS, task), HEADS.c.version == expected).values(version=version)
        )
        if not moved.rowcount:
            raise UserError(f"The task is no longer at version {expected}. Read it again.", code="version-conflict")

    # Examples

    def insert_examples(self, task: str, examples: Sequence[Example], at: int) -> None:
        """Add examples, which are yet to be in a version."""
        self.counts.insert(EXAMPLES, task, *({"created_at": at, **vars(example)} for example in examples))

    def insert_encodings(self, task: str, examples: Sequence[Example], model: str) -> None:
        """Keep how a further model's pipeline stores examples that are there, where that differs from their own."""
        ids = [example.id for example in examples]
        own = select(EXAMPLES.c.id, EXAMPLES.c.encoded).where(self._of(EXAMPLES, task), EXAMPLES.c.id.in_(ids))
        known = select(ENCODINGS.c.example).where(self._of(ENCODINGS, task), ENCODINGS.c.model_digest == model)
        first, there = {row.id: row.encoded for row in self._run(own)}, set(self._run(known).scalars())
        rows = (
            {"model_digest": model, "example": example.id, "encoded": example.encoded}
            for example in examples
            if example.id not in there and first[example.id] != example.encoded
        )
        self.counts.insert(ENCODINGS, task, *rows)

    def examples(
        self,
        task: str,
        version: int,
        among: Collection[str] | None = None,
    ) -> list[Example]:
        """The examples of a version, by id, encoded for its model.

        among: ids of those that are wanted; None: all.
        """
        columns: dict[str, Any] = {name: EXAMPLES.c[name] for name in Example.__dataclass_fields__}
        columns["encoded"] = func.coalesce(ENCODINGS.c.encoded, EXAMPLES.c.encoded)
        model = select(VERSIONS.c.model_digest).where(self._of(VERSIONS, task), VERSIONS.c.number == version)
        rows = self._run(
            select(*columns.values())
            .join(
                SUPPORTS,
                (SUPPORTS.c.tenant == EXAMPLES.c.tenant)
                & (SUPPORTS.c.task == EXAMPLES.c.task)
                & (SUPPORTS.c.example == EXAMPLES.c.id),
            )
            .outerjoin(
                ENCODINGS,
                (ENCODINGS.c.tenant == EXAMPLES.c.tenant)
                & (ENCODINGS.c.task == EXAMPLES.c.task)
                & (ENCODINGS.c.example == EXAMPLES.c.id)
                & (ENCODINGS.c.model_digest == model.scalar_subquery()),
            )
            .where(self._of(EXAMPLES, task), SUPPORTS.c.version == version)
            .where(true() if among is None else EXAMPLES.c.id.in_(among))
            .order_by(EXAMPLES.c.id)
        )
        return [Example(*row) for row in rows]

    def page(self, task: str, version: int, limit: int, nbytes: int, after: str = "") -> tuple[list[str], bool]:
        """The ids of a version's next examples: so many at most, in so many bytes unless the first alone has more.

        Returns also whether others follow.
        """
        size = case(
            (EXAMPLES.c.media == "encoded", func.length(EXAMPLES.c.encoded)), else_=func.length(EXAMPLES.c.content)
        )
        wanted = (
            select(EXAMPLES.c.id, size.label("size"))
            .join(
                SUPPORTS,
                (SUPPORTS.c.tenant == EXAMPLES.c.tenant)
                & (SUPPORTS.c.task == EXAMPLES.c.task)
                & (SUPPORTS.c.example == EXAMPLES.c.id),
            )
            .where(self._of(EXAMPLES, task), SUPPORTS.c.version == version, EXAMPLES.c.id > after)
        )
        ids, held = list[str](), 0
        for row in self._run(wanted.order_by(EXAMPLES.c.id).limit(limit + 1)):
            held += row.size
            if ids and (len(ids) == limit or held > nbytes):
                return ids, True
            ids.append(row.id)
        return ids, False

    def support(self, task: str, version: int) -> list[str]:
        """The ids of a version's examples, in order."""
        of_version = select(SUPPORTS.c.example).where(self._of(SUPPORTS, task), SUPPORTS.c.version == version)
        return list(self._run(of_version.order_by(SUPPORTS.c.example)).scalars())

    # Erasing

    def known_examples(self, task: str, ids: Collection[str]) -> set[str]:
        """Which of these ids are examples of a task, in whatever version."""
        wanted = select(EXAMPLES.c.id).where(self._of(EXAMPLES, task), EXAMPLES.c.id.in_(ids))
        return set(self._run(wanted).scalars())

    def all_examples(self, task: str) -> list[str]:
        """The ids of a task's examples, in whatever version."""
        return list(self._run(select(EXAMPLES.c.id).where(self._of(EXAMPLES, task)).order_by(EXAMPLES.c.id)).scalars())

    def versions_with(self, task: str, ids: Collection[str]) -> list[int]:
        """The versions that hold one of these examples."""
        found = select(SUPPORTS.c.version).where(self._of(SUPPORTS, task), SUPPORTS.c.example.in_(ids))
        return sorted(set(self._run(found).scalars()))

    def erase_examples(self, task: str, ids: Collection[str], at: int) -> list[int]:
        """Remove examples, and all of the versions that hold one but number, time and actor.

        What was answered to requests for the task goes too, and examples that no version holds any more. Returns the
        numbers of those versions.
        """
        gone = self.versions_with(task, ids)
        self.counts.delete(SUPPORTS, task, SUPPORTS.c.version.in_(gone))
        held = exists().where(
            SUPPORTS.c.tenant == EXAMPLES.c.tenant,
            SUPPORTS.c.task == EXAMPLES.c.task,
            SUPPORTS.c.example == EXAMPLES.c.id,
        )
        nobody_s = select(EXAMPLES.c.id).where(self._of(EXAMPLES, task), ~held)
        self.counts.delete(ENCODINGS, task, ENCODINGS.c.example.in_(nobody_s))
        self.counts.delete(EXAMPLES, task, ~held)
        nothing = dict.fromkeys(("labels", "targets", "examples", "digest", "estimate", "state"))
        self.counts.update(VERSIONS, task, VERSIONS.c.number.in_(gone), erased_at=at, pinned=False, **nothing)
        self.counts.delete(REQUESTS, None, REQUESTS.c.task == task)
        return gone

    def erase_task(self, task: str) -> None:
        """Remove all rows of a task but those of the audit and of receipts."""
        self._changed.add(task)
        self.counts.delete(REQUESTS, None, REQUESTS.c.task == task)
        for table in (SUPPORTS, ENCODINGS, EXAMPLES, HEADS, VERSIONS, TASKS):
            self.counts.delete(table, task)

    # Requests

    @contextlib.contextmanager
    def of(self, tenant: str) -> Iterator["Rows"]:
        """The rows of whoever sent a request, or whom it is about, in the same transaction; no task of theirs changes.

        Inside, only those are used; after an error the transaction is of no use.
        """
        if tenant == self._tenant:
            yield self
            return
        self._enter(tenant)
        others = Rows(self._connection, tenant)
        yield others
        others.counts.note()
        self._enter(self._tenant)

    def answer(self, key: str, since: int) -> tuple[str, str] | None:
        """Fingerprint and answer of the request with this key; None without one since then."""
        wanted = select(REQUESTS.c.fingerprint, REQUESTS.c.answer).where(self._own(REQUESTS), REQUESTS.c.key == key)
        row = self._run(wanted.where(REQUESTS.c.created_at >= since)).first()
        return None if row is None else (row.fingerprint, row.answer)

    def insert_answer(self, key: str, fingerprint: str, task: str | None, answer: str, at: int, since: int) -> None:
        """Keep what was answered to a request, about a task or none, and drop the responses from before `since`."""
        self.drop_answers(since)
        facts = {"key": key, "fingerprint": fingerprint, "task": task, "answer": answer, "created_at": at}
        self.counts.insert(REQUESTS, None, facts)

    def has_answers(self, before: int) -> bool:
        """Whether answers from before some time are kept."""
        old = select(REQUESTS.c.key).where(self._own(REQUESTS), REQUESTS.c.created_at < before)
        return self._run(old.limit(1)).first() is not None

    def drop_answers(self, before: int) -> None:
        """Drop the responses from before some time."""
        self.counts.delete(REQUESTS, None, REQUESTS.c.created_at < before)

    # Models, which all tenants share

    def model(self, digest: str) -> bytes | None:
        """The file of a model in use."""
        return self._run(select(MODELS.c.content).where(MODELS.c.digest == digest)).scalar()

    def has_model(self, digest: str) -> bool:
        """Whether the store keeps a model."""
        return self._run(select(MODELS.c.digest).where(MODELS.c.digest == digest)).first() is not None

    def insert_model(self, digest: str, content: bytes) -> None:
        """Keep a model."""
        self._run(insert(MODELS).values(digest=digest, content=content))

    # Audit

    def log(self, at: int, actor: str, action: str, task: str, version: int | None) -> None:
        """Append to the audit."""
        last = self._run(
            select(AUDIT.c.number, AUDIT.c.hash).where(self._own(AUDIT)).order_by(AUDIT.c.number.desc()).limit(1)
        ).first()
        number, before = (last.number + 1, last.hash) if last else (1, "")
        chained = entry_hash(before, self._tenant, number, at, actor, action, task, version)
        facts = {"number": number, "at": at, "actor": actor, "action": action, "task": task, "version": version}
        self.counts.insert(AUDIT, None, facts | {"hash": chained})

    def audit(self, limit: int, after: int = 0) -> list[AuditEntry]:
        """Entries of the audit, from the first."""
        columns = [AUDIT.c[name] for name in AuditEntry.__dataclass_fields__]
        wanted = select(*columns).where(self._own(AUDIT), AUDIT.c.number > after)
        return [
            AuditEntry(row.number, as_datetime(row.at), *row[2:])
            for row in self._run(wanted.order_by(AUDIT.c.number).limit(limit))
        ]

    # Scope

    def _own(self, table: Any) -> Any:
        return table.c.tenant == self._tenant

    def _of(self, table: Any, task: str) -> Any:
        return (table.c.tenant == self._tenant) & (table.c.task == task)


def entry_hash(before: str, *facts: object) -> str:
    """The hash of an entry of the audit, given that of the one before."""
    return hashlib.sha256(json.dumps([before, *facts]).encode()).hexdigest()


def _version(row: Row[Any]) -> Version:
    return Version(
        number=row.number,
        parent=row.parent,
        change=row.change,
        actor=row.actor,
        created_at=as_datetime(row.created_at),
        erased_at=None if row.erased_at is None else as_datetime(row.erased_at),
        model=row.model,
        model_digest=row.model_digest,
        labels=None if row.labels is None else tuple(json.loads(row.labels)),
        targets=() if row.targets is None else tuple(json.loads(row.targets)),
        examples=row.examples,
        digest=row.digest,
        estimate=None if row.estimate is None else Estimate(**json.loads(row.estimate)),
        pinned=row.pinned,
    )


def _task(row: Row[Any]) -> TaskRecord:
    deleted = None if row.deleted_at is None else as_datetime(row.deleted_at)
    return TaskRecord(row.id, row.name, row.keep_examples, as_datetime(row.made), deleted, _version(row))
