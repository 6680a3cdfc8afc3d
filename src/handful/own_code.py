"""Code of the user's own that a file may name: `package.module:name`."""

import importlib
from collections.abc import Sequence
from typing import Any

from handful.errors import ArtifactError, UserError


def names_own_code(name: str) -> bool:
    """Whether a name is of the form `package.module:name`, and no path."""
    return ":" in name and not {"/", "\\"} & set(name)


def imported(name: str, noun: str) -> Any:
    """The object that `package.module:name` names; `UserError` if it cannot be imported.

    noun: its name in messages.
    """
    package, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(package), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"The {noun} {name!r} cannot be imported ({error}). Install the package that defines it, or add "
            "the folder that it is in to PYTHONPATH."
        ) from error


def check_trusted(name: Any, trust: Sequence[str], noun: str) -> None:
    """Raise `ArtifactError` if a name that a file gives would import a package that is not in `trust`.

    trust: names of packages, each with its sub-packages.
    noun: its name in messages.
    """
    if not isinstance(name, str):
        raise ArtifactError(f"The {noun} is not a name, but {name!r}.")
    package = name.partition(":")[0]
    if names_own_code(name) and not any(package == trusted or package.startswith(f"{trusted}.") for trusted in trust):
        top = package.partition(".")[0]
        raise ArtifactError(
            f"The {noun} {name!r} is not a part of handful: building it runs code of the package {top!r}.",
            code="untrusted-model",
            hint="If you trust that package, name it with {trust}.",
        )
