"""What a server answers, as values, in the words of the wire."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from handful.models.results import Result
from handful.notes import Note

Item = TypeVar("Item")


@dataclass(frozen=True)
class ModelName:
    """Which model: its name on the server, and the digest of its content."""

    name: str
    digest: str


@dataclass(frozen=True)
class RemoteScore:
    """A score with its interval.

    metric: such as "accuracy". value: of all examples. low, high: between which it lies with 95 % confidence.
    """

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class RemoteTask:
    """A task, and the version that predicts for it.

    version: its number. labels: class names by number; None for regression. targets: names of the predicted values,
    where they have some. examples: how many it was adapted to.
    estimate: how well it does on its own examples, where that was measured.
    keep_examples: whether the server keeps its examples, without which it cannot change.
    deleted_at: since when it is deleted; it can be restored for 7 days.
    notes: what to know of the request that changed it.
    """

    id: str
    name: str
    model: ModelName
    version: int
    labels: tuple[str, ...] | None
    examples: int | None
    created_at: datetime
    estimate: RemoteScore | None = None
    targets: tuple[str, ...] = ()
    keep_examples: bool = True
    deleted_at: datetime | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class RemotePredictions:
    """What one version of a task predicts.

    model: by which model. predictions: one for each input. notes: what to know of the inputs.
    """

    task: str
    version: int
    model: ModelName
    predictions: tuple[Result, ...]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class RemoteReceipt:
    """What was erased.

    examples: their ids; all of the task where `version` is None.
    version, digest: the version that is left, and the digest of its state, which equals that of a task that was never
    shown them.
    """

    id: str
    task: str
    examples: tuple[str, ...]
    version: int | None
    digest: str | None
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True)
class RemoteVersion:
    """One version of a task.

    parent: the version that was the head when it was made; None for the first.
    change: "created", "added", "removed", "corrected", "erased", "imported" or "readapted".
    erased_at: when it was erased: then only its number, time and actor are left.
    """

    number: int
    parent: int | None
    change: str
    actor: str
    created_at: datetime
    erased_at: datetime | None = None
    model: ModelName | None = None
    labels: tuple[str, ...] | None = None
    examples: int | None = None
    estimate: RemoteScore | None = None
    digest: str | None = None


@dataclass(frozen=True)
class RemoteExample:
    """A labeled example. input: as the wire has it. label: of a class; value: of a regression."""

    id: str
    input: Any
    label: str | None = None
    value: float | Mapping[str, float] | None = None


@dataclass(frozen=True)
class RemoteModel:
    """A model of the server.

    kind: "classification" or "regression". targets: names of the predicted values.
    takes: what its inputs are, in words.
    """

    name: str
    digest: str
    kind: str = ""
    targets: tuple[str, ...] = ()
    takes: str = ""


@dataclass(frozen=True)
class RemoteLimits:
    """The most that one request may hold: bytes of JSON, inputs, numbers in arrays, bytes of an image, of an upload."""

    json_bytes: int
    inputs: int
    numbers: int
    image_bytes: int
    upload_bytes: int


@dataclass(frozen=True)
class RemoteEvaluation:
    """How well a task predicts.

    examples: how many were predicted. confusion: of true labels, how often each label was predicted.
    """

    task: str
    version: int
    score: RemoteScore
    examples: int
    confusion: Mapping[str, Mapping[str, int]] | None = None


@dataclass(frozen=True)
class RemoteTenant:
    """A tenant of the server."""

    name: str
    created_at: datetime


@dataclass(frozen=True)
class RemoteKey:
    """An API key. token: what is sent, shown once when it is made."""

    id: str
    name: str
    scope: str
    created_at: datetime
    tenant: str = "default"
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RemoteAuditEntry:
    """One change. hash: of this entry and the hash of the one before, so that none can be left out or altered."""

    number: int
    at: datetime
    actor: str
    action: str
    task: str
    version: int | None
    hash: str


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some of a list. next_after: what to ask for the following ones with."""

    data: tuple[Item, ...]
    has_more: bool
    next_after: str | int | None = None


Facts = Mapping[str, Any]
"""An answer as the server gives it."""
