"""Code of the user's own that a file may name: `package.module:name`."""

import importlib
from collections.abc import Sequence
from typing import Any

from handful.errors import ArtifactError, UserError


def names_own_code(name: str) -> bool:
    """Whether a name is of the form `package.module:name`, and no path."""
    return ":" in name and not {"/", "\\"} & set(name)


def imported(name: str, noun: str) -> Any:
    """What `package.module:name` names; `UserError` where it cannot be imported. noun: what messages call it."""
    package, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(package), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"The {noun} {name!r} cannot be imported ({error}). Install or add to PYTHONPATH the package that "
            "defines it, as when the model was trained."
        ) from error


def check_trusted(name: Any, trust: Sequence[str], noun: str) -> None:
    """Raise an `ArtifactError` if a name that a file gives would import a package that is not in `trust`.

    trust: names of packages, each with its sub-packages.
    noun: what messages call it.
    """
    if not isinstance(name, str):
        raise ArtifactError(f"The {noun} is no name, but {name!r}.")
    package = name.partition(":")[0]
    if names_own_code(name) and not any(package == trusted or package.startswith(f"{trusted}.") for trusted in trust):
        top = package.partition(".")[0]
        raise ArtifactError(
            f"The {noun} {name!r} is no part of handful: building it runs the code of the package {top!r}.",
            code="untrusted-model",
            hint="If you trust that package, name it with {trust}.",
        )
