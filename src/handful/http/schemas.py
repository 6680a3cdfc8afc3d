"""What requests and responses hold: the API page is made from these types."""

from collections.abc import Mapping
from datetime import UTC
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    model_validator,
)
from pydantic_core import PydanticCustomError

from handful.notes import Note as NoteOfLibrary
from handful.serving.keys import NewKey as NewKeyRecord
from handful.serving.records import Estimate as EstimateRecord
from handful.serving.records import Key as KeyRecord
from handful.serving.records import Readaptation as ReadaptationRecord
from handful.serving.records import Receipt as ReceiptRecord
from handful.serving.records import Scores as ScoresRecord
from handful.serving.records import TaskRecord
from handful.serving.records import Version as VersionRecord

Name = Annotated[
    str, Field(min_length=1, max_length=128, description="1 to 128 characters, without control characters.")
]
Moment = Annotated[
    AwareDatetime,
    PlainSerializer(lambda at: at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")),
]
"""A time as RFC 3339 writes it, in UTC."""


def _written(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("A time is a text in the format of RFC 3339, with a time zone.")
    return value


GivenMoment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_written)]

MOST_VERSIONS, MOST_CLASSES, MOST_TARGETS = 2**31 - 1, 10_000, 10_000
FIELDS_TOO_MANY = 20
"""How many unknown fields of an object are named one by one."""


