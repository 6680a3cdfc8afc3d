"""Versions of tasks, as changes make them."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from handful.errors import UserError
from handful.models.adapted_task import AdaptedTask
from handful.serving.records import Example, TaskRecord
from handful.serving.rows import Rows
from handful.serving.states import digest_of

TRIES = 16
"""How often a change is made anew because others changed the task meanwhile."""

Result = TypeVar("Result")


def retried(attempt: Callable[[], Result], *, once: bool = False) -> Result:
    """The result of a change, made anew where the head moved meanwhile. once: raise then, as the last attempt does."""
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
    made: AdaptedTask,
    *,
    change: str,
    actor: str,
    at: int,
) -> int:
    """Write a new version, with those of its examples that are new, and move the head to it; returns its number."""
    task, head, number = record.id, record.head, rows.last_number(record.id) + 1
    known = rows.known_examples(task, [example.id for example in examples])
    rows.insert_examples(task, [example for example in examples if example.id not in known], at)
    facts = facts_of(made) | {"parent": head.number, "change": change, "actor": actor, "created_at": at}
    rows.insert_version(task, number, [example.id for example in examples], model=head.model, **facts)
    rows.set_head(task, number, expected=head.number)
    rows.drop_old_states(task, number)
    return number


def facts_of(task: AdaptedTask) -> dict[str, Any]:
    """What the row of a version holds of its state."""
    content = task.to_bytes()
    return {
        "model_digest": task.model_digest,
        "labels": None if task.labels is None else json.dumps(task.labels),
        "targets": json.dumps(task.targets),
        "examples": task.examples,
        "digest": digest_of(content),
        "state": content,
    }
