"""The layers of docs/explanation/architecture.md: a module imports only from layers below its own."""

import ast
from pathlib import Path

import pytest

import handful

ROOT = Path(handful.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

LAYERS: list[list[set[str]]] = [
    [{"types", "errors", "notes", "events", "streams", "registry", "storage", "limits", "own_code"}],
    [{"functional"}, {"cells", "dialect", "written_columns", "table", "raw_batch", "data_options"}],
    [{"metrics"}],
    [{"backbones"}, {"engine"}, {"encoders"}],
    [{"learners"}, {"readers"}, {"pipelines"}],
    [{"tasks"}],
    [{"evaluation"}],
    [{"training"}, {"models"}, {"doctor"}],
    [{"reports"}],
    [{"workflows"}],
    [{"estimators"}, {"serving"}],
    [{"domains"}],
    [{"http"}, {"client"}],
    [{"cli", "__main__"}],
]
"""From the ground up. The parts of a layer do not import one another; what stands in one part may."""

STRANGERS = {"tasks": {"learners"}, "domains": {"learners"}}
"""A domain never knows a learner, though it stands above."""

DOORS = {"__init__"}
"""The package's own module resolves the names of all layers, lazily."""

PLACES = {
    name: (height, part) for height, layer in enumerate(LAYERS) for part, names in enumerate(layer) for name in names
}

NO_NOUNS = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
UNPICKLERS = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
UNSAFE_CALLS = {"torch.load", "torch.save", "numpy.load", "np.load"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def home_of(path: Path) -> str:
    """The module or package of the table to which a file belongs."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST, package: str = "handful") -> set[str]:
    """All modules that some code imports, early or late, by their full names."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return found


def violations(home: str, imported: set[str]) -> list[str]:
    """What a module of `home` imports that it may not."""
    if home in DOORS:
        return []
    height, part = PLACES[home]
    wrong = []
    for name in imported:
        if name == "handful" or not name.startswith("handful."):
            continue
        other = name.split(".")[1]
        if other == "__version__":
            continue
        if other not in PLACES:
            wrong.append(f"{name}: import from the module where it is defined")
            continue
        level, side = PLACES[other]
        if level > height or (level == height and side != part) or other in STRANGERS.get(home, ()):
            wrong.append(name)
    return wrong


def test_every_module_has_its_place():
    homes = {home_of(path) for path in MODULES} - DOORS
    assert homes <= set(PLACES), f"not in the table of layers: {homes - set(PLACES)}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path):
    assert not violations(home_of(path), imports(ast.parse(path.read_text())))


@pytest.mark.parametrize(
    ("home", "code"),
    [
        ("types", "from handful.engine import inner_loop"),
        ("learners", "from handful.tasks.distribution import Sizes"),
        ("tasks", "def late():\n    from handful.learners.maml import MAML"),
        ("engine", "import handful.encoders"),
        ("engine", "import importlib\nimportlib.import_module('handful.cli.main')"),
        ("evaluation", "if TYPE_CHECKING:\n    from handful.training import loop"),
        ("learners", "from handful import TaskDistribution"),
        ("serving", "from handful.cli import tables"),
    ],
)
def test_an_import_that_points_up_or_aside_is_seen(home, code):
    assert violations(home, imports(ast.parse(code)))


def test_imports_that_point_down_or_stay_are_not():
    code = "from handful.types import Task\nfrom handful.learners.learner import Learner\nimport torch"
    assert not violations("learners", imports(ast.parse(code)))
    assert not violations(
        "cli", imports(ast.parse("from handful import __version__\nfrom handful.workflows.x import y"))
    )


@pytest.mark.parametrize("path", [p for p in MODULES if home_of(p) == "evaluation"], ids=name_of)
def test_evaluation_knows_the_contracts_and_no_concrete_learner_or_task(path):
    known = {"handful.learners.learner", "handful.tasks.distribution"}
    of_contracts = {
        name.rpartition(".")[0]
        for name in imports(ast.parse(path.read_text()))
        if name.startswith(("handful.learners", "handful.tasks"))
    }
    assert of_contracts <= known


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_named_by_a_noun_of_the_field_and_says_what_it_is(path):
    assert path.stem not in NO_NOUNS
    assert path.parent.name not in NO_NOUNS
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, "no docstring"
    assert docstring.splitlines()[0].endswith((".", ":")), "the first line is a sentence"


WALL_CLOCK = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "datetime.utcnow"}
"""It jumps: durations are of `time.monotonic` or `time.perf_counter`."""


def forbidden(tree: ast.AST) -> list[str]:
    """Prints, unpickling, and looks at a clock that jumps."""
    wrong = [name for name in imports(tree) if name.split(".")[0] in UNPICKLERS]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in WALL_CLOCK | {"print"} or (called in UNSAFE_CALLS and not _refuses_pickles(node)):
                wrong.append(f"line {node.lineno}: {called}")
    return wrong


def _refuses_pickles(call: ast.Call) -> bool:
    """NumPy's loader does not unpickle when told so; torch's is never told so."""
    told = {keyword.arg: keyword.value for keyword in call.keywords}
    value = told.get("allow_pickle")
    return ast.unparse(call.func) != "torch.load" and isinstance(value, ast.Constant) and value.value is False


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_printed_or_unpickled_and_no_clock_jumps(path):
    assert not forbidden(ast.parse(path.read_text()))


@pytest.mark.parametrize(
    "code",
    [
        "print('x')",
        "import pickle",
        "from joblib import load",
        "torch.load('x', weights_only=True)",
        "np.load('x')",
        "def late():\n    import dill",
        "seconds = time.time() - start",
    ],
)
def test_printing_unpickling_and_clocks_are_seen(code):
    assert forbidden(ast.parse(code))


def test_there_is_no_import_cycle():
    graph = {}
    for path in MODULES:
        name = "handful." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        graph[name.removesuffix(".__init__")] = imports(ast.parse(path.read_text()))
    edges = {
        name: {module for i in imported for module in (i, i.rpartition(".")[0]) if module in graph and module != name}
        for name, imported in graph.items()
        if name != "handful"
    }
    done: set[str] = set()

    def walk(name, trail):
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in edges.get(name, ()):
                if other != "handful":
                    walk(other, (*trail, name))
            done.add(name)

    for name in edges:
        walk(name, ())


def test_the_package_s_names_are_where_it_looks_for_them():
    for name, home in handful._HOMES.items():
        path = ROOT.joinpath(*home.split("."))
        if path.with_suffix(".py").exists() or path.is_dir():
            assert getattr(handful, name) is not None
