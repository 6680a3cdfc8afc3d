"""A service from afar: the verbs of `handful.Service` as requests to a server."""

from importlib.util import find_spec

from handful.errors import UserError

if missing := [name for name in ("httpx2", "msgspec") if find_spec(name) is None]:
    raise UserError(
        f"A client needs {', '.join(missing)}, which is not installed: pip install '.[serve]' in the folder of handful."
    )
