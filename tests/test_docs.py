"""The pages and the code do not drift apart: blocks run, commands exist, links resolve, and everything is mentioned."""

import doctest
import importlib
import inspect
import json
import pkgutil
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

import handful
from contracts import test_learners as learner_contract
from contracts import test_tasks as source_contract
from contracts.problems import IMAGES, PROBLEMS, ROWS, SHARED, VALUES, can
from handful.cli.main import app
from handful.registry import BACKBONES, LEARNERS, METRICS, TASKS
from handful.tasks.distribution import SPLITS
from handful.workflows.catalog import catalog

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
EVERYTHING = "\n".join(TEXTS.values())

FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL)
GROUPS = {name: one.commands for name, one in typer.main.get_command(app).commands.items() if hasattr(one, "commands")}
COMMANDS = {name: one for name, one in typer.main.get_command(app).commands.items() if name not in GROUPS} | {
    f"{group} {name}": one for group, members in GROUPS.items() for name, one in members.items()
}
"""By their names; those of a group have two words."""


def of_page(page):
    return str(page.relative_to(ROOT))


def blocks(text, *languages):
    """The fenced blocks of some languages. Python in a block called `py` needs a server, or what a reader has."""
    return [match["body"] for match in FENCE.finditer(text) if match["info"].strip() in languages]


def names_in_code(text):
    """All words of the code blocks and of the code within sentences."""
    spans = [match["body"] for match in FENCE.finditer(text)] + re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return set(re.findall(r"\w+", " ".join(spans)))


@pytest.fixture
def registries():
    """What a page registers is gone after its test."""
    kept = [(registry, dict(registry.items())) for registry in (LEARNERS, TASKS, BACKBONES, METRICS)]
    yield
    for registry, members in kept:
        registry._members = members


def run(page):
    """Run the Python blocks of a page one after another; returns their names."""
    names = {"__name__": f"page_{page.stem.replace('-', '_')}"}
    for number, block in enumerate(blocks(TEXTS[page], "python"), start=1):
        exec(compile(block, f"{of_page(page)}, block {number}", "exec"), names)
    return names


# Blocks


def with_python():
    """Pages with Python blocks, but for tutorials, whose blocks need what their commands make (test_tutorials.py)."""
    return [page for page in PAGES if page.parent.name != "tutorials" and blocks(TEXTS[page], "python")]


@pytest.mark.parametrize("page", with_python(), ids=of_page)
@pytest.mark.usefixtures("registries")
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(page)


