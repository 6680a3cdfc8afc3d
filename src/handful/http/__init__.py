"""The service behind HTTP: routes, problems, keys and the server, over `handful.serving`."""

from importlib.util import find_spec

from handful.errors import UserError

NEEDED = (
    "fastapi",
    "uvicorn",
    "httptools",
    "msgspec",
    "simdjson",
    "pydantic",
    "python_multipart",
    "prometheus_client",
    "fastapi_offline",
)

if missing := [name for name in NEEDED if find_spec(name) is None]:
    raise UserError(
        f"A server needs {', '.join(missing)}, which is not installed: pip install '.[serve]' in the folder of handful."
    )
