"""The reference of the public names as Markdown, made from their docstrings; `make docs` has it as a page."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import handful
from handful.registry import Registry

WIDTH = 100
INTRODUCTION = """# Python

This page is made from the docstrings by `make docs`. All names are in `handful`; the examples run as tests.

"""


def python_markdown() -> str:
    """The page: a section for each public name, with the methods of classes."""
    names = [name for name in handful.__all__ if not name.startswith("_")]
    lines = [INTRODUCTION + ", ".join(f"[{name}](#{name.lower()})" for name in names)]
    for name in names:
        lines += ["", f"## {name}", "", *section(name, getattr(handful, name))]
    return "\n".join(lines) + "\n"


def section(name: str, one: Any) -> Iterator[str]:
    """The lines on a public name."""
    if isinstance(one, Registry):
        yield f"The registry of all {name.lower()} by name. {described(one)}"
        return
    yield from (called(name, one), "", described(one))
    for method, member in methods(one) if inspect.isclass(one) else ():
        function = inspect.unwrap(getattr(member, "__func__", member))
        shown = (
            f"`{method}`"
            if isinstance(member, property)
            else called(method, function, own=not isinstance(member, staticmethod))
        )
        yield from ("", f"### {name}.{method}", "", shown, "", described(member))


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class with a docstring, those of its parents in handful too."""
    shown: set[str] = set()
    for parent in kind.__mro__:
        if not parent.__module__.startswith("handful."):
            continue
        for name, member in vars(parent).items():
            documented = isinstance(member, (property, classmethod, staticmethod)) or inspect.isfunction(member)
            if documented and not name.startswith("_") and name not in shown and inspect.getdoc(member):
                shown.add(name)
                yield name, member


def called(name: str, one: Any, *, own: bool = False) -> str:
    """How a name is called, as a block of code.

    own: whether the first argument is the object or class itself.
    """
    try:
        parameters = list(inspect.signature(one).parameters.values())[own:]
    except ValueError:  # of an exception whose constructor is Python's
        return f"`{name}`"
    parts = [str(one.replace(annotation=one.empty, default=plain(one.default))) for one in parameters]
    if any(one.kind is one.KEYWORD_ONLY for one in parameters) and not any(one.startswith("*") for one in parts):
        parts.insert(next(place for place, one in enumerate(parameters) if one.kind is one.KEYWORD_ONLY), "*")
    line = f"{name}({', '.join(parts)})"
    if len(line) > WIDTH:
        line = f"{name}(\n    " + ",\n    ".join(parts) + ",\n)"
    return f"```python\n{line}\n```"


class _Named:
    """A default that is shown by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def plain(default: Any) -> Any:
    """A default without an address of this process."""
    named = (inspect.isroutine(default) or inspect.isclass(default)) and default is not inspect.Parameter.empty
    return _Named(default.__name__) if named else default


def described(one: Any) -> str:
    """A docstring as Markdown: arguments as a list, examples as blocks."""
    lines: list[str] = []
    text = inspect.getdoc(one) or ""
    for paragraph in text.replace("Example:\n", "Example:\n\n").split("\n\n"):
        if ">>>" in paragraph:
            lines += ["```pycon", inspect.cleandoc(paragraph), "```", ""]
        else:
            listed = re.sub(r"^ *(\*{0,2}\w+(?:, \*{0,2}\w+)*): (?=\S)", r"- `\1`: ", paragraph, flags=re.MULTILINE)
            lines += [listed.replace("Attributes:\n", "Attributes:\n\n"), ""]
    return "\n".join(lines).rstrip()
