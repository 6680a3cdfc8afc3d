"""How much a task and a tenant may have."""

from collections.abc import Sequence
from dataclasses import dataclass

from handful.errors import UserError
from handful.models.adapted_task import AdaptedTask
from handful.serving.records import Example
from handful.serving.rows import Rows


@dataclass(frozen=True)
class Quotas:
    """The most that a task and a tenant may have; what they have already is kept where it is more.

    classes: classes of one version of a task.
    examples: examples of one version of a task.
    task_bytes: size of one task with all its versions, see `Usage`.
    tasks: tasks of one tenant, the deleted ones too until they are erased.
    tenant_bytes: size of all tasks of one tenant, without its keys, audit and receipts.
    """

    classes: int = 200
    examples: int = 2_000
    task_bytes: int = 64 * 2**20
    tasks: int = 10_000
    tenant_bytes: int = 2 * 2**30

    def check_support(self, examples: Sequence[Example], *, classification: bool) -> None:
        """Raise `UserError` if these are too many for one task."""
        classes = len({example.label for example in examples}) if classification else 0
        self._check_task(len(examples), classes)

    def check_task(self, task: AdaptedTask) -> None:
        """Raise `UserError` if a task was adapted to too much."""
        self._check_task(task.examples, len(task.labels or ()))

    def check_stored(self, rows: Rows, task: str) -> None:
        """Raise `UserError` if a task or its tenant uses too much, in the transaction that made it so."""
        used, whole = rows.counts.of_task(task), rows.counts.of_tenant()
        if used.bytes > self.task_bytes:
            way = " Earlier versions count, too: create another task of its present examples."
            raise _too_large("bytes with all its versions", used.bytes, self.task_bytes, way)
        size = whole.bytes if whole.bytes <= self.tenant_bytes else rows.counts.of_tasks().bytes
        for found, most, unit in ((whole.tasks, self.tasks, "tasks"), (size, self.tenant_bytes, "bytes of tasks")):
            if found > most:
                raise UserError(
                    f"The tenant would have {found:,} {unit}; at most {most:,} are allowed. Erase tasks that are no "
                    f"longer "
                    f"needed; a deleted task counts until it is erased.",
                    code="quota-exceeded",
                )

    def _check_task(self, examples: int, classes: int) -> None:
        for found, most, unit in ((examples, self.examples, "examples"), (classes, self.classes, "classes")):
            if found > most:
                raise _too_large(unit, found, most)


def _too_large(unit: str, found: int, most: int, way: str = "") -> UserError:
    return UserError(f"The task would have {found:,} {unit}; at most {most:,} are allowed.{way}", code="task-too-large")