def test_a_block_that_fails_is_seen(monkeypatch):
    page = ROOT / "docs" / "page.md"
    monkeypatch.setitem(TEXTS, page, "```python\nx = 1\n```\n\n```py\n1 / 0\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError):
        run(page)


MODULES = [name for _, name, _ in pkgutil.walk_packages(handful.__path__, "handful.") if "__main__" not in name]


def test_examples_in_docstrings_run():
    tried = 0
    for name in MODULES:
        failed, count = doctest.testmod(importlib.import_module(name))
        assert not failed, f"{name}: see the output above"
        tried += count
    assert tried


def callable_by_users():
    """The public classes and functions that a user calls: neither errors nor what only subclasses fill in."""
    named = [(name, getattr(handful, name)) for name in handful.__all__]
    return [
        name
        for name, thing in named
        if (inspect.isclass(thing) and not inspect.isabstract(thing) and not issubclass(thing, Exception))
        or inspect.isfunction(thing)
    ]


@pytest.mark.parametrize("name", callable_by_users())
def test_a_public_class_or_function_has_an_example(name):
    assert ">>>" in getattr(handful, name).__doc__


# The skeletons under the real contract


@pytest.fixture
def skeleton_learner(registries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(ROOT / "docs" / "how-to" / "add-a-learner.md")
    return LEARNERS["soft-neighbors"]


def test_the_skeleton_of_a_learner_keeps_the_contract(skeleton_learner, tmp_path):
    assert all(can(skeleton_learner, problem.spec) for problem in PROBLEMS)
    check = learner_contract
    for problem in PROBLEMS:
        check.check_purity(problem.learner(skeleton_learner), problem)
        check.check_predictions_agree(problem.learner(skeleton_learner), problem)
        check.check_state(problem.learner(skeleton_learner), problem, tmp_path)
    for problem in (ROWS, SHARED, VALUES):
        check.check_meta_gradient(problem.learner(skeleton_learner), problem)
        check.check_meta_gradients_agree(problem.learner(skeleton_learner).train(), problem)
        check.check_use_of_support(problem.learner(skeleton_learner), problem)
        check.check_pointwise(problem.learner(skeleton_learner), problem)
    for problem in (IMAGES, ROWS, SHARED):
        check.check_any_way(problem.learner(skeleton_learner), problem)
        check.check_absent_class(problem.learner(skeleton_learner), problem)
    check.check_threads(ROWS.learner(skeleton_learner), ROWS)
    check.test_wrong_requests_are_answered_by_what_would_be_right(skeleton_learner)
    check.test_a_learner_is_built_again_from_its_recipe(skeleton_learner, ROWS)
    check.test_every_learner_says_what_it_is(skeleton_learner, ROWS)


def test_the_skeleton_of_a_learner_does_not_share_storage_with_the_raw_inputs(skeleton_learner):
    task = ROWS.task()
    learner = skeleton_learner.build(ROWS.spec, backbone="raw").double()
    state = learner.adapt(task.support, ROWS.spec)
    assert state["features"].untyped_storage().data_ptr() != task.support.inputs.untyped_storage().data_ptr()


@pytest.fixture
def skeleton_source(registries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(ROOT / "docs" / "how-to" / "add-a-task-source.md")
    return TASKS["chords"]


def test_the_skeleton_of_a_source_keeps_the_contract(skeleton_source, tmp_path):
    check, source = source_contract, skeleton_source()
    for on in SPLITS:
        check.check_order(source.split(on))
        check.check_disjoint(source.split(on))
        check.test_tasks_are_as_the_spec_says(source, on)
    check.check_batch(source)
    check.check_classes(source)
    check.check_class_numbers(source)
    check.check_splits(source)
    check.check_global_generators(source)
    check.test_a_task_is_the_same_from_other_threads(source)
    check.test_seeds_splits_and_indices_give_different_tasks("chords", tmp_path)
    check.test_sizes_are_as_asked(source)
    check.test_ranges_of_sizes_are_drawn_once_for_each_block(source)
    check.test_a_source_says_what_it_is(source)
    with pytest.raises(handful.UserError, match="chords"):
        source.split("val").with_sizes(way=60)


@pytest.mark.parametrize(
    ("page", "registry", "module", "key"),
    [
        ("add-a-learner", LEARNERS, "soft_neighbors", "soft-neighbors"),
        ("add-a-task-source", TASKS, "chords", "chords"),
    ],
)
@pytest.mark.usefixtures("registries")
def test_the_entry_points_in_the_docs_are_found(page, registry, module, key, tmp_path, monkeypatch):
    text = TEXTS[ROOT / "docs" / "how-to" / f"{page}.md"]
    (block,) = blocks(text, "toml")
    ((group, entries),) = tomllib.loads(block)["project"]["entry-points"].items()
    package, metadata = tmp_path / "my_package", tmp_path / "my_package-1.dist-info"
    package.mkdir()
    metadata.mkdir()
    (package / f"{module}.py").write_text(blocks(text, "python")[0], encoding="utf-8")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_discovered", False)
    assert registry[key].__module__ == f"my_package.{module}"


# Commands


def command_lines(text):
    """The `handful ...` lines of shell blocks as lists of words, continued lines joined."""
    lines = "\n".join(blocks(text, "sh", "bash", "shell", "console")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [line for line in words if line[:1] == ["handful"]]


def named(line):
    """The name of the command in a line, and its arguments."""
    words = 2 if line[1] in GROUPS and len(line) > 2 and not line[2].startswith("-") else 1
    return " ".join(line[1 : 1 + words]), line[1 + words :]


def complaint(line):
    """What is wrong with a command line, or nothing; it is parsed and not run."""
    name, arguments = named(line)
    if name in GROUPS and arguments == ["--help"]:
        return ""
    if name.startswith("-"):
        return "" if name in ("--help", "-h", "--version") else f"no option {name}"
    if name not in COMMANDS:
        return f"no command {name}"
    if "..." in arguments or "--help" in arguments:
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts} | {"--help", "-h"}
        unknown = [word for word in arguments if word.startswith("-") and word.partition("=")[0] not in known]
        return f"no option {', '.join(unknown)}" if unknown else ""
    try:
        COMMANDS[name].make_context(name, arguments)
    except Exception as error:  # whatever the parser raises
        return f"{getattr(error, 'param', '')} {error}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_commands_in_the_docs_exist_with_their_options(page):
    wrong = {" ".join(line): found for line in command_lines(TEXTS[page]) if (found := complaint(line))}
    assert not wrong


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("handful fly", "no command fly"),
        ("handful tasks fly", "no command tasks fly"),
        ("handful tasks rollback a one", "version"),
        ("handful tasks rollback a 1", ""),
        ("handful tasks --help", ""),
        ("handful train --tasks x -o y --wings 2", "--wings"),
        ("handful train --tasks x", "output"),
        ("handful train ... --wings", "--wings"),
        ("handful train --tasks x -o y --steps many", "steps"),
        ("handful predict only-one", "inputs"),
        ("handful list maml", ""),
        ("handful train ... -o RUN --resume", ""),
    ],
)
def test_a_command_that_does_not_exist_is_seen(line, said):
    found = complaint(shlex.split(line))
    assert said in found if said else not found


def test_there_are_commands_in_the_docs():
    assert {named(line)[0] for text in TEXTS.values() for line in command_lines(text)} >= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_options_in_the_text_exist(page):
    known = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"`(--[a-z-]+)", FENCE.sub("", TEXTS[page]))) <= {*known, "--help", "--version"}


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_make_targets_in_the_docs_exist(page):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"^make ([\w-]+)", "\n".join(blocks(TEXTS[page], "sh", "bash")), re.MULTILINE)
    assert set(named) <= set(targets)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_example_in_a_command_s_help_exists(name):
    example = COMMANDS[name].epilog.removeprefix("Example: ")
    assert not complaint(shlex.split(example))


