"""The tutorials as a reader goes through them: all blocks of a page in order, in one folder, with short trainings."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import documented_world
from handful.cli.main import app
from handful.encoders import cache
from test_docs import FENCE
from test_documented_commands import small_sizes, smaller

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
PAGES = sorted(page for page in TUTORIALS.glob("*.md") if page.stem not in ("README", "service"))
"""The service has tests of its own: tests/test_serving_page.py."""
UNITS = {"ms", "s", "min", "B", "kB", "MB"}


def gist(line):
    """What a printed line always says: a row of a table its first cell, a sentence its words but for numbers."""
    first, *others = re.split(r" {2,}", line.strip())
    return first if others else " ".join(word for word in re.findall(r"[A-Za-z][\w.-]*", line) if word not in UNITS)


def missing(shown, printed):
    """The lines that a page shows and no command printed; `...` stands for lines that are left out."""
    said = {gist(line) for line in printed.splitlines()}
    return [line for line in shown.splitlines() if line.strip() != "..." and gist(line) not in said]


def run(block, names):
    """Run a block of Python or of commands; returns what it prints."""
    if block["info"] == "python":
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(block["body"], "tutorial", "exec"), names)
        return printed.getvalue()
    printed = ""
    for line in block["body"].replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line)
        if program == "handful":
            tuned = ["--tune-encoder", "on"] if "--text" in words else []  # as with the minutes of the page
            done = CliRunner().invoke(app, [*smaller(words), *tuned])
            assert not done.exit_code, f"{line}\n{done.stderr}{done.exception}"
            printed += done.stdout + done.stderr
        else:
            assert (program, words[0]) == ("pip", "install")
    return printed


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs_from_top_to_bottom_and_prints_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "cache"))
    small_sizes(monkeypatch)
    documented_world.encoder(tmp_path)
    names, printed, compared = {}, "", 0
    for block in FENCE.finditer(page.read_text(encoding="utf-8")):
        if block["info"] in ("python", "sh"):
            printed += run(block, names)
        elif printed:  # before it stand the reader's own files
            assert block["info"] == "text"
            assert not missing(block["body"], printed), printed
            compared += 1
    assert compared >= 2, "what training prints, and what predicting does"


def test_a_line_that_was_not_printed_is_seen():
    printed = " learner   accuracy \n dummy     20.0 ± 0 \nAdapted to 5 examples in 71 ms: a.task, 1 kB.\n1   529\n"
    assert not missing(" learner  accuracy\n ...\nAdapted to 9 examples in 1.2 s: a.task, 30 kB.\n1  7\n", printed)
    assert missing("Adapted to 5 rows in 71 ms: a.task, 1 kB.\n", printed)
    assert missing(" dumb    20.0 ± 0\n2  7\n", printed)
