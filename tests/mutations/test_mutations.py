"""Each mended defect, put back into a copy of the source, is found by the tests that are named beside it."""

import compileall
import gc
import multiprocessing
import os
import re
import shutil
import sys
import tomllib
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PARTS = ("pyproject.toml", "src", "tests", "benchmarks")
"""What the tests take of the repository."""
LARGE = shutil.ignore_patterns("models", "results")
"""What they do not take of its benchmarks, by folder."""
OUTPUT = "output.txt"
"""What pytest says in a copy."""
SECONDS = 300
"""After which tests that do not end are stopped."""
NO_PROOF = ("NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError", "SyntaxError")
"""Errors by which a test fails whatever it tests."""

PRELOADED = [
    "pytest",
    "torch._dynamo",
    "scipy.stats",
    "sklearn.utils.validation",
    "pyarrow.csv",
    "matplotlib.pyplot",
    "typer",
]
"""Imported once for all copies; handful is not among them."""


@dataclass(frozen=True)
class Mutation:
    """A defect that was mended, as the edit of one file that brings it back.

    place: where it is written down. file: from the root of the repository. old, new: whole lines; the file has the old
    ones once. fails: the ids of the tests that have to fail.
    """

    place: str
    defect: str
    file: str
    old: str
    new: str
    fails: list[str]

    def applied(self, root: Path) -> str:
        """The text of the file with the defect."""
        text = (root / self.file).read_text(encoding="utf-8")
        found = f"\n{text}".count(f"\n{self.old}")
        assert found == 1, (
            f"{self.place} no longer applies: its old lines are {found} times in {self.file}. Write there how the "
            f"defect comes back into the present code ({self.defect}); see tests/mutations/README.md."
        )
        return f"\n{text}".replace(f"\n{self.old}", f"\n{self.new}")[1:]


def mutations(folder: Path) -> dict[str, Mutation]:
    """All that are written down in the files of a folder, by name."""
    found: dict[str, Mutation] = {}
    for path in sorted(folder.glob("*.toml")):
        for name, facts in tomllib.loads(path.read_text(encoding="utf-8")).items():
            assert name not in found, f"{path.name} has a second mutation {name!r}"
            found[name] = Mutation(f"{path.name}, [{name}],", **facts)
    return found


MUTATIONS = mutations(HERE)
each = pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)


@each
def test_a_mutation_applies_and_names_tests(mutation):
    """Quick, so that whoever moves the code hears of it at once."""
    text = mutation.applied(ROOT)
    assert text != (ROOT / mutation.file).read_text(encoding="utf-8"), f"{mutation.place} changes nothing"
    compile(text, mutation.file, "exec")
    assert mutation.fails
    for test in mutation.fails:
        file, function = re.split(r"::|\[", test)[:2]
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), f"{mutation.place} names {test}"


@pytest.mark.parametrize("old", ["b = 1\n", "a = 1\n", "= 2\n"])
def test_an_edit_that_no_longer_applies_is_told(old, tmp_path):
    """Where it is gone, is there twice, or begins within a line."""
    (tmp_path / "code.py").write_text("a = 1\nc = 2\na = 1\n")
    mutation = Mutation("some.toml, [one],", "a is another", "code.py", old, "a = 3\n", ["a test"])
    with pytest.raises(AssertionError, match=r"some\.toml, \[one\], no longer applies.* [02] times in code\.py"):
        mutation.applied(tmp_path)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A compiled copy of the source, to be copied again: so each process compiles only what was changed."""
    root = tmp_path_factory.mktemp("source")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, root / part, ignore=LARGE if part == "benchmarks" else None)
        else:
            shutil.copy2(ROOT / part, root / part)
    compileall.compile_dir(root / "src", quiet=2)
    return root


@pytest.fixture(scope="module")
def processes():
    """Where processes are forked from one that has imported most of what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@pytest.mark.slow
@each
def test_a_mutation_makes_its_tests_fail(mutation, source, processes, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(source, root)
    (root / mutation.file).write_text(mutation.applied(root), encoding="utf-8")
    found = outcomes(processes, root, mutation.fails)
    for test in mutation.fails:
        outcome = found.get(test) or f"was not found ({(root / OUTPUT).read_text()[-1000:]})"
        assert outcome.startswith("failed"), f"{test} {outcome} under {mutation.place}: {mutation.defect}"
        assert not outcome.removeprefix("failed: ").startswith(NO_PROOF), f"{mutation.place} {test} {outcome}"


@pytest.mark.slow
def test_a_test_that_fails_is_told_from_others(processes, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "@pytest.fixture\ndef broken(): assert False\n"
        "def test_right(): pass\n"
        "def test_wrong(): assert 1 == 2\n"
        "def test_skipped(): pytest.skip()\n"
        "def test_error(broken): pass\n"
    )
    names = ("right", "wrong", "skipped", "error")
    found = outcomes(processes, tmp_path, [f"test_some.py::test_{name}" for name in names])
    ends = [found[f"test_some.py::test_{name}"].partition(":")[0] for name in names]
    assert ends == ["passed", "failed", "skipped", "has an error"]
    assert outcomes(processes, tmp_path, ["test_some.py::test_none"]) == {}


def outcomes(processes: BaseContext, root: Path, tests: list[str]) -> dict[str, str]:
    """How tests end in a copy of the repository: "passed", "skipped", "failed: error" or "has an error: error"."""
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=run, args=(root, tests, sender))
    process.start()
    sender.close()
    try:
        assert receiver.poll(SECONDS), f"{tests} took more than {SECONDS} seconds"
        found, package = receiver.recv()
    except EOFError:
        pytest.fail(f"The process of {tests} ended by itself: {(root / OUTPUT).read_text()[-1000:]}")
    finally:
        process.kill()
        process.join()
    assert package is None or Path(package).is_relative_to(root), f"{package} was tested, and not the copy"
    return found


def run(root: Path, tests: list[str], sender: Connection) -> None:
    """In a process of its own: run tests of a copy of the repository, and send how they end."""
    with (root / OUTPUT).open("w") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    gc.freeze()  # else each collection, of which pytest makes some, goes through all that was imported before
    os.chdir(root)
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]
    os.environ["PYTHONPATH"] = str(root / "src")  # for processes that tests start
    sys.path.insert(0, str(root / "src"))
    results = Results()
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={root / 'tmp'}"]
    pytest.main(["-q", *options, *tests], plugins=[results])
    sender.send((results.found, getattr(sys.modules.get("handful"), "__file__", None)))


class Results:
    """A plugin of pytest that keeps how each test ended."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            crash = getattr(report.longrepr, "reprcrash", None)
            words = "failed" if report.failed and report.when == "call" else "has an error" if report.failed else ""
            if not self.found.get(report.nodeid, "").startswith("failed"):
                self.found[report.nodeid] = f"{words}: {crash.message if crash else ''}" if words else report.outcome
