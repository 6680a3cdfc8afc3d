"""Every command that README, docs and benchmarks/README.md name runs, read from the pages, here on small data.

Tutorials run from top to bottom in tests/test_tutorials.py; the examples of help in reference/cli.md are parsed in
tests/test_docs.py, and other pages run them. What is left out: `pip install` and the targets of `make`
that install and test, of which the names are checked. The peers of `make bench` are not installed beside the tests: the
benchmark says so, and measures what needs none of them.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import documented_world
from handful.cli.main import app
from handful.encoders import cache
from handful.evaluation import costly, ladder
from handful.http.app import make_app
from handful.serving.service import Service
from handful.workflows import evaluate, quickstart
from listening import listening

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(
        page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "tutorials" and page.name != "cli.md"
    ),
    ROOT / "benchmarks/README.md",
]
FENCE = re.compile(r"^```(\w+).*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAMS = ("handful", "make", "pip", "python", "torchrun")
CHECKED = ("setup", "check", "test", "test-slow", "test-all", "serve", "reference", "docs")
"""Targets of `make` that install, or run these tests; or that other tests look at: tests/test_serving_page.py,
tests/http/test_pages.py."""
ENDLESS = ("serve",)
"""Commands that run until they are stopped, see tests/cli/test_serve.py."""
REMOTE = ("tasks", "keys", "store")
"""Commands on a server and on its store."""


def commands() -> list[list[str]]:
    """The words of each command: of lines in blocks, and of whole ones within sentences, each once."""
    found = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [
            line
            for language, body in FENCE.findall(text)
            if language in ("sh", "bash", "console")
            for line in body.replace("\\\n", " ").splitlines()
        ]
        spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
        for line in [*lines, *(span for span in spans if not span.startswith("handful") and "..." not in span)]:
            words = shlex.split(line.removeprefix("OMP_NUM_THREADS=1 "), comments=True)
            if words and Path(words[0]).name in PROGRAMS and len(words) > 1:
                found[line] = [Path(words[0]).name, *words[1:]]
    return list(found.values())


COMMANDS = commands()
MODULES = [words[2:] for words in COMMANDS if words[:2] == ["python", "-m"] and words[2].startswith("benchmarks")]


def test_no_command_is_run_by_nobody():
    """Of another program, or another way to call it: add it to the tests below."""
    known = ("handful", "torchrun", "make", "pip")
    modules = (["-m", "pytest"], ["-m", "handful"], ["-m", "tests.messages"])  # the last one by tests of words
    others = [words for words in COMMANDS if words[0] not in known and words[1:3] not in modules]
    assert [words[2:] for words in others] == MODULES
    assert {line[0] for line in MODULES} == set(BENCHMARKS)
    assert {words[1] for words in COMMANDS if words[0] == "handful"} >= {"train", "evaluate", "adapt", "predict"}


def test_what_only_installs_or_tests_is_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in COMMANDS:
        if words[0] == "pip":
            assert words[-1] == "." or words[-1][2:-1] in extras, words
        if words[0] == "make":
            assert words[1] in targets, words
            assert words[1] in (*CHECKED, "quickstart", "proofs", "bench", "bench-service"), "a target that nobody runs"
        if words[1:3] == ["-m", "pytest"]:
            assert (ROOT / words[3]).exists(), words


# The command line

ORDER = ("quickstart", "train", "bench", "evaluate", "compare", "doctor", "adapt predict", "list")
"""Kinds of commands; those of a kind run in the order of the pages."""


def smaller(words: list[str]) -> list[str]:
    """A command with sizes that take seconds: of options given twice, the last one counts."""
    name, more = words[0], []
    if name == "train" and "--learner" not in words:
        encoder = ["--encoder", "encoder"] if "--text" in words else []
        encoder = ["--encoder", "image-encoder"] if "--encoder" in words else encoder
        return [*words, *encoder, "--minutes", "0.02", "--force"]
    if name == "train":
        more = ["--minutes", "0.01"] if "--minutes" in words else ["--steps", "2"]
        more += ["--set", "training.validation_tasks=2", "--meta-batch-size", "2", "--force"]
        more += ["--pretrain", "64"] if "--pretrain" in words else []
        more += ["--tune", "1"] if "--tune" in words else []
        if "--text" in words or "--encoder" in words:
            more += ["--encoder", "encoder" if "--text" in words else "image-encoder"]
    if (
        name in ("train", "bench")
        and "--encoder" not in words
        and re.match("photos/|glyphs|omniglot:", words[words.index("--tasks") + 1])
    ):
        more += ["--set", "backbone.widths=[4,4,4,4]"]
    if name == "bench":
        more += ["--seconds", "0.1", "--meta-batch-size", "2"]
    if name == "evaluate":
        more = ["--test-tasks", "2", "--minutes", "0"]
    return [*words, *more]


def small_sizes(monkeypatch) -> None:
    """What has no option is small too."""
    for module in (ladder, costly, evaluate, quickstart):
        for name in (
            "CHOOSING_TASKS",
            "CURVE_TASKS",
            "DIAGNOSIS_TASKS",
            "TASKS",
        ):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, 2)
    monkeypatch.setattr("handful.workflows.evaluate.CURVE_SHOTS", (1,))
    letters = replace(quickstart.EXPERIMENT, backbone_options={"widths": [4, 4, 4, 4]}, settings={"minutes": 0.02})
    monkeypatch.setattr(quickstart, "EXPERIMENT", letters)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The present folder, which has what the commands name."""
    documented_world.for_commands(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "cache"))
    small_sizes(monkeypatch)
    return tmp_path


