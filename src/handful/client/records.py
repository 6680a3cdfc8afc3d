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
class RemoteEstimate:
    """A score with its interval.

    metric: "accuracy", or for values "rmse" or "mae", in their unit.
    low, high: between which it lies with 95 % confidence; None if the examples are too few to say.
    target: which of several values is scored; None: all.
    """

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    target: str | None = None


@dataclass(frozen=True)
class RemoteTask:
    """A task, and the version that predicts for it.

    version: its number.
    labels: class names by number; None for regression.
    targets: names of the predicted values, where they have some.
    examples: how many it was adapted to.
    estimate: how well it does on its own examples, where that was measured.
    keep_examples: whether the server keeps its examples, without which it cannot change.
    deleted_at: since when it is deleted; it can be restored for 7 days.
    notes: on the request that changed it.
    """

    id: str
    name: str
    model: ModelName
    version: int
    labels: tuple[str, ...] | None
    examples: int | None
    created_at: datetime
    estimate: RemoteEstimate | None = None
    targets: tuple[str, ...] = ()
    keep_examples: bool = True
    deleted_at: datetime | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class RemotePredictions:
    """What one version of a task predicts.

    model: by which model.
    predictions: one for each input.
    notes: on the inputs.
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
class RemoteDifference:
    """In what a version differs from its parent.

    added, removed: ids of examples.
    relabeled: of those that are in place of an earlier one with the same input, by its id.
    labels_added, labels_removed: names of classes.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    relabeled: Mapping[str, str] = field(default_factory=dict)
    labels_added: tuple[str, ...] = ()
    labels_removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class RemoteVersion:
    """One version of a task.

    parent: the version that was the head when it was made; None for the first.
    change: "created", "added", "removed", "corrected", "erased", "imported" or "readapted".
    erased_at: when it was erased: then only its number, time and actor are left.
    pinned: whether its state is kept, however many versions follow.
    difference: from its parent; None for the first one, and where either was erased.
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
    estimate: RemoteEstimate | None = None
    digest: str | None = None
    pinned: bool = False
    difference: RemoteDifference | None = None


@dataclass(frozen=True)
class RemoteExample:
    """A labeled example.

    input: as the wire has it.
    label: of a class.
    value: of a regression.
    """

    id: str
    input: Any
    label: str | None = None
    value: float | Mapping[str, float] | None = None


@dataclass(frozen=True)
class RemoteModel:
    """A model of the server.

    kind: "classification" or "regression".
    targets: names of the predicted values.
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
class RemoteScores:
    """How well a version of a task predicts.

    by: "examples" for given ones, or "leave-one-out" for its own, each predicted by the task adapted without it.
    examples: how many were predicted.
    score: the first of the estimates, which are the accuracy, or RMSE and MAE; of several values of all and of each.
    confusion: of the examples of each class, how many are predicted as each; None for regression.
    """

    task: str
    version: int
    by: str
    examples: int
    score: RemoteEstimate
    estimates: tuple[RemoteEstimate, ...]
    confusion: Mapping[str, Mapping[str, int]] | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class RemoteReadaptation(RemoteTask):
    """A task after it was to move to the present model of its name.

    promoted: whether it has a new version, under that model.
    before, after: estimates of its score on its examples under both models; None if not measured.
    """

    promoted: bool = False
    before: RemoteEstimate | None = None
    after: RemoteEstimate | None = None


@dataclass(frozen=True)
class RemoteTenant:
    """A tenant of the server."""

    name: str
    created_at: datetime


@dataclass(frozen=True)
class RemoteKey:
    """An API key.

    token: what is sent, shown once when it is made; None also if the response that showed it was lost.
    notes: on the request that made it.
    """

    id: str
    name: str
    scope: str
    created_at: datetime
    tenant: str = "default"
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    token: str | None = field(default=None, repr=False)
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class RemoteUsage:
    """What a tenant has in the store, with all versions.

    quotas: the most that it and each of its tasks may have.
    """

    tasks: int
    examples: int
    bytes: int
    quotas: Mapping[str, int]


@dataclass(frozen=True)
class RemoteAuditEntry:
    """One change.

    task: its id, or that of a key or tenant.
    hash: of this entry and the hash of the one before, so that none can be left out or altered.
    """

    number: int
    at: datetime
    actor: str
    action: str
    task: str
    version: int | None
    hash: str


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some of a list.

    next_after: what to ask for the following ones with.
    """

    data: tuple[Item, ...]
    has_more: bool
    next_after: str | int | None = None
