"""API keys: made, shown once, checked, rotated and revoked."""

import contextlib
import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from handful.errors import UserError
from handful.notes import Note
from handful.serving.directory import DEFAULT, EVERYONE
from handful.serving.names import checked_name
from handful.serving.records import Key
from handful.serving.requests import Requests
from handful.serving.rows import Rows
from handful.serving.store import Store

SCOPES = ("predict", "write", "admin")
"""What a key may do; each scope includes those before it."""

LAST = 253_402_300_799_999
"""The last millisecond of the year 9999, after which no date can be written."""

FRESH = 1.0
"""Seconds for which a key is not read again. Other processes on the same database accept a revoked key no longer."""

HELD = 10_000
"""The most keys in memory."""

TOKEN = re.compile(r"hf_([0-9a-f]{32})_[0-9a-f]{64}")

OPERATORS = re.compile(r"(?!hf_)[A-Za-z0-9._~+/=-]{32,256}")
"""Admin keys that an operator may choose: what an `Authorization` header can hold."""

OPERATOR = f"key_{0:032x}"
"""The id of the operator's admin key, which names none itself."""


SHOWN = Note(
    "token-not-shown",
    "The token of this key was in the answer to the request that made it, and the store has only its hash. Where that "
    "answer was lost, rotate the key.",
)


@dataclass(frozen=True)
class NewKey:
    """A key with its token, which the store cannot show again.

    token: None where an earlier request with the same idempotency key made it.
    notes: on the key.
    """

    key: Key
    token: str | None = field(repr=False)
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Identity:
    """Who asks.

    key: the id of theirs, and the actor of what they do.
    """

    tenant: str
    key: str
    scope: str

    def require(self, scope: str) -> None:
        """Raise a `UserError` where the key may not do what is of this scope."""
        if SCOPES.index(self.scope) < SCOPES.index(scope):
            raise UserError(
                f"This needs a key with the scope {scope!r}, but yours has {self.scope!r}.", code="forbidden"
            )

    def require_managing(self, tenant: str) -> None:
        """Raise a `UserError` where the key may not manage a tenant and its keys.

        An admin key manages its own tenant, one of "default" all of them. For others a tenant does not exist.
        """
        self.require("admin")
        if self.tenant not in (tenant, DEFAULT):
            raise UserError(f"The tenant {tenant!r} does not exist.", code="not-found")


