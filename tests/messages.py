"""Every text that handful shows, in one list: `python -m tests.messages [PACKAGE ...] [--docstrings]`.

The texts are read from the syntax trees of `src/handful`, so that none is missing: whatever has a blank between two
words and is no docstring, SQL or example. Expressions in them stand in braces.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import handful
from handful import errors

ROOT = Path(handful.__file__).parent
ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
KINDS = {
    **dict.fromkeys((*ERRORS, "RemoteError", "Problem", "KeyError"), "error"),
    **dict.fromkeys(("note", "Note", "NoteEvent"), "note"),
    **dict.fromkeys(("Option", "Argument", "command", "group", "of_data", "of_sizes", "of_learner"), "help"),
    **dict.fromkeys(("of_training", "of_server", "_of_server", "_option", "Field", "Query", "Header"), "help"),
    **dict.fromkeys(("StepEvent", "Progress"), "progress"),
    **dict.fromkeys(("warning", "info", "error", "exception"), "log"),
}
"""By the function that a text is an argument of; all others are plain texts: sentences of reports, titles, labels."""

WORDS = re.compile(r"[A-Za-z}][.,:;)']? \(?[A-Za-z{]")
SQL = re.compile(r"^\W*(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|WITH|PRAGMA|BEGIN|FROM|WHERE|AND|ORDER|GRANT)\b")


@dataclass(frozen=True)
class Text:
    """One of them. kind: error, note, help, progress, log, docstring or text. line: where it begins."""

    path: Path
    line: int
    kind: str
    words: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} [{self.kind}] {self.words}"


def texts_of(path: Path) -> Iterator[Text]:
    """All texts of a module, its docstrings too."""
    yield from _texts(ast.parse(path.read_text()), path, "text")


def _texts(node: ast.AST, path: Path, kind: str) -> Iterator[Text]:
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        kind = KINDS.get(called, kind)
    if isinstance(node, ast.Constant | ast.JoinedStr):
        words = _written(node)
        if WORDS.search(words) and not SQL.match(words):
            yield Text(path, node.lineno, kind, words)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            if isinstance(child.value.value, str):
                yield Text(path, child.lineno, "docstring", child.value.value)
        elif not isinstance(node, ast.JoinedStr) or isinstance(child, ast.FormattedValue):
            yield from _texts(child, path, kind)


def _written(node: ast.AST) -> str:
    """A string as it is written, with expressions in braces."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_written, node.values))
    if isinstance(node, ast.FormattedValue):
        return f"{{{ast.unparse(node.value)}}}"
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def main(arguments: list[str]) -> None:
    """Print the texts of the packages or modules that are named, or of all; with `--docstrings`, docstrings too."""
    docstrings = "--docstrings" in arguments
    wanted = [argument for argument in arguments if not argument.startswith("-")]
    for path in sorted(ROOT.rglob("*.py")):
        if not wanted or path.relative_to(ROOT).parts[0].removesuffix(".py") in wanted:
            for text in texts_of(path):
                if docstrings or text.kind != "docstring":
                    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
