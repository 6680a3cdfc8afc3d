"""What an operator asks a server: models, limits, keys, tenants, usage and the audit."""

import uuid
from datetime import datetime
from typing import Any

from handful.client.calls import Answer, Call, Plan, ask, quoted
from handful.client.records import (
    Page,
    RemoteAuditEntry,
    RemoteKey,
    RemoteLimits,
    RemoteModel,
    RemoteTenant,
    RemoteUsage,
)
from handful.client.verbs import listing, verb


class OperatorVerbs:
    """Methods beside tasks; those on keys and tenants need a key of the scope "admin"."""

    @listing
    def models(self) -> Call[Page[RemoteModel]]:
        """The models that tasks are adapted from."""
        return Call("GET", "/v1/models", Page[RemoteModel], repeatable=True)

    @verb
    def limits(self) -> Plan[RemoteLimits]:
        """The most that one request may hold."""
        return (yield from ask(Call("GET", "/v1/limits", RemoteLimits, repeatable=True)))

    @verb
    def usage(self) -> Plan[RemoteUsage]:
        """What the tenant has, and how much it may have."""
        return (yield from ask(Call("GET", "/v1/usage", RemoteUsage, repeatable=True)))

    @listing
    def audit(self, *, limit: int | None = None) -> Call[Page[RemoteAuditEntry]]:
        """The tenant's changes, from the first.

        limit: how many are asked for at once.
        """
        return Call("GET", "/v1/audit", Page[RemoteAuditEntry], {"limit": limit}, repeatable=True)

    @listing
    def keys(self, *, tenant: str | None = None, limit: int | None = None) -> Call[Page[RemoteKey]]:
        """A tenant's API keys from the oldest, without what is secret.

        tenant: this one's own by default.
        limit: how many are asked for at once.
        """
        return Call("GET", "/v1/keys", Page[RemoteKey], {"tenant": tenant, "limit": limit}, repeatable=True)

    @verb
    def create_key(
        self,
        name: str,
        scope: str,
        *,
        tenant: str | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Plan[RemoteKey]:
        """Make an API key, whose `token` is shown this once.

        name: what it is for.
        scope: what it allows: "predict", "write" or "admin", each of them also what those before it do.
        tenant: whose it is; this one's own by default.
        expires_at: from when on it is refused, with a time zone; None: never.
        idempotency_key: by which the server recognizes the request when it comes again; by default each call has its
            own. Where the first answer was lost, the key has no `token`, and a note that says so.
        """
        given = {"name": name, "scope": scope, "tenant": tenant, "expires_at": expires_at}
        body = {field: value for field, value in given.items() if value is not None}
        return (yield from ask(_making("/v1/keys", RemoteKey, body, idempotency_key)))

    @verb
    def rotate_key(
        self,
        key: str,
        *,
        overlap: float | None = None,
        tenant: str | None = None,
        idempotency_key: str | None = None,
    ) -> Plan[RemoteKey]:
        """Make a key in place of another one, which is accepted for a while beside it; its `token` is shown this once.

        key: the id of the other one.
        overlap: seconds for which that is still accepted; a day by default.
        tenant: whose it is; this one's own by default.
        idempotency_key: see `create_key`.
        """
        body = {} if overlap is None else {"overlap_seconds": overlap}
        path = f"/v1/keys/{quoted(key)}/rotate"
        return (yield from ask(_making(path, RemoteKey, body, idempotency_key, tenant=tenant)))

    @verb
    def revoke_key(self, key: str, *, tenant: str | None = None) -> Plan[None]:
        """Refuse a key from now on.

        key: its id.
        tenant: whose it is; this one's own by default.
        """
        yield from ask(Call("DELETE", f"/v1/keys/{quoted(key)}", None, {"tenant": tenant}, repeatable=True))

    @listing
    def tenants(self, *, limit: int | None = None) -> Call[Page[RemoteTenant]]:
        """The tenants of the server.

        limit: how many are asked for at once.
        """
        return Call("GET", "/v1/tenants", Page[RemoteTenant], {"limit": limit}, repeatable=True)

    @verb
    def create_tenant(self, name: str, *, idempotency_key: str | None = None) -> Plan[RemoteTenant]:
        """Make a tenant, whose tasks no other one sees.

        idempotency_key: see `create_key`.
        """
        return (yield from ask(_making("/v1/tenants", RemoteTenant, {"name": name}, idempotency_key)))


def _making(
    path: str, answer: type[Answer], body: Any, idempotency_key: str | None, **query: str | None
) -> Call[Answer]:
    """A request that makes something, and is known when it comes again."""
    key = idempotency_key or uuid.uuid4().hex
    return Call("POST", path, answer, query, body=body, idempotency_key=key, repeatable=True)