def prepare(kind: str) -> None:
    """Runs that the pages name beside those that they train."""
    if kind == "compare":
        for learner in ("protonet", "maml", "r2d2"):
            train = ["train", "--tasks", "photos/", "--learner", learner, "-o", f"runs/{learner}"]
            for words in (train, ["evaluate", f"runs/{learner}", "--way", "5", "--way", "20", "--shot", "1"]):
                done = CliRunner().invoke(app, smaller(words))
                assert not done.exit_code, done.stderr
    if kind == "adapt predict":
        shutil.copytree("runs/photos", "moved/runs/photos")


@pytest.mark.slow
def test_the_commands_of_the_pages_run(small):
    lines = [
        words[1:]
        for words in COMMANDS
        if words[0] == "handful" and not {"--resume", "...", *ENDLESS} & set(words) and words[1] not in REMOTE
    ]
    assert {words[0] for words in lines} <= set(" ".join(ORDER).split())
    failed = {}
    for kind in ORDER:
        prepare(kind)
        for words in lines:
            if words[0] in kind.split():
                result = CliRunner().invoke(app, smaller(words))
                findings = kind == "doctor" and result.exit_code == 1 and "Error:" not in result.stderr
                if result.exit_code and not findings:
                    failed[" ".join(words)] = result.stderr[-600:] + str(result.exception)
    assert not failed, "\n\n".join(f"{line}\n{said}" for line, said in failed.items())


def first_example(service: Service, name: str) -> str:
    """The id of an example of the task of this name, which readers take from what `tasks show` lists."""
    (task,) = (task for task in service.tasks() if task.name == name)
    return service.examples(task.id)[0].id


@pytest.mark.slow
def test_the_commands_on_a_server_run(small, monkeypatch):
    lines = [words[1:] for words in COMMANDS if words[0] == "handful" and words[1] in REMOTE and "..." not in words]
    of_tables = ["train", "--tasks", "tables/", "--target", "last", "--learner", "r2d2", "--shot", "20"]
    for train in (["train", "--tasks", "photos/", "-o", "runs/photos"], [*of_tables, "-o", "runs/tables"]):
        done = CliRunner().invoke(app, smaller(train))
        assert not done.exit_code, done.stderr
    failed = {}
    for run, store in (("runs/photos", "store"), ("runs/tables", "other-store")):
        with Service(run, store) as service, listening(make_app(service)) as url:
            monkeypatch.setenv("HANDFUL_URL", url)
            monkeypatch.setenv("HANDFUL_KEY", service.keys.first_admin(None).token)
            for words in lines:
                if ("new.csv" in words) == (run == "runs/tables"):
                    line = [first_example(service, words[2]) if word == "EXAMPLE" else word for word in words]
                    result = CliRunner().invoke(app, line)
                    if result.exit_code:
                        failed[" ".join(words)] = result.stderr[-600:] + str(result.exception)
    assert not failed, "\n\n".join(f"{line}\n{said}" for line, said in failed.items())


@pytest.mark.slow
def test_the_commands_of_a_launcher_run(small):
    lines = [words[1:] for words in COMMANDS if words[0] == "torchrun"]
    assert lines
    for words in lines:
        place = words.index("train")
        command = [sys.executable, "-m", "torch.distributed.run", *words[:place], *smaller(words[place:])]
        done = subprocess.run(command, capture_output=True, text=True)
        assert not done.returncode, done.stderr


# The benchmarks

