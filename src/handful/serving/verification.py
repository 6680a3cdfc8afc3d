"""Whether a store holds what it promises, found by reading alone."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from sqlalchemy import Engine

from handful.errors import ArtifactError
from handful.serving.backups import beside, check_whole
from handful.serving.derivation import Derivation
from handful.serving.directory import EVERYONE
from handful.serving.opening import is_address
from handful.serving.postgres_store import PostgresStore
from handful.serving.records import AuditEntry, Version
from handful.serving.rows import Rows, entry_hash
from handful.serving.schema import check_schema
from handful.serving.sqlite import FILE, engine_of, opening_explained
from handful.serving.states import digest_of

PAGE = 1_000
"""So many tenants or entries of the audit are read at once, that no reader holds the log of a store for long."""

Reading: TypeAlias = Callable[[str], AbstractContextManager[Rows]]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    task, version: where; None: it is of the whole tenant, or task.
    """

    tenant: str
    task: str | None
    version: int | None
    what: str

    def __str__(self) -> str:
        task = "" if self.task is None else f", {self.task}"
        return f"{self.tenant}{task}{'' if self.version is None else f' version {self.version}'}: {self.what}"


@dataclass(frozen=True)
class Verification:
    """What was looked at, and what is wrong.

    adapted: how many versions were adapted anew.
    findings: none where the store is well.
    """

    tenants: int
    tasks: int
    versions: int
    adapted: int
    findings: tuple[Fault, ...]


def verify(place: str | Path, *, every: int = 1, trust: Sequence[str] = ()) -> Verification:
    """Check a store, in use or not, or a backup: its database, the digests and order of versions, audit and counts.

    place: as of `open_store`, or the file of a backup. Nothing is written there.
    every: one of so many versions that have their examples is adapted anew and compared; 0: none is.
    trust: see `MetaModel.from_bytes`.

    Raises `ArtifactError` if the database itself is damaged, none is there, or it has another schema.
    """
    with _opened(place) as reading:
        verifier = _Verifier(reading, every, Derivation(trust))
        after = ""
        while tenants := _tenants(reading, after):
            for tenant in tenants:
                verifier.tenant(tenant)
            after = tenants[-1]
        return verifier.result()


def check_chain(tenant: str, entries: Sequence[AuditEntry], before: AuditEntry | None = None) -> int | None:
    """The number of the first entry of an audit that was altered, or before which one is missing; None: intact.

    before: the entry before the first one, if any.
    """
    number, last = (before.number, before.hash) if before else (0, "")
    for entry in entries:
        number += 1
        at = round(entry.at.timestamp() * 1000)
        facts = tenant, number, at, entry.actor, entry.action, entry.task, entry.version
        if (entry.number, entry.hash) != (number, entry_hash(last, *facts)):
            return entry.number
        last = entry.hash
    return None


@contextlib.contextmanager
def _opened(place: str | Path) -> Iterator[Reading]:
    """What reads the rows of tenants."""
    if is_address(place):
        with PostgresStore(str(place)) as store:
            yield store.reading
        return
    given = Path(place)
    file = given / FILE if given.is_dir() else given
    if not file.is_file():
        raise ArtifactError(f"{given} does not contain a store.", code="missing-artifact")
    engine = engine_of(file, writes=False, resting=given == file and not any(one.exists() for one in beside(file)))
    try:
        with opening_explained(given):
            with engine.begin() as connection:
                check_whole(connection, given)
                check_schema(connection, given)
            yield lambda tenant: _reading(engine, tenant)
    finally:
        engine.dispose()


@contextlib.contextmanager
def _reading(engine: Engine, tenant: str) -> Iterator[Rows]:
    with engine.begin() as connection:
        yield Rows(connection, tenant)


def _tenants(reading: Reading, after: str) -> list[str]:
    with reading(EVERYONE) as rows:
        return [tenant.name for tenant in rows.directory.tenants(PAGE, after)]


class _Verifier:
    def __init__(self, reading: Reading, every: int, derivation: Derivation) -> None:
        self._reading, self._every, self._derivation = reading, every, derivation
        self._tenants = self._tasks = self._versions = self._derivable = self._adapted = 0
        self._findings: list[Fault] = []

    def result(self) -> Verification:
        return Verification(self._tenants, self._tasks, self._versions, self._adapted, tuple(self._findings))

    def tenant(self, name: str) -> None:
        self._tenants += 1
        self._audit(name)
        with self._reading(name) as rows:
            tasks = rows.all_tasks()
            if rows.counts.of_tenant() != rows.counts.summed():
                self._found(name, None, None, "its usage was counted wrong")
        for task in tasks:
            with self._reading(name) as rows:
                if rows.counts.of_task(task).tasks:  # it may have been erased meanwhile
                    self._task(rows, name, task)

    def _audit(self, name: str) -> None:
        last: AuditEntry | None = None
        while True:
            with self._reading(name) as rows:
                entries = rows.audit(PAGE, last.number if last else 0)
            if (broken := check_chain(name, entries, last)) is not None:
                self._found(name, None, None, f"entry {broken} of the audit was altered, or one before it is missing")
                return
            if len(entries) < PAGE:
                return
            last = entries[-1]

    def _task(self, rows: Rows, tenant: str, id_: str) -> None:
        self._tasks += 1
        if rows.counts.of_task(id_) != rows.counts.measured(id_):
            self._found(tenant, id_, None, "its usage was counted wrong")
        versions, head = rows.versions(id_), rows.head_number(id_)
        if [version.number for version in versions] != list(range(1, len(versions) + 1)):
            self._found(tenant, id_, None, "its versions are not numbered from 1 without gaps")
        if head not in [version.number for version in versions if version.erased_at is None]:
            self._found(tenant, id_, head, "the head is not a version, or was erased")
        for version in versions:
            self._version(rows, tenant, id_, version, head=version.number == head)

    def _version(self, rows: Rows, tenant: str, task: str, version: Version, *, head: bool) -> None:
        self._versions += 1
        number = version.number
        state, support = rows.state(task, number), rows.support(task, number)
        if version.parent is not None and not 1 <= version.parent < number:
            self._found(tenant, task, number, "its parent is not an earlier version")
        if version.erased_at is not None:
            if state is not None or support or (version.labels, version.examples, version.digest) != (None,) * 3:
                self._found(tenant, task, number, "it was erased, but data of it remain")
            return
        if state is None and head:
            self._found(tenant, task, number, "the head has no state")
        if state is not None and digest_of(state) != version.digest:
            self._found(tenant, task, number, "its state does not match its digest")
        elif support:
            if len(support) != version.examples:
                self._found(tenant, task, number, "it does not have all of its examples")
            self._adapt(rows, tenant, task, version, state)

    def _adapt(self, rows: Rows, tenant: str, task: str, version: Version, state: bytes | None) -> None:
        self._derivable += 1
        if self._every and self._derivable % self._every == 0:
            self._adapted += 1
            fault = self._derivation.fault(rows, version, state, rows.examples(task, version.number))
            if fault is not None:
                self._found(tenant, task, version.number, fault)

    def _found(self, tenant: str, task: str | None, version: int | None, what: str) -> None:
        self._findings.append(Fault(tenant, task, version, what))
