"""Routes for those who watch the server; they need no key."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from handful.http.problems import Problem

STUCK = 300
"""Seconds after which a piece of work hangs."""

router = APIRouter(tags=["health"])


@router.get("/livez")
async def live(request: Request) -> Response:
    """Whether the server works: the event loop answers by itself, and no piece of work hangs."""
    longest = max(request.app.state.server.busy_for.values())
    if longest < STUCK:
        return JSONResponse({"status": "live"})
    return Problem("not-ready", f"A piece of work has been hanging for {longest:.0f} s.").response(request.state.id)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """What was counted and measured, as Prometheus reads it."""
    return Response(request.app.state.telemetry.page(), media_type="text/plain; version=0.0.4")


@router.get("/readyz")
async def ready(request: Request) -> Response:
    """Whether the server takes requests."""
    if request.app.state.ready:
        return JSONResponse({"status": "ready"})
    return Problem("not-ready", "The server is ending.").response(request.state.id)
