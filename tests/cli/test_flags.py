"""Flags are spelled here only: the library's hints name parameters, and each of them is an option of some command."""

import ast
import functools
import re
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import handful
from handful.cli.flags import flag
from handful.cli.main import app

ROOT = Path(handful.__file__).parent
LIBRARY = [path for path in sorted(ROOT.rglob("*.py")) if path.relative_to(ROOT).parts[0] not in ("cli", "__main__.py")]
SHOWS_COMMANDS = "card.py"
"""The page of a model is for readers in a terminal, and shows which commands to type."""


@functools.cache
def options() -> set[str]:
    """All options of all commands."""
    commands = get_command(app).commands.values()  # type: ignore[attr-defined]
    whole = [one for command in commands for one in getattr(command, "commands", {"": command}).values()]
    return {name for command in whole for parameter in command.params for name in parameter.opts}


def texts(path: Path) -> list[tuple[str, str]]:
    """The texts in a module's code, docstrings left out, and where they are."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return [(f"{path.name}:{node.lineno}", node.value) for node in constants if isinstance(node.value, str)]


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text)) & options()


def hints(tree: ast.AST) -> list[ast.expr]:
    """The hints of the errors and findings that some code makes."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "hint"]
    return found + [call.args[3] for call in calls if getattr(call.func, "id", "") == "Finding" and len(call.args) > 3]


def of_the_library(hint: ast.expr) -> bool:
    """Whether nothing of the user's can be in a hint: it is written out, or made of hints and of `named`."""
    match hint:
        case ast.Constant():
            return True
        case ast.Name():
            return hint.id == "hint" or hint.id.isupper()
        case ast.Attribute(attr="hint") | ast.Call(func=ast.Name(id="named")):
            return True
        case ast.JoinedStr():
            return all(of_the_library(part) for part in hint.values)
        case ast.FormattedValue():
            return of_the_library(hint.value)
        case ast.BinOp():
            return of_the_library(hint.left) and of_the_library(hint.right)
        case ast.BoolOp():
            return all(of_the_library(value) for value in hint.values)
        case ast.IfExp():
            return of_the_library(hint.body) and of_the_library(hint.orelse)
    return False


def test_no_module_of_the_library_spells_a_flag():
    modules = [path for path in LIBRARY if path.name != SHOWS_COMMANDS]
    assert not [(where, flags) for path in modules for where, text in texts(path) if (flags := flags_in(text))]


def test_a_flag_is_found_where_one_is():
    assert flags_in("Lower --query-shot, or give -o FILE.") == {"--query-shot", "-o"}
    assert not flags_in("`hf download NAME --revision 1`, well-known")


def test_hints_hold_nothing_of_the_user():
    for path in LIBRARY:
        for hint in hints(ast.parse(path.read_text())):
            assert of_the_library(hint), f"{path}:{hint.lineno}"


@pytest.mark.parametrize("hint", ["f'Leave out {name}.'", "f'{error}'", "message", "'a' + str(path)", "text.format(a)"])
def test_a_hint_with_something_of_the_user_is_found(hint):
    (found,) = hints(ast.parse(f"UserError('No.', hint={hint})"))
    assert not of_the_library(found)


def test_each_parameter_that_a_hint_names_is_an_option():
    parameters = {
        name
        for path in LIBRARY
        for hint in hints(ast.parse(path.read_text()))
        for part in ast.walk(hint)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
        for name in re.findall(r"\{(\w+)\}", part.value)
    }
    assert {"way", "limits", "inner_lr", "resume"} <= parameters
    assert {flag(name).split()[0] for name in parameters} <= options()


def test_an_error_is_shown_with_the_flags_of_its_parameters_and_the_users_braces(tmp_path):
    table = tmp_path / "{way}.csv"
    table.write_text("a,b\n1,2\n")
    result = CliRunner().invoke(app, ["train", "--tasks", str(table), "-o", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "{way}.csv" in result.stderr
    assert "--task and --target" in result.stderr
