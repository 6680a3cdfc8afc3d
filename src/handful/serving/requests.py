"""Requests that are sent again: answered as the first time, and carried out once."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from handful.errors import UserError
from handful.notes import Note
from handful.serving.records import Example, TaskRecord
from handful.serving.rows import Rows
from handful.serving.store import Store

KEPT = 24 * 3600 * 1000
"""Milliseconds for which the answer to a request is kept."""


@dataclass(frozen=True)
class Request:
    """One request. key: None where it is not told from others. earlier: what was answered to it before."""

    key: str | None
    fingerprint: str = ""
    earlier: TaskRecord | None = None

    def keep(self, rows: Rows, record: TaskRecord, at: int) -> None:
        """Keep the answer, in the transaction that carries the request out; `UserError` where another one did."""
        if self.key is not None:
            if rows.answer(self.key, at - KEPT) is not None:  # by another process
                raise _in_progress()
            notes = [asdict(note) for note in record.notes]
            answer = json.dumps({"task": record.id, "version": record.head.number, "notes": notes})
            rows.insert_answer(self.key, self.fingerprint, record.id, answer, at, at - KEPT)


class Requests:
    """The requests of a store that have a key. Those that are being carried out are known in memory alone."""

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store, self._now = store, now
        self._running: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def once(self, tenant: str, key: str | None, *content: Any) -> Iterator[Request]:
        """Carry a request out in here, unless it has an earlier answer.

        content: what is asked for, as JSON can hold it.

        Raises `UserError` where the same request is being carried out, or the key came with other content before.
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
            yield Request(key, fingerprint, self._earlier(tenant, key, fingerprint))
        finally:
            with self._lock:
                self._running.remove((tenant, key))

    def _earlier(self, tenant: str, key: str, fingerprint: str) -> TaskRecord | None:
        with self._store.reading(tenant) as rows:
            found = rows.answer(key, self._now() - KEPT)
            if found is None:
                return None
            if found[0] != fingerprint:
                raise UserError(
                    "This idempotency key came with another request before. Give each request its own.",
                    code="idempotency-mismatch",
                )
            answer = json.loads(found[1])
            record = rows.task(answer["task"], deleted=True)
            notes = tuple(Note(**note | {"field": tuple(note["field"])}) for note in answer["notes"])
            return replace(record, head=rows.version(record.id, answer["version"]), notes=notes)


def _in_progress() -> UserError:
    return UserError(
        "A request with this idempotency key is being carried out. Try again later.", code="idempotency-in-progress"
    )


def content_of(examples: Sequence[Example]) -> list[list[str]]:
    """What tells examples from others: not their ids, which each request makes anew."""
    return [[one.media, hashlib.sha256(one.content).hexdigest(), one.label] for one in examples]
