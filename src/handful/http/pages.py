"""Pages for people: the API with what each route takes, and the kinds of problems. Nothing comes from elsewhere."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from handful.errors import UserError
from handful.http.kinds import KINDS
from handful.http.problem_pages import problem_html

router = APIRouter(include_in_schema=False)

ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon.png": "image/png"}
POLICY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="/docs/favicon.png">
{head}
</head>
<body>
{body}
</body>
</html>
"""
READABLE = """<style>
body { max-width: 42rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; color: #222 }
dt { font-weight: bold; margin-top: 0.75rem }
dd { margin: 0 }
</style>"""
STYLE = '<link rel="stylesheet" href="/docs/swagger-ui.css">'
API = '<div id="api"></div>\n<script src="/docs/swagger-ui-bundle.js"></script>\n<script src="/docs/start.js"></script>'
START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null});\n'


@router.get("/docs")
async def api_page() -> Response:
    """The API, to be read and tried."""
    return HTMLResponse(PAGE.format(title="handful: the API", head=STYLE, body=API), headers=POLICY)


@router.get("/docs/start.js")
async def start() -> Response:
    """What shows the API on its page."""
    return Response(START, media_type="text/javascript", headers=POLICY)


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """A file of the page."""
    if name not in ASSETS:
        raise UserError("The file does not exist.", code="not-found")
    return FileResponse(_assets() / name, media_type=ASSETS[name], headers=POLICY)


@router.get("/openapi.json")
async def document(request: Request) -> Response:
    """The API as OpenAPI 3.1 has it."""
    return JSONResponse(request.app.openapi())


@router.get("/problems/{slug}")
async def problem_page(slug: str) -> Response:
    """What a kind of problem means, and what to do."""
    if slug not in KINDS:
        raise UserError("This kind of problem does not exist.", code="not-found")
    return HTMLResponse(PAGE.format(title=slug, head=READABLE, body=problem_html(slug)), headers=POLICY)


@cache
def _assets() -> Path:
    """The folder of Swagger UI in an installed package, of which no code is run."""
    found = find_spec("fastapi_offline")
    assert found is not None
    assert found.origin is not None, "handful.http looks for it"
    return Path(found.origin).parent / "static"