BENCHMARKS = {
    "benchmarks.omniglot": ["--tasks", "2"],
    "benchmarks.classifiers": ["--minutes", "1e-9", "--seeds", "1", "--learners", "protonet"],
    "benchmarks.regression": ["--tasks", "2"],
    "benchmarks.encoders": ["--only", "banking77", "emoji", "--folds", "1", "--encoder", "encoder"],
    "benchmarks.auto": [
        *("--only", "emoji_32", "banking77", "bayesm_cheese", "--encoder", "encoder"),
        *("--ways", "auto", "transfer", "cnp on boosted"),
    ],
    "benchmarks.equivalence": ["--tasks", "5", "--only", "omniglot", "banking77", "--encoder", "encoder"],
    "benchmarks.learned_optimizer": ["--minutes", "0"],
    "benchmarks.small_tasks": ["--steps", "60", "--seeds", "2", "--tables", "weekly_sales", "--learners", "r2d2"],
    "benchmarks.memorization": ["--steps", "2", "--seeds", "2", "--tasks", "2"],
    "benchmarks.devices": ["--device", "cpu"],
    "benchmarks.engine": [],
    "benchmarks.engine.picture": [
        *("--results", str(ROOT / "benchmarks" / "results" / "engine.json"), "--output", "growth.png"),
    ],
    "benchmarks.task_bank": [],
    "benchmarks.service": [],
    "benchmarks": [],
}
"""Their options for tiny sizes, beside those of `benchmarks.tiny`, and in which order they run."""
GROUPS = {"": ["W5", "many", "workers"], "--quick": ["W4"]}
"""What is measured by `make bench` with these options: by all that the page names together, almost all of it once."""

RUNNER = """
import json, os, runpy, sys, traceback
from handful.evaluation import costly, ladder

if __name__ == "__main__":
    ladder.CHOOSING_TASKS = costly.CHOOSING_TASKS = 1
    failed = {}
    for module, *arguments in json.load(sys.stdin):
        sys.argv = [module, *arguments]
        print("=====", *sys.argv, flush=True)
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                failed[" ".join(sys.argv)] = str(end.code)
        except Exception:
            failed[" ".join(sys.argv)] = traceback.format_exc()
    print(*(f"{line}\\n{said}" for line, said in failed.items()), sep="\\n\\n", file=sys.stderr)
    os._exit(bool(failed))
"""


def run_tiny(lines: list[list[str]], folder: Path) -> str:
    """Run modules as programs, one after another in one process; returns what they print."""
    places = os.pathsep.join(map(str, (ROOT, ROOT / "src", ROOT / "tests")))
    environment = {
        "PYTHONPATH": places,
        "BENCHMARKS_TINY": "1",
        "OMP_NUM_THREADS": "1",
        cache.CACHE: str(folder / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUNNER],
        input=json.dumps(lines),
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_benchmarks_of_the_pages_run(tmp_path):
    documented_world.for_benchmarks(tmp_path)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    before = [(file, file.stat().st_mtime_ns) for file in (ROOT / "benchmarks").rglob("*.*")]
    named = {"FOLDER": str(tmp_path), "ROW": "flagship"}
    lines = sorted(
        ([named.get(word, word) for word in words] for words in MODULES),
        key=lambda line: list(BENCHMARKS).index(line[0]),
    )
    printed = run_tiny([line + ([] if "--help" in line else BENCHMARKS[line[0]]) for line in lines], tmp_path)
    for title in (
        "Omniglot",
        "Regression",
        "Pretrained encoders",
        "Tuned once",
        "Learned optimizer",
        "Small training tasks",
        "Memorization",
        "Auto: what was aimed at",
        "Auto beside others",
    ):
        assert title in printed
    page = (tmp_path / "benchmarks" / "results" / "evidence.md").read_text()
    assert page.count("\n## ") == 11, "each of them recorded something"
    assert before == [(file, file.stat().st_mtime_ns) for file, _ in before], "what is recorded stays"


@pytest.mark.slow
def test_the_benchmark_of_the_engine_runs_without_the_peers_and_says_so(tmp_path):
    lines = []
    for words in COMMANDS:
        if words[:2] == ["make", "bench"]:
            shown = subprocess.run(
                ["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout
            # Where the tests are run by `make`, this one also names the folder that it enters and leaves.
            line = shlex.split(next(line for line in shown.splitlines() if "benchmarks.engine" in line))
            line = line[line.index("benchmarks.engine") :]
            only = [] if "--only" in line else ["--only", *GROUPS[" ".join(line[1:])]]
            lines.append([*line, *only])
    assert len(lines) >= 3
    printed = run_tiny(lines, tmp_path)
    for peer in ("higher", "easyfsl"):
        assert re.search(rf"{peer}: not installed", printed), printed
    rows = json.loads((tmp_path / "benchmarks" / "results" / "engine.json").read_text())
    assert {row["group"] for row in rows["rows"]} == {"W1", "W4", "W5", "memory"}
    measured = {name for row in rows["rows"] for name, one in row["results"].items() if one["status"] == "measured"}
    assert measured == {"plain loop", "handful", "handful recompute"}
    assert rows["many"]
    assert all(row["same bytes"] for row in rows["workers"])
