"""Importing one module of a package without running its packages' `__init__`."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


def without_init(*packages: str) -> None:
    """Enter bare packages (parents first) under which submodules are found as usual.

    Two peers import torchvision, gym and more on the way to a few pure functions of tensors, and those would bring
    another torch or do not build at all; what is measured needs none of them.
    """
    for package in packages:
        top, *below = package.split(".")
        spec = None if top in sys.modules else find_spec(top)
        if top in sys.modules:
            (root,) = sys.modules[top].__path__
        elif spec is not None and spec.origin is not None:
            root = str(Path(spec.origin).parent)
        else:
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)
        bare = ModuleType(package)
        bare.__path__ = [str(Path(root, *below))]
        sys.modules[package] = bare
