"""Versions of tasks, as changes make them."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from handful.errors import UserError
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.notes import Note
from handful.serving.records import Estimate, Example, TaskRecord, Version
from handful.serving.rows import Rows
from handful.serving.states import digest_of

TRIES = 16
"""How often a change is made anew because others changed the task meanwhile."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Terms:
    """By whom a change is asked for, and on which condition.

    expected: the version that the task has to be at; None: any.
    key: the idempotency key of the request; None: it has none.
    """

    tenant: str
    actor: str
    expected: int | None = None
    key: str | None = None


def check_expected(head: Version, expected: int | None) -> None:
    """Raise `UserError` if a task is not at the version that a change is made for."""
    if expected is not None and head.number != expected:
        raise UserError(
            f"The task is at version {head.number}, not {expected}. Read it again.", code="version-conflict"
        )


def check_changeable(record: TaskRecord) -> None:
    """Raise `UserError` if the examples of a task are not kept."""
    if not record.keep_examples:
        raise UserError(f"The examples of the task {record.name!r} are not stored, so the task cannot change.")


def noted(record: TaskRecord, notes: Iterable[Note]) -> TaskRecord:
    """A task with notes of the request that changed it."""
    return replace(record, notes=tuple(notes))


def retried(attempt: Callable[[], Result], *, once: bool = False) -> Result:
    """The result of a change, made anew where the head moved meanwhile.

    once: raise then, as the last attempt does.
    """
    for _ in range(0 if once else TRIES - 1):
        try:
            return attempt()
        except UserError as error:
            if error.code != "version-conflict":
                raise
    return attempt()


def insert_version(
    rows: Rows,
    record: TaskRecord,
    examples: Sequence[Example],
    model: MetaModel,
    made: AdaptedTask,
    *,
    change: str,
    actor: str,
    at: int,
    estimate: Estimate | None = None,
) -> int:
    """Write a new version, with what is new of its examples and model, and move the head to it; returns its number."""
    task, head, number = record.id, record.head, rows.last_number(record.id) + 1
    known = rows.known_examples(task, [example.id for example in examples])
    rows.insert_examples(task, [example for example in examples if example.id not in known], at)
    if model.digest != head.model_digest:
        keep_model(rows, model)
        rows.insert_encodings(task, [example for example in examples if example.id in known], model.digest)
    facts = facts_of(made, estimate) | {"parent": head.number, "change": change, "actor": actor, "created_at": at}
    rows.insert_version(task, number, [example.id for example in examples], model=head.model, **facts)
    rows.set_head(task, number, expected=head.number)
    rows.drop_old_states(task, number)
    return number


def keep_model(rows: Rows, model: MetaModel) -> None:
    """Keep a model in the store, so that its tasks are served whatever the service is started with."""
    if not rows.has_model(model.digest):
        rows.insert_model(model.digest, model.to_bytes())


def facts_of(task: AdaptedTask, estimate: Estimate | None) -> dict[str, Any]:
    """What the row of a version holds of its state."""
    content = task.to_bytes()
    return {
        "model_digest": task.model_digest,
        "labels": None if task.labels is None else json.dumps(task.labels),
        "targets": json.dumps(task.targets),
        "examples": task.examples,
        "digest": digest_of(content),
        "state": content,
        "estimate": None if estimate is None else json.dumps(asdict(estimate)),
    }
