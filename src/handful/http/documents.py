"""The OpenAPI page: what each route takes and answers."""

from typing import Any, get_args

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from handful.http.calls import Administering, Predicting, Seen, Writing
from handful.http.problems import MEDIA
from handful.http.request_examples import EXCHANGES, PROBLEM, Exchange
from handful.http.schemas import Given, PredictForTask, PredictForTasks, ProblemContent
from handful.http.uploads import MEDIA as UPLOAD

PLACE = "#/components/schemas/{model}"
SECURITY = {"key": {"type": "http", "scheme": "bearer", "description": "A key of `handful keys`."}}
SCOPES = {
    get_args(needed)[1].dependency: scope
    for scope, needed in (("predict", Predicting), ("write", Writing), ("admin", Administering))
}
"""By what a route depends on."""
IF_MATCH = get_args(Seen)[1].dependency
"""What routes depend on that need If-Match."""
FRAMEWORK = ("HTTPValidationError", "ValidationError")
"""Schemas of errors as the framework has them, in whose place problems stand."""


def takes(schema: type[BaseModel], *, upload: bool = False) -> dict[str, Any]:
    """What a route is declared with that reads JSON of a schema.

    upload: or that as a part beside images or a file.
    """
    json: dict[str, Any] = {"$ref": PLACE.format(model=schema.__name__)}
    content = {"application/json": {"schema": json}}
    if upload:
        binary = {"type": "string", "contentMediaType": "application/octet-stream"}
        parts = {
            "task": json,
            "file": binary | {"description": "A .zip, .csv, .parquet or .npz file with the inputs or examples."},
        }
        content[UPLOAD] = {
            "schema": {
                "type": "object",
                "properties": parts,
                "required": ["task"],
                "additionalProperties": binary
                | {"description": 'An image, which the task refers to as {"image": NAME}.'},
            },
            "encoding": {"task": {"contentType": "application/json"}},
        }
    return {"openapi_extra": {"requestBody": {"required": True, "content": content}}}


def takes_file(media: str) -> dict[str, Any]:
    """What a route is declared with that reads a file."""
    return {"openapi_extra": {"requestBody": {"required": True, "content": {media: {}}}}}


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of all routes."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    needs = _needs(app)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["summary"] = operation["summary"].capitalize()
            operation["responses"].pop("422", None)
            _exemplify(operation, EXCHANGES.get((method, path)))
            operation["responses"]["default"] = _problem()
            if path.startswith("/v1/"):
                operation["security"] = [{"key": [SCOPES[one] for one in needs[method, path] if one in SCOPES]}]
            if IF_MATCH in needs[method, path]:
                _require(operation, "If-Match")
    components = document.setdefault("components", {})
    schemas = {name: one for name, one in components.get("schemas", {}).items() if name not in FRAMEWORK}
    wanted = [(schema, "validation") for schema in _taken()] + [(ProblemContent, "serialization")]
    _, definitions = models_json_schema(wanted, ref_template=PLACE)  # type: ignore[arg-type]
    components["schemas"] = dict(sorted((schemas | definitions["$defs"]).items()))
    components["securitySchemes"] = SECURITY
    return document


def _needs(app: FastAPI) -> dict[tuple[str, str | None], list[Any]]:
    """What each route depends on, by its method and path."""
    return {
        (method.lower(), context.path): [one.call for one in context.dependant.dependencies]
        for context in iter_route_contexts(app.routes)
        for method in context.methods or ()
    }


def _exemplify(operation: dict[str, Any], exchange: Exchange | None) -> None:
    """Show a request and its response, if the route has them."""
    if exchange is None:
        return
    if exchange.request is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = exchange.request
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            response["content"]["application/json"]["example"] = exchange.answer


def _require(operation: dict[str, Any], header: str) -> None:
    for parameter in operation["parameters"]:
        if parameter["name"] == header:
            parameter["required"] = True


def _taken() -> list[type[BaseModel]]:
    """The schemas of contents of requests."""
    return [*Given.__subclasses__(), PredictForTask, PredictForTasks]


def _problem() -> dict[str, Any]:
    schema = {"$ref": PLACE.format(model=ProblemContent.__name__)}
    return {"description": "A problem", "content": {MEDIA: {"schema": schema, "example": PROBLEM}}}
