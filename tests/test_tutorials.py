"""The tutorials as a reader goes through them: all blocks of a page in order, in one folder, with short trainings."""

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


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "cache"))
    small_sizes(monkeypatch)
    documented_world.encoder(tmp_path)
    names, predictions = {}, ""
    for block in FENCE.finditer(page.read_text(encoding="utf-8")):
        if block["info"] == "python":
            exec(compile(block["body"], page.name, "exec"), names)
        elif block["info"] == "sh":
            for line in block["body"].replace("\\\n", " ").splitlines():
                program, *words = shlex.split(line)
                if program != "handful":
                    assert (program, words[0]) == ("pip", "install")
                    continue
                done = CliRunner().invoke(app, smaller(words))
                assert not done.exit_code, f"{line}\n{done.stderr}{done.exception}"
                predictions = done.stdout if words[0] == "predict" else predictions
        else:
            assert block["info"] == "text"
    assert predictions.count("\n") > 3
