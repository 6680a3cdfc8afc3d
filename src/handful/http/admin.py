"""Routes of keys and tenants, for those who run the service."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from handful.errors import UserError
from handful.http.answers import response_of
from handful.http.calls import Administering, Call, IdempotencyKey
from handful.http.documents import takes
from handful.http.places import After, AfterNumber, KeyId, Limit
from handful.http.reading import content_of
from handful.http.schemas import (
    AuditEntry,
    AuditPage,
    CreateKey,
    CreateTenant,
    Key,
    KeyPage,
    NewKey,
    RotateKey,
    Tenant,
    TenantPage,
)
from handful.serving.directory import DEFAULT

router = APIRouter(prefix="/v1", tags=["administration"])

OfTenant = Annotated[str | None, Query(max_length=63, description="The tenant; default: that of your key.")]


@router.get("/keys", response_model=KeyPage)
async def list_keys(call: Administering, tenant: OfTenant = None, limit: Limit = 100, after: After = "") -> Response:
    """The API keys of a tenant, a page of them, from the oldest; also those that are refused."""
    found = await call.run(call.service.keys.list, _managed(call, tenant), limit=limit + 1, after=after)
    page, more = found[:limit], len(found) > limit
    data = [Key.of(one) for one in page]
    return response_of(KeyPage(data=data, has_more=more, next_after=page[-1].id if more else None))


@router.post("/keys", status_code=201, response_model=NewKey, **takes(CreateKey))
async def create_key(call: Administering, key: IdempotencyKey = None) -> Response:
    """Make an API key, whose token is shown this once, and not to a request that is sent again."""
    given = await content_of(call, CreateKey)
    asked = _managed(call, given.tenant), given.scope, given.name, given.expires_at
    made = await call.run(call.service.keys.create, *asked, **_asker(call), idempotency_key=key)
    return response_of(NewKey.shown(made), 201)


@router.post("/keys/{key}/rotate", status_code=201, response_model=NewKey, **takes(RotateKey))
async def rotate_key(
    key: KeyId, call: Administering, tenant: OfTenant = None, request_key: IdempotencyKey = None
) -> Response:
    """Make a key in place of another, which is accepted for a while beside it; its token is shown this once."""
    overlap = timedelta(seconds=(await content_of(call, RotateKey)).overlap_seconds)
    made = await call.run(
        call.service.keys.rotate,
        _managed(call, tenant),
        key,
        overlap=overlap,
        **_asker(call),
        idempotency_key=request_key,
    )
    return response_of(NewKey.shown(made), 201)


@router.delete("/keys/{key}", status_code=204)
async def revoke_key(key: KeyId, call: Administering, tenant: OfTenant = None) -> Response:
    """Refuse a key from now on."""
    await call.run(call.service.keys.revoke, _managed(call, tenant), key, actor=call.identity.key)
    return Response(status_code=204)


@router.get("/tenants", response_model=TenantPage)
async def list_tenants(call: Administering, limit: Limit = 100, after: After = "") -> Response:
    """The tenants, a page of them, by name; for an admin key of "default"."""
    _check_operator(call)
    found = await call.run(call.service.tenants.list, limit=limit + 1, after=after)
    page, more = found[:limit], len(found) > limit
    data = [Tenant(name=one.name, created_at=one.created_at) for one in page]
    return response_of(TenantPage(data=data, has_more=more, next_after=page[-1].name if more else None))


@router.post("/tenants", status_code=201, response_model=Tenant, **takes(CreateTenant))
async def create_tenant(call: Administering, key: IdempotencyKey = None) -> Response:
    """Make a tenant; for an admin key of "default"."""
    _check_operator(call)
    given = await content_of(call, CreateTenant)
    made = await call.run(call.service.tenants.create, given.name, **_asker(call), idempotency_key=key)
    return response_of(Tenant(name=made.name, created_at=made.created_at), 201)


@router.get("/audit", response_model=AuditPage)
async def list_audit(call: Administering, limit: Limit = 100, after: AfterNumber = 0) -> Response:
    """The changes of the tenant from the first, a page of them, each with a hash of it and the one before."""
    found = await call.look(call.service.audit, limit=limit + 1, after=after)
    page, more = found[:limit], len(found) > limit
    data = [AuditEntry(**vars(one)) for one in page]
    return response_of(AuditPage(data=data, has_more=more, next_after=page[-1].number if more else None))


def _managed(call: Call, tenant: str | None) -> str:
    """A tenant that the asking key may manage, its own by default."""
    name = call.identity.tenant if tenant is None else tenant
    call.identity.require_managing(name)
    return name


def _check_operator(call: Call) -> None:
    if call.identity.tenant != DEFAULT:
        raise UserError("This needs an admin key of the tenant 'default'.", code="forbidden")


def _asker(call: Call) -> dict[str, str]:
    """Who asks: the key that the audit names, and the tenant within which idempotency keys count."""
    return {"actor": call.identity.key, "asker": call.identity.tenant}
