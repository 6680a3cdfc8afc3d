"""Routes of what the server has and takes."""

from dataclasses import asdict

from fastapi import APIRouter
from starlette.responses import Response

from handful.http.answers import response_of
from handful.http.calls import Predicting
from handful.http.schemas import Limits, ModelPage, ServedModel, Usage
from handful.models.meta_model import MetaModel

router = APIRouter(prefix="/v1", tags=["server"])


@router.get("/models", response_model=ModelPage)
async def list_models(call: Predicting) -> Response:
    """The models that new tasks are adapted from."""
    return response_of(ModelPage(data=[_shown(name, model) for name, model in sorted(call.service.models.items())]))


@router.get("/limits", response_model=Limits)
async def show_limits(call: Predicting) -> Response:
    """The most that one request may hold."""
    return response_of(Limits(call.server.limits.shown()))


@router.get("/usage", response_model=Usage)
async def show_usage(call: Predicting) -> Response:
    """What the tenant uses, deleted tasks too until they are erased, and the most that it and a task may have."""
    used = await call.look(call.service.usage)
    return response_of(Usage(**asdict(used), quotas=asdict(call.service.quotas)))


def _shown(name: str, model: MetaModel) -> ServedModel:
    pipeline, spec = model.pipeline, model.spec
    return ServedModel(
        name=name,
        digest=model.digest,
        kind=spec.kind,
        labels=pipeline.labels if pipeline else None,
        targets=list(model.targets),
        takes=pipeline.described() if pipeline else f"arrays of shape {spec.input_shape}",
    )