# Links


LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken(page, text):
    """The links of a page that lead nowhere."""
    wrong = []
    for target in LINK.findall(FENCE.sub("", text)):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if re.match(r"[a-z]+:", target) or (file.exists() and not anchor):
            continue
        there = text if file == page else file.read_text(encoding="utf-8") if file.exists() else ""
        if anchor not in anchors(there):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_links_resolve(page):
    assert not broken(page, TEXTS[page])


def test_a_broken_link_is_seen():
    text = "# A title\n[a](no-such.md) [b](#a-title) [c](#no-such) [d](https://example.org) [e](SECURITY.md#no-such)"
    assert broken(ROOT / "README.md", text) == ["no-such.md", "#no-such", "SECURITY.md#no-such"]


# Everything is mentioned


def test_the_version_is_the_same_everywhere():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert handful.__version__ == package == citation[1]


@pytest.mark.parametrize("name", [*LEARNERS, *TASKS, *BACKBONES, *METRICS])
def test_what_is_registered_is_documented(name):
    assert f"`{name}`" in EVERYTHING


@pytest.mark.parametrize("name", [name for name in handful.__all__ if not name.startswith("_")])
def test_a_public_name_exists_and_is_documented(name):
    assert getattr(handful, name) is not None
    assert name in names_in_code(EVERYTHING)


@pytest.mark.parametrize("path", sorted((ROOT / "src" / "handful").iterdir()), ids=lambda path: path.name)
def test_a_module_has_its_place_on_the_page_of_the_architecture(path):
    if not path.name.startswith("__init__") and (path.suffix == ".py" or (path / "__init__.py").exists()):
        assert f"`{path.stem}`" in TEXTS[ROOT / "docs" / "explanation" / "architecture.md"]


def test_the_page_of_the_learners_has_each_of_them_in_its_own_words():
    page = TEXTS[ROOT / "docs" / "explanation" / "learners.md"]
    for row in catalog()["Learners"]:
        assert f"| `{row['name']}` | {row['does']} | {row['summary']} |" in page


def test_the_page_of_the_learners_names_those_whose_tasks_hold_their_examples():
    holding = [key for key, learner in LEARNERS.items() if learner.state_holds_examples]
    listed = ", ".join(f"`{key}`" for key in holding[:-1]) + f" and `{holding[-1]}`"
    assert f"The states of {listed} have" in " ".join(TEXTS[ROOT / "docs" / "explanation" / "learners.md"].split())


def test_the_page_of_the_learners_names_those_that_predict_a_deviation():
    able = [key for key, learner in LEARNERS.items() if learner.predicts_deviation]
    listed = ", ".join(f"`{key}`" for key in able[:-1]) + f" and `{able[-1]}`"
    assert f"{listed} predict a deviation" in " ".join(TEXTS[ROOT / "docs" / "explanation" / "learners.md"].split())


def test_the_ladder_is_documented_rung_by_rung_in_its_own_words():
    page = TEXTS[ROOT / "docs" / "explanation" / "evaluation.md"]
    for key, learner in LEARNERS.items():
        if learner.baseline:
            assert f"| `{key}` | {learner.summary()} |" in page


def test_the_report_in_the_docs_has_the_fields_of_the_schema():
    page = TEXTS[ROOT / "docs" / "reference" / "report.md"]
    (example,) = (block for block in blocks(page, "json") if '"schema"' in block)
    report = json.loads(example)
    assert set(report) == {"schema", "verdict", "settings", "selection", "seed", "plan", "performance"}
    (setting,) = report["settings"]
    assert set(setting) == {"way", "shot", "query_shot", "over_alone", "over_ways", "transductive", "rows"}
    (row,) = setting["rows"]
    assert set(row) == {"learner", "baseline", "uses_other_tasks", "score", "cost", "paired"}
    assert set(row["score"]) == {"metric", "mean", "low", "high", "tasks", "diverged", "undefined", "root"}
    assert set(row["cost"]) == {"adapt_seconds", "state_bytes"}
    assert set(row["paired"]) == {"against", "mean", "low", "high", "tasks", "diverged", "undefined"}
