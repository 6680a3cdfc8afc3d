"""Routes for those who watch the server; they need no key."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from handful.http.problems import Problem

router = APIRouter(tags=["health"])


@router.get("/livez")
async def live() -> Response:
    """Whether the server answers at all: this is done by the event loop alone."""
    return JSONResponse({"status": "live"})


@router.get("/readyz")
async def ready(request: Request) -> Response:
    """Whether the server takes requests."""
    if request.app.state.ready:
        return JSONResponse({"status": "ready"})
    return Problem("not-ready", "The server is ending.").response(request.state.id)