class Keys:
    """The API keys of a store.

    A key is `hf_<id>_<secret>` with 256 random bits of secret, of which the store has the SHA-256 alone. A key that is
    revoked here is refused at once, one that another process revokes within a second.

    now: the time in milliseconds.
    """

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store, self._now = store, now
        self._requests = Requests(store, now, lambda rows, answer: rows.directory.key(answer["key"]))
        self._held: dict[str, tuple[Key, str, float]] = {}
        self._changes = 0
        self._lock = threading.Lock()

    def create(
        self,
        tenant: str,
        scope: str,
        name: str,
        expires_at: datetime | None = None,
        *,
        actor: str = "local",
        asker: str = DEFAULT,
        idempotency_key: str | None = None,
    ) -> NewKey:
        """Make a key, and show it once.

        tenant: whose it is.
        scope: "predict", "write" (tasks and examples too) or "admin" (tenants and keys too).
        name: what it is for.
        expires_at: from when it is refused, with a time zone; None: never.
        actor: who is named in the audit.
        asker: the tenant that asks for it.
        idempotency_key: a request of that tenant with the same one within 24 hours makes no other key.

        Raises `UserError` for an unknown tenant or scope, a time that has passed, and an idempotency key of another
        request.
        """
        if scope not in SCOPES:
            raise UserError(f"Unknown scope {scope!r:.80}. Give one of: {', '.join(SCOPES)}.", field=("scope",))
        name, until = checked_name(name, "name of a key"), None if expires_at is None else expires_at.isoformat()

        def work(rows: Rows, id_: str, token: str) -> Key:
            rows.directory.tenant(tenant)
            last = None if expires_at is None else self._later(expires_at)
            return self._inserted(rows, id_, name, scope, token, last, actor)

        return self._made_once(tenant, asker, idempotency_key, ("key", scope, name, until), work)

    def list(self, tenant: str, *, limit: int = 100, after: str = "") -> Sequence[Key]:
        """A tenant's keys from the oldest, also those that are refused; `UserError` for an unknown tenant.

        after: the id of the last one seen.
        """
        with self._store.reading(tenant) as rows:
            rows.directory.tenant(tenant)
            return rows.directory.keys(limit, after)

    def revoke(self, tenant: str, key: str, *, actor: str = "local") -> Key:
        """Refuse a key from now on.

        key: its id.

        Raises `UserError` where the tenant has none of this id.
        """

        def work(rows: Rows) -> Key:
            found = rows.directory.key(key)
            if found.revoked_at is None:
                at = self._now()
                found = rows.directory.set_key(key, revoked_at=at)
                rows.log(at, actor, "key-revoked", key, None)
            return found

        with self._changing(key):
            return self._store.write(tenant, work)

    def rotate(
        self,
        tenant: str,
        key: str,
        *,
        overlap: timedelta = timedelta(days=1),
        actor: str = "local",
        asker: str = DEFAULT,
        idempotency_key: str | None = None,
    ) -> NewKey:
        """Make a key in place of another, with its name, scope and time to live, and show it once.

        overlap: for how long the old one is accepted beside it.
        actor, asker, idempotency_key: as for `create`.

        Raises `UserError` where the tenant has no key of this id, or it is refused or was rotated already.
        """

        def work(rows: Rows, id_: str, token: str) -> Key:
            old, at = rows.directory.key(key), self._now()
            if not _valid(old, at):
                raise UserError(f"The key {key!r} is revoked or expired. Create another one.")
            if old.expires_at is not None and (new := rows.directory.successor(key)) is not None:  # its time was cut
                raise UserError(f"The key {key!r} was rotated already. Rotate {new!r}, which took its place.")
            lifetime = None if old.expires_at is None else old.expires_at - old.created_at
            until = None if lifetime is None else min(at + lifetime // timedelta(milliseconds=1), LAST)
            last = at + max(overlap, timedelta()) // timedelta(milliseconds=1)
            if old.expires_at is not None:
                last = min(last, _milliseconds(old.expires_at))
            rows.directory.set_key(key, expires_at=last)
            rows.log(at, actor, "key-rotated", key, None)
            return self._inserted(rows, id_, old.name, old.scope, token, until, actor)

        with self._changing(key):
            return self._made_once(tenant, asker, idempotency_key, ("rotate", key, overlap.total_seconds()), work)

    def check(self, token: str) -> Identity:
        """Whose key this is, and what it may do; `UserError` where it is unknown, expired or revoked."""
        return self.held(token) or self.read(token)

    def read(self, token: str) -> Identity:
        """The same by the store, whatever was read before."""
        id_ = _id(token)
        known = None if id_ is None else self._identity(self._read(id_), token)
        if known is not None:
            return known
        raise UserError(
            "The API key is unknown, expired or revoked. Give a valid one in the header 'Authorization: Bearer KEY'.",
            code="unauthenticated",
        )

    def held(self, token: str) -> Identity | None:
        """Whose key this is where that was read a moment ago, without a look at the store."""
        found = self._held.get(_id(token) or "")
        return None if found is None or found[2] < time.monotonic() else self._identity(found, token)

    def seconds_held(self, token: str) -> float:
        """For how long it is known still whose key this is; 0.0 or less where it is not."""
        found = self._held.get(_id(token) or "")
        return 0.0 if found is None else found[2] - time.monotonic()

    def _identity(self, found: tuple[Key, str, float] | None, token: str) -> Identity | None:
        """Whose key was found, where it is this one and in force."""
        if found is None or not hmac.compare_digest(found[1], _hash(token)) or not _valid(found[0], self._now()):
            return None
        return Identity(found[0].tenant, found[0].id, found[0].scope)

    def first_admin(self, given: str | None) -> NewKey | None:
        """Ensure that the tenant "default" has an admin key; returns it if it was created here.

        given: the operator's own, replacing an earlier one; None: create one if none is valid.

        Raises `UserError` if the given one is too short, has characters not allowed in a header, or was revoked or
        rotated.
        """
        if given is None:
            return self._made_first()
        if not OPERATORS.fullmatch(given):
            raise UserError(
                "Your own admin key needs 32 to 256 letters, digits and characters of '._~+/=-', and must not begin "
                "with 'hf_', the prefix of generated keys. Choose another one."
            )

        def work(rows: Rows) -> Key:
            rows.directory.tenant(DEFAULT, lock=True)
            found = rows.directory.hashed_key(OPERATOR)
            if found is None:
                return self._inserted(rows, OPERATOR, "of the operator", "admin", given, None, "operator")
            if found[1] == _hash(given):
                if _valid(found[0], self._now()):
                    return found[0]
                raise UserError("This admin key is revoked or expired. Give another one, or none.")
            rows.log(self._now(), "operator", "key-replaced", OPERATOR, None)
            return rows.directory.set_key(OPERATOR, hash=_hash(given), revoked_at=None, expires_at=None)

        with self._changing(OPERATOR):
            self._store.write(DEFAULT, work)
        return None

    def _made_first(self) -> NewKey | None:
        id_, token = self._token()

        def work(rows: Rows) -> Key | None:
            rows.directory.tenant(DEFAULT, lock=True)
            if rows.directory.has_admin(self._now()):
                return None
            return self._inserted(rows, id_, "first admin", "admin", token, None, "service")

        made = self._store.write(DEFAULT, work)
        return None if made is None else NewKey(made, token)

    def _inserted(
        self, rows: Rows, id_: str, name: str, scope: str, token: str, expires_at: int | None, actor: str
    ) -> Key:
        at = self._now()
        rows.log(at, actor, "key-created", id_, None)
        return rows.directory.insert_key(id_, name, scope, _hash(token), at, expires_at)

    def _made_once(
        self,
        tenant: str,
        asker: str,
        idempotency_key: str | None,
        content: Sequence[Any],
        work: Callable[[Rows, str, str], Key],
    ) -> NewKey:
        """The key that work makes of a new id and token, or that the same request made before."""
        with self._requests.once(asker, idempotency_key, tenant, *content) as request:
            if request.earlier is not None:
                return NewKey(request.earlier, None, (SHOWN,))
            id_, token = self._token()

            def write(rows: Rows) -> Key:
                made = work(rows, id_, token)
                request.keep(rows, {"key": id_, "tenant": tenant}, self._now())
                return made

            return NewKey(self._store.write(tenant, write), token)

    @contextlib.contextmanager
    def _changing(self, id_: str) -> Iterator[None]:
        """Inside, a key is changed; it is read anew afterwards."""
        try:
            yield
        finally:
            with self._lock:
                self._changes += 1
                self._held.pop(id_, None)

    def _read(self, id_: str) -> tuple[Key, str, float] | None:
        """A key with its hash and until when it is fresh; held unless one was changed while it was read."""
        changes, until = self._changes, time.monotonic() + FRESH
        with self._store.reading(EVERYONE) as rows:
            found = rows.directory.hashed_key(id_)
        if found is None:
            return None
        read = *found, until
        with self._lock:
            if changes == self._changes:
                if len(self._held) >= HELD:
                    self._held.clear()
                self._held[id_] = read
        return read

    def _token(self) -> tuple[str, str]:
        """An id and a token of it."""
        id_ = self._store.ids.new("key")
        return id_, f"hf_{id_.removeprefix('key_')}_{secrets.token_hex(32)}"

    def _later(self, given: datetime) -> int:
        if given.tzinfo is None:
            raise UserError("The expiry of a key needs a time zone.", field=("expires_at",))
        if (at := _milliseconds(given)) <= self._now():
            raise UserError(f"{given.isoformat()} is in the past: the key would never be valid.", field=("expires_at",))
        return at


def _id(token: str) -> str | None:
    """The id of the key that a token may be of."""
    if made := TOKEN.fullmatch(token):
        return f"key_{made[1]}"
    return OPERATOR if OPERATORS.fullmatch(token) else None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _valid(key: Key, at: int) -> bool:
    return key.revoked_at is None and (key.expires_at is None or at < _milliseconds(key.expires_at))


def _milliseconds(time: datetime) -> int:
    """A time as the store has it, or the last one that can be shown."""
    return min((time - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1), LAST)