def _few(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > MOST_TARGETS:
        raise PydanticCustomError("too_many_fields", f"One example has at most {MOST_TARGETS:,} values.")
    return value


Input = Annotated[
    Any,
    Field(
        description=(
            "The input that the model needs: a text, a row as an object of columns, an array of numbers as nested "
            "lists, or an "
            'image as {"image": "<base64>"}.'
        )
    ),
]
Value = Annotated[
    float | Mapping[str, float],
    BeforeValidator(_few),
    Field(description="The target of a regression, or several by their names."),
]


class Given(BaseModel):
    """Content of a request: of these fields and types, and nothing else.

    Lists end at the first item that is wrong: each error takes memory and time, and a request may have a million items.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _check_count(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > len(cls.model_fields) + FIELDS_TOO_MANY:
            raise PydanticCustomError("too_many_fields", "This object has too many fields.")
        return value


class Shown(BaseModel):
    """Content of a response."""

    model_config = ConfigDict(allow_inf_nan=False)


class LabeledExample(Given):
    """An example: its input, and its label (classification) or value (regression)."""

    input: Input
    label: Name | None = None
    value: Value | None = None


Examples = Annotated[
    list[LabeledExample] | None,
    Field(min_length=1, fail_fast=True, description="Omitted if an uploaded file has them."),
]


Estimating = Annotated[bool, Field(description="Whether to estimate its score by leave-one-out.")]


class CreateTask(Given):
    """A new task, adapted from examples."""

    name: Name
    model: Annotated[str | None, Field(description="May be omitted if the server has only one.")] = None
    keep_examples: Annotated[bool, Field(description="Without its examples a task cannot change.")] = True
    estimate: Estimating = False
    examples: Examples = None


class AddExamples(Given):
    """Examples for a task that is there."""

    estimate: Estimating = False
    examples: Examples = None


class Rename(Given):
    """Another name for a task."""

    name: Name


class Pin(Given):
    """Whether the state of a version is kept, however many versions follow."""

    pinned: bool = True


class Readapt(Given):
    """Nothing: a task moves to the present model of its model's name."""


class Evaluate(Given):
    """What a task is scored on: these examples, or without any its own, each predicted from the others."""

    examples: Examples = None
    version: Annotated[int | None, Field(ge=1, le=MOST_VERSIONS, description="Default: the head.")] = None


class RollBack(Given):
    """Which version predicts from now on."""

    version: Annotated[int, Field(ge=1, le=MOST_VERSIONS)]


class CreateKey(Given):
    """A new API key."""

    name: Annotated[str, Field(description="Its purpose.")]
    scope: Literal["predict", "write", "admin"]
    tenant: Annotated[str | None, Field(description="Its tenant; default: that of your key.")] = None
    expires_at: Annotated[GivenMoment | None, Field(description="When it expires; default: never.")] = None


class RotateKey(Given):
    """How a key is replaced."""

    overlap_seconds: Annotated[float, Field(ge=0, le=30 * 86400, description="Seconds until the old key expires.")] = (
        86400
    )


class CreateTenant(Given):
    """A new tenant, whose tasks no other one sees."""

    name: str


class Predict(Given):
    """Inputs to predict."""

    inputs: Annotated[list[Input] | None, Field(description="Omitted if an uploaded file has them.")] = None
    version: Annotated[int | None, Field(ge=1, le=MOST_VERSIONS, description="Default: the head.")] = None
    top: Annotated[
        int | None,
        Field(ge=1, le=MOST_CLASSES, description="How many classes to show, the most probable first; all by default."),
    ] = None


class PredictForTask(Predict):
    """Inputs to predict, and by which task."""

    task: str
    inputs: list[Input]


class PredictForTasks(RootModel[Annotated[list[PredictForTask], Field(min_length=1, max_length=1000, fail_fast=True)]]):
    """Inputs to predict by each of several tasks."""


class Model(Shown):
    """Which model a task was adapted from."""

    name: str
    digest: str


class Note(Shown):
    """A note on a request that is not an error. pointer: the part of the request that it is about."""

    code: str
    message: str
    count: int

    @classmethod
    def of(cls, note: NoteOfLibrary) -> Self:
        """A note of the library."""
        return cls(code=note.code, message=note.spelled("/{}".format), count=note.count)


class Estimate(Shown):
    """A score with its interval of 95 %; null where the examples are too few or too much alike to say."""

    metric: str
    value: float
    low: float | None
    high: float | None
    target: Annotated[str | None, Field(description="Which of several targets is scored; null: all.")] = None

    @classmethod
    def of(cls, estimate: EstimateRecord | None) -> Self | None:
        """An estimate of the service, if any."""
        return None if estimate is None else cls(**vars(estimate))


class Task(Shown):
    """A task, and the version that predicts for it."""

    id: str
    name: str
    model: Model
    version: int
    labels: Annotated[list[str] | None, Field(description="Names of the classes; null for regression.")]
    targets: Annotated[list[str], Field(description="Names of the predicted values; empty for classification.")]
    examples: int
    keep_examples: bool
    estimate: Estimate | None = None
    created_at: Moment
    deleted_at: Moment | None = None
    notes: list[Note] = []

    @classmethod
    def of(cls, record: TaskRecord) -> Self:
        """A task of the service."""
        head = record.head
        return cls(
            id=record.id,
            name=record.name,
            model=Model(name=head.model, digest=head.model_digest),
            version=head.number,
            labels=None if head.labels is None else list(head.labels),
            targets=list(head.targets),
            examples=head.examples or 0,
            keep_examples=record.keep_examples,
            estimate=Estimate.of(head.estimate),
            created_at=record.created_at,
            deleted_at=record.deleted_at,
            notes=[Note.of(note) for note in record.notes],
        )


class Readapted(Task):
    """A task after it was to move to its present model. before, after: scores of both on its own examples."""

    promoted: Annotated[bool, Field(description="Whether it moved: not if its score would fall significantly.")]
    before: Estimate | None
    after: Estimate | None

    @classmethod
    def shown(cls, made: ReadaptationRecord) -> Self:
        """What became of it in the service."""
        return cls(
            **vars(Task.of(made.task)),
            promoted=made.promoted,
            before=Estimate.of(made.before),
            after=Estimate.of(made.after),
        )


class Evaluation(Shown):
    """How well a version predicts. by: "examples", or "leave-one-out" of its own. score: the first of the estimates."""

    task: str
    version: int
    by: str
    examples: int
    score: Estimate
    estimates: list[Estimate]
    confusion: Annotated[
        dict[str, dict[str, int]] | None,
        Field(description="For each true class, the number of predictions of each class."),
    ]
    notes: list[Note] = []

    @classmethod
    def of(cls, scores: ScoresRecord) -> Self:
        """Scores of the service."""
        estimates = [Estimate(**vars(one)) for one in scores.estimates]
        confusion = None
        if scores.confusion is not None and scores.labels is not None:
            rows = zip(scores.labels, scores.confusion, strict=True)
            confusion = {label: dict(zip(scores.labels, row, strict=True)) for label, row in rows}
        return cls(
            task=scores.task,
            version=scores.version,
            by=scores.by,
            examples=scores.examples,
            score=estimates[0],
            estimates=estimates,
            confusion=confusion,
            notes=[Note.of(note) for note in scores.notes],
        )


class TaskPage(Shown):
    """Tasks in the order of their ids. next_after: what to give as `after` for those that follow."""

    data: list[Task]
    has_more: bool
    next_after: str | None


class Difference(Shown):
    """What changed: ids of examples, and names of classes. relabeled: new ids by those of the same inputs before."""

    added: list[str]
    removed: list[str]
    relabeled: Annotated[dict[str, str], Field(description="The earlier label by the id of the present example.")]
    labels_added: list[str]
    labels_removed: list[str]


class Version(Shown):
    """A version of a task, which never changes, but for being erased: then only number, time and actor are left."""

    number: int
    parent: Annotated[int | None, Field(description="The head when this version was made.")]
    change: Annotated[str, Field(description="The change that made it, such as created, added, corrected or erased.")]
    actor: Annotated[str, Field(description="The id of the key that requested it.")]
    created_at: Moment
    erased_at: Moment | None
    model: Model
    labels: list[str] | None
    targets: list[str]
    examples: int | None
    digest: Annotated[str | None, Field(description="Of its state.")]
    estimate: Estimate | None
    pinned: Annotated[bool, Field(description="Whether its state is kept even if many versions follow.")]
    difference: Annotated[Difference | None, Field(description="From its parent.")]

    @classmethod
    def of(cls, version: VersionRecord) -> Self:
        """A version of the service."""
        return cls(
            number=version.number,
            parent=version.parent,
            change=version.change,
            actor=version.actor,
            created_at=version.created_at,
            erased_at=version.erased_at,
            model=Model(name=version.model, digest=version.model_digest),
            labels=None if version.labels is None else list(version.labels),
            targets=list(version.targets),
            examples=version.examples,
            digest=version.digest,
            estimate=Estimate.of(version.estimate),
            pinned=version.pinned,
            difference=None if version.difference is None else Difference.model_validate(vars(version.difference)),
        )


class VersionPage(Shown):
    """Versions in their order. next_after: what to give as `after` for those that follow."""

    data: list[Version]
    has_more: bool
    next_after: int | None


class Example(Shown):
    """An example of a task, as it was given."""

    id: str
    input: Input
    label: str | None = None
    value: Value | None = None


class ExamplePage(Shown):
    """Examples in the order of their ids. next_after: what to give as `after` for those that follow."""

    data: list[Example]
    has_more: bool
    next_after: str | None


class Receipt(Shown):
    """What was erased, from all versions. version, digest: the head that is left, as if it had never been there.
    remains: where it can be found for some time yet, in words; null: nowhere."""

    id: str
    task: str
    examples: list[str]
    version: int | None
    digest: str | None
    started_at: Moment
    finished_at: Moment
    remains: str | None

    @classmethod
    def of(cls, receipt: ReceiptRecord) -> Self:
        """A receipt of the service."""
        return cls(**vars(receipt) | {"examples": list(receipt.examples)})


class ServedModel(Shown):
    """A model that new tasks are adapted from. takes: what its inputs are, in words."""

    name: str
    digest: str
    kind: Literal["classification", "regression"]
    labels: Annotated[list[str] | None, Field(description="Set if all tasks have the same classes.")]
    targets: list[str]
    takes: str


class ModelPage(Shown):
    """All models by name, on one page."""

    data: list[ServedModel]
    has_more: Literal[False] = False
    next_after: None = None


class Key(Shown):
    """An API key, without what is secret."""

    id: str
    tenant: str
    name: str
    scope: str
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None

    @classmethod
    def of(cls, key: KeyRecord) -> Self:
        """A key of the service."""
        return cls(**{name: getattr(key, name) for name in cls.model_fields})


class NewKey(Key):
    """A key that was made. token: what to send, shown this once; null where a request that was sent again made none."""

    token: str | None
    notes: list[Note] = []

    @classmethod
    def shown(cls, made: NewKeyRecord) -> Self:
        """A new key of the service."""
        notes = [Note.of(note) for note in made.notes]
        return cls(**Key.of(made.key).model_dump(), token=made.token, notes=notes)


class KeyPage(Shown):
    """Keys in the order of their ids. next_after: what to give as `after` for those that follow."""

    data: list[Key]
    has_more: bool
    next_after: str | None


class Tenant(Shown):
    """A tenant."""

    name: str
    created_at: Moment


class TenantPage(Shown):
    """Tenants by name. next_after: what to give as `after` for those that follow."""

    data: list[Tenant]
    has_more: bool
    next_after: str | None


class Limits(RootModel[dict[str, int]]):
    """The most that one request may hold, by the names of the limits; what has more is refused."""


class Usage(Shown):
    """What a tenant has in the store, with all versions. quotas: the most that it and each of its tasks may have."""

    tasks: int
    examples: int
    bytes: int
    quotas: dict[str, int]


class AuditEntry(Shown):
    """One change. task: its id, or that of the key or tenant. hash: of it and the hash of the one before."""

    number: int
    at: Moment
    actor: str
    action: str
    task: str
    version: int | None
    hash: str


class AuditPage(Shown):
    """Changes in their order. next_after: what to give as `after` for those that follow."""

    data: list[AuditEntry]
    has_more: bool
    next_after: int | None


class Prediction(Shown):
    """The prediction for one input: of a class, or of a value within which 95 % of such values lie."""

    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    value: Value | None = None
    deviation: Value | None = None
    low: Value | None = None
    high: Value | None = None


class Predictions(Shown):
    """What one version of a task predicts, an entry for each input."""

    task: str
    version: int
    model: Model
    predictions: list[Prediction]
    notes: list[Note] = []


class PredictionsOfTasks(RootModel[list[Predictions]]):
    """Predictions of several tasks, in the order in which they were asked for."""


class Error(Shown):
    """What is wrong in one part of the content."""

    pointer: Annotated[str, Field(description='A JSON pointer, such as "/examples/3/input"; "" is the whole.')]
    code: str
    detail: str


class ProblemContent(Shown):
    """What went wrong (RFC 9457). type: its kind; title: the same for all of a kind; instance: the request's id."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[Error]
