"""Requests that are sent again: answered as the first time, and carried out once."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

from handful.errors import UserError
from handful.notes import Note
from handful.serving.records import Example, TaskRecord
from handful.serving.rows import Rows
from handful.serving.store import Store

Earlier = TypeVar("Earlier")

KEPT = 24 * 3600 * 1000
"""Milliseconds for which the response to a request is kept."""


@dataclass(frozen=True)
class Request(Generic[Earlier]):
    """One request.

    key: None if it is not identified.
    tenant: who sent it.
    earlier: its earlier response.
    """

    key: str | None
    tenant: str = ""
    fingerprint: str = ""
    earlier: Earlier | None = None

    def keep(self, rows: Rows, answer: Mapping[str, Any], at: int) -> None:
        """Keep the response, in the transaction that carries the request out; `UserError` if another one did.

        rows: of the tenant that the request is about.
        answer: by ids alone what it was, as JSON can hold it; "task": with which it is erased, "tenant": whose it is,
            if not the sender's.
        """
        if self.key is not None:
            with rows.of(self.tenant) as own:
                if own.answer(self.key, at - KEPT) is not None:  # by another process
                    raise _in_progress()
                own.insert_answer(self.key, self.fingerprint, answer.get("task"), json.dumps(answer), at, at - KEPT)


class Requests(Generic[Earlier]):
    """The requests of a store that have a key. Those that are being carried out are known in memory alone.

    now: the time in milliseconds.
    read: what a response was, of what was kept of it.
    """

    def __init__(self, store: Store, now: Callable[[], int], read: Callable[[Rows, dict[str, Any]], Earlier]) -> None:
        self._store, self._now, self._read = store, now, read
        self._running: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def once(self, tenant: str, key: str | None, *content: Any) -> Iterator[Request[Earlier]]:
        """Carry a request out in here, unless it has an earlier response.

        tenant: who sent it, and within which the key counts.
        content: what is asked for, and of which tenant if not this one, as JSON can hold it.

        Raises `UserError` if the same request is being carried out, or the key came with other content before.
        """
        if key is None:
            yield Request(None)
            return
        fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        with self._lock:
            if (tenant, key) in self._running:
                raise _in_progress()
            self._running.add((tenant, key))
        try:
            yield Request(key, tenant, fingerprint, self._earlier(tenant, key, fingerprint))
        finally:
            with self._lock:
                self._running.remove((tenant, key))

    def _earlier(self, tenant: str, key: str, fingerprint: str) -> Earlier | None:
        with self._store.reading(tenant) as rows:
            found = rows.answer(key, self._now() - KEPT)
            if found is None:
                return None
            if found[0] != fingerprint:
                raise UserError(
                    "This idempotency key belongs to an earlier, different request. Use a new key for each request.",
                    code="idempotency-mismatch",
                )
            answer = json.loads(found[1])
            with rows.of(answer.get("tenant", tenant)) as theirs:
                return self._read(theirs, answer)


def of_task(record: TaskRecord) -> dict[str, Any]:
    """What is kept of a response that is a task."""
    notes = [asdict(note) for note in record.notes]
    return {"task": record.id, "version": record.head.number, "notes": notes}


def task_of(rows: Rows, answer: dict[str, Any]) -> TaskRecord:
    """The task that was a response, as it was then."""
    record = rows.task(answer["task"], deleted=True)
    notes = tuple(Note(**note | {"field": tuple(note["field"])}) for note in answer["notes"])
    return replace(record, head=rows.version(record.id, answer["version"]), notes=notes)


def _in_progress() -> UserError:
    return UserError(
        "A request with this idempotency key is being carried out. Try again later.", code="idempotency-in-progress"
    )


def content_of(examples: Sequence[Example]) -> list[list[str]]:
    """The content that identifies examples, without their ids, which each request creates."""
    return [[one.media, hashlib.sha256(one.content).hexdigest(), one.label] for one in examples]
