"""What an operator asks a server: models, limits, keys, tenants, usage and the audit."""

from datetime import datetime
from typing import Any

from handful.client.calls import Call, Plan, ask, quoted
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
        """The tenant's changes, from the first. limit: how many are asked for at once."""
        return Call("GET", "/v1/audit", Page[RemoteAuditEntry], {"limit": limit}, repeatable=True)

    @listing
    def keys(self, *, tenant: str | None = None, limit: int | None = None) -> Call[Page[RemoteKey]]:
        """A tenant's API keys from the oldest, without what is secret.

        tenant: this one's own by default. limit: how many are asked for at once.
        """
        return Call("GET", "/v1/keys", Page[RemoteKey], {"tenant": tenant, "limit": limit}, repeatable=True)

    @verb
    def create_key(
        self, name: str, scope: str, *, tenant: str | None = None, expires_at: datetime | None = None
    ) -> Plan[RemoteKey]:
        """Make an API key, whose `token` is shown this once.

        name: what it is for.
        scope: what it allows: "predict", "write" or "admin", each of them also what those before it do.
        tenant: whose it is; this one's own by default.
        expires_at: from when on it is refused, with a time zone; None: never.
        """
        given = {"name": name, "scope": scope, "tenant": tenant, "expires_at": expires_at}
        body = {field: value for field, value in given.items() if value is not None}
        return (yield from ask(_secret("/v1/keys", body, None)))

    @verb
    def rotate_key(self, key: str, *, overlap: float | None = None, tenant: str | None = None) -> Plan[RemoteKey]:
        """Make a key in place of another one, which is accepted for a while beside it; its `token` is shown this once.

        key: the id of the other one.
        overlap: seconds for which that is still accepted; a day by default.
        tenant: whose it is; this one's own by default.
        """
        body = {} if overlap is None else {"overlap_seconds": overlap}
        return (yield from ask(_secret(f"/v1/keys/{quoted(key)}/rotate", body, tenant)))

    @verb
    def revoke_key(self, key: str, *, tenant: str | None = None) -> Plan[None]:
        """Refuse a key from now on.

        key: its id. tenant: whose it is; this one's own by default.
        """
        yield from ask(Call("DELETE", f"/v1/keys/{quoted(key)}", None, {"tenant": tenant}, repeatable=True))

    @listing
    def tenants(self, *, limit: int | None = None) -> Call[Page[RemoteTenant]]:
        """The tenants of the server. limit: how many are asked for at once."""
        return Call("GET", "/v1/tenants", Page[RemoteTenant], {"limit": limit}, repeatable=True)

    @verb
    def create_tenant(self, name: str) -> Plan[RemoteTenant]:
        """Make a tenant, whose tasks no other one sees."""
        call: Call[RemoteTenant] = Call("POST", "/v1/tenants", RemoteTenant, body={"name": name})
        return (yield from ask(call))


def _secret(path: str, body: Any, tenant: str | None) -> Call[RemoteKey]:
    """A request that makes a key, another one each time: what is lost on the way is not shown again."""
    return Call("POST", path, RemoteKey, {"tenant": tenant}, body=body)
