"""Many adapted tasks as a product: stored, versioned, corrected, rolled back and erased."""

from importlib.util import find_spec

from handful.errors import UserError

if missing := [name for name in ("sqlalchemy", "alembic", "uuid_utils") if find_spec(name) is None]:
    raise UserError(
        f"A service needs {', '.join(missing)}, which is not installed: pip install '.[serve]' in handful's folder."
    )
