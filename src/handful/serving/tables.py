"""The tables of a store. The tenant stands first in every primary key but that of the models, which all share."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)

METADATA = MetaData()


def _key(name: str) -> Column[str]:
    return Column(name, String, primary_key=True)


def _number(name: str) -> Column[int]:
    return Column(name, Integer, primary_key=True, autoincrement=False)


def _time(name: str, *, nullable: bool = False) -> Column[int]:
    """Milliseconds since 1970."""
    return Column(name, BigInteger, nullable=nullable)


def _of_task(name: str = "task") -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["tenant", name], ["tasks.tenant", "tasks.id"])


def _of_version(name: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["tenant", "task", name], ["versions.tenant", "versions.task", "versions.number"])


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


MODELS = Table("models", METADATA, _key("digest"), Column("content", LargeBinary, nullable=False))

TENANTS = Table(
    "tenants", METADATA, _key("tenant"), _time("created_at"), _count("tasks"), _count("examples"), _count("bytes")
)
"""Tenants, and what they use, see `Usage`: for their tasks, the deleted ones too, and beside them."""

KEYS = Table(
    "keys",
    METADATA,
    Column("tenant", String, ForeignKey("tenants.tenant"), primary_key=True),
    _key("id"),
    Column("name", String, nullable=False),
    Column("scope", String, nullable=False),
    Column("hash", String, nullable=False),
    _time("created_at"),
    _time("expires_at", nullable=True),
    _time("revoked_at", nullable=True),
    Index("keys_id", "id", unique=True),
)
"""API keys, each known by the SHA-256 of its text. They are found by id, before it is known whose they are."""

TASKS = Table(
    "tasks",
    METADATA,
    _key("tenant"),
    _key("id"),
    Column("name", String, nullable=False),
    Column("keep_examples", Boolean, nullable=False),
    _time("created_at"),
    _time("deleted_at", nullable=True),
    _count("examples"),
    _count("bytes"),
    Index(
        "tasks_name",
        "tenant",
        "name",
        unique=True,
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
)
"""Examples and bytes are those of all versions."""

VERSIONS = Table(
    "versions",
    METADATA,
    _key("tenant"),
    _key("task"),
    _number("number"),
    Column("parent", Integer),
    Column("change", String, nullable=False),
    Column("actor", String, nullable=False),
    _time("created_at"),
    _time("erased_at", nullable=True),
    Column("model", String, nullable=False),
    Column("model_digest", String, ForeignKey("models.digest"), nullable=False),
    Column("labels", Text),
    Column("targets", Text),
    Column("examples", Integer),
    Column("digest", String),
    Column("state", LargeBinary),
    Column("estimate", Text),
    Column("pinned", Boolean, nullable=False, server_default=false()),
    _of_task(),
    _of_version("parent"),
)
"""Versions of tasks. Labels, targets and estimate are JSON. A tombstone has none of these, and no examples, digest or
state; another version without a state can be adapted again."""

HEADS = Table(
    "heads", METADATA, _key("tenant"), _key("task"), Column("version", Integer, nullable=False), _of_version("version")
)

EXAMPLES = Table(
    "examples",
    METADATA,
    _key("tenant"),
    _key("task"),
    _key("id"),
    Column("media", String, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("encoded", LargeBinary, nullable=False),
    Column("label", Text, nullable=False),
    _time("created_at"),
    _of_task(),
)
"""Labeled examples, which never change: content as it was given, encoded as its pipeline stores it, the label's name or
the targets as JSON."""

ENCODINGS = Table(
    "encodings",
    METADATA,
    _key("tenant"),
    _key("task"),
    _key("example"),
    Column("model_digest", String, ForeignKey("models.digest"), primary_key=True),
    Column("encoded", LargeBinary, nullable=False),
    ForeignKeyConstraint(["tenant", "task", "example"], ["examples.tenant", "examples.task", "examples.id"]),
)
"""Examples as the pipelines of further models store them, where that differs from the example's own encoding."""

SUPPORTS = Table(
    "supports",
    METADATA,
    _key("tenant"),
    _key("task"),
    _number("version"),
    _key("example"),
    _of_version("version"),
    ForeignKeyConstraint(["tenant", "task", "example"], ["examples.tenant", "examples.task", "examples.id"]),
    Index("supports_example", "tenant", "task", "example"),
)
"""Which examples a version was adapted to."""

REQUESTS = Table(
    "requests",
    METADATA,
    _key("tenant"),
    _key("key"),
    Column("fingerprint", String, nullable=False),
    Column("task", String),
    Column("answer", Text, nullable=False),
    _time("created_at"),
    _of_task(),
    Index("requests_created", "tenant", "created_at"),
    Index("requests_task", "tenant", "task"),
)
"""Requests with an idempotency key, and what was answered. task: None if they are about keys and tenants."""

ERASURES = Table(
    "erasures",
    METADATA,
    _key("tenant"),
    _key("id"),
    Column("task", String, nullable=False),
    Column("examples", Text, nullable=False),
    Column("version", Integer),
    Column("digest", String),
    _time("started_at"),
    _time("finished_at", nullable=True),
)
"""Receipts: ids of what was erased, and the version that is left. Finished once no file holds it any more."""

AUDIT = Table(
    "audit",
    METADATA,
    _key("tenant"),
    _number("number"),
    _time("at"),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("task", String, nullable=False),
    Column("version", Integer),
    Column("hash", String, nullable=False),
)
"""Who changed what: each row's hash is of the row and the hash before it."""
