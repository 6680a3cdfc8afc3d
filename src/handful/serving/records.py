"""What a store holds of tasks, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from handful.models.results import Result
from handful.notes import Note


@dataclass(frozen=True)
class Estimate:
    """A score, with its 95 % interval.

    metric: "accuracy", or for values "rmse" or "mae", in their unit.
    low, high: None if the examples are too few or too much alike to say.
    target: which of several is scored; None: all, those of several targets in standard deviations.
    """

    metric: str
    value: float
    low: float | None
    high: float | None
    target: str | None = None


@dataclass(frozen=True)
class Difference:
    """In what a version differs from its parent.

    added, removed: ids of examples.
    relabeled: of those that are in place of an earlier one with the same input, by its id: they are in neither.
    labels_added, labels_removed: names of classes.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    relabeled: Mapping[str, str]
    labels_added: tuple[str, ...]
    labels_removed: tuple[str, ...]


@dataclass(frozen=True)
class Version:
    """One state of a task. It never changes, but for being erased.

    number: from 1, without gaps.
    parent: the version that was the head when it was made; None for the first.
    change: "created", "added", "removed", "corrected", "erased", "imported" or "readapted".
    erased_at: when it became a tombstone: then it has no labels, targets, examples, digest, estimate or state any more.
    model, model_digest: which model it was adapted from.
    labels: class names by number; None for regression.
    targets: names of the predicted values, else empty.
    examples: how many it was adapted to.
    digest: of its state.
    estimate: of its score, where it was asked for.
    pinned: whether its state is kept, however many versions follow.
    difference: from its parent, where versions are shown; None for the first one, and where either was erased.
    """

    number: int
    parent: int | None
    change: str
    actor: str
    created_at: datetime
    erased_at: datetime | None
    model: str
    model_digest: str
    labels: tuple[str, ...] | None
    targets: tuple[str, ...]
    examples: int | None
    digest: str | None
    estimate: Estimate | None = None
    pinned: bool = False
    difference: Difference | None = None


@dataclass(frozen=True)
class TaskRecord:
    """A task, and the version that predicts for it: its head.

    keep_examples: whether its examples are kept, without which it cannot change.
    deleted_at: since when it is deleted; it can be restored for some days.
    notes: on the request that changed it.
    """

    id: str
    name: str
    keep_examples: bool
    created_at: datetime
    deleted_at: datetime | None
    head: Version
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Example:
    """A labeled example, which never changes: a correction puts another one in its place.

    media, content: the input as it was given, see `handful.serving.inputs`; "encoded" where only that is known.
    encoded: what the model's pipeline stores of it.
    label: name of a class, or the targets as JSON.
    """

    id: str
    media: str
    content: bytes
    encoded: bytes
    label: str


@dataclass(frozen=True)
class LabeledInput:
    """A labeled example as it was given.

    input: a text, the bytes of an image, a dict of columns or an array; of an imported task what its model sees.
    label: name of a class, or the targets `(outputs,)`.
    """

    id: str
    input: Any
    label: str | tuple[float, ...]


class ExamplesPage(NamedTuple):
    """Some labeled examples of a version, in order.

    more: whether others follow.
    """

    examples: Sequence[LabeledInput]
    more: bool


@dataclass(frozen=True)
class Predictions:
    """What one version of a task predicts.

    model, model_digest: by which model.
    predictions: one for each input.
    notes: on the inputs.
    """

    task: str
    version: int
    model: str
    model_digest: str
    predictions: tuple[Result, ...]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Readaptation:
    """The result of moving a task to the present model of its name.

    task: its present state.
    promoted: whether it has a new version, under that model.
    before, after: estimates of its score on its examples, under the model that it had and under the present one; None
        if not measured, with a note.
    """

    task: TaskRecord
    promoted: bool
    before: Estimate | None
    after: Estimate | None


@dataclass(frozen=True)
class Scores:
    """How well a version of a task predicts.

    by: "examples" for given ones, or "leave-one-out" for its own, each predicted by the task adapted without it.
    examples: how many were predicted.
    estimates: the accuracy, or RMSE and MAE; of several targets of all and of each.
    labels: the names of the classes; None for regression.
    confusion: how many examples of each class (row) are predicted as each (column), in the order of the labels.
    """

    task: str
    version: int
    by: str
    examples: int
    estimates: tuple[Estimate, ...]
    labels: tuple[str, ...] | None
    confusion: tuple[tuple[int, ...], ...] | None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Receipt:
    """What was erased.

    examples: their ids; all of the task where `version` is None.
    version, digest: the head that is left, which equals that of a task that was never shown them.
    remains: where it can be found for some time yet, in words; None: nowhere.
    """

    id: str
    task: str
    examples: tuple[str, ...]
    version: int | None
    digest: str | None
    started_at: datetime
    finished_at: datetime
    remains: str | None = None


@dataclass(frozen=True)
class Tenant:
    """Whose tasks and keys are kept apart from those of others."""

    name: str
    created_at: datetime


@dataclass(frozen=True)
class Key:
    """An API key, without its secret.

    id: part of its text, and the actor of what is done with it.
    scope: "predict", "write" or "admin".
    expires_at: from when it is refused; None: never.
    revoked_at: since when it is refused.
    """

    tenant: str
    id: str
    name: str
    scope: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class AuditEntry:
    """One change.

    task: its id, or that of the key that it was about, or the tenant.
    hash: of this entry and the hash of the one before, so that none can be left out or altered.
    """

    number: int
    at: datetime
    actor: str
    action: str
    task: str
    version: int | None
    hash: str


def as_datetime(milliseconds: int) -> datetime:
    """A time of the store."""
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)
