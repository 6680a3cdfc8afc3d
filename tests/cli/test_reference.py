"""The pages of the docs that are made from the code of the command line, and from docstrings."""

import re
from pathlib import Path

import pytest

import handful
from handful.cli.public_reference import python_markdown
from handful.cli.reference import pages

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", ["cli.md", "configuration.md"])
def test_the_kept_pages_are_those_of_the_code(name):
    assert (REFERENCE / name).read_text(encoding="utf-8") == pages()[name], "run `make reference`"


def test_the_page_on_python_has_every_public_name_with_arguments_and_examples():
    page = python_markdown()
    sections = re.findall(r"^## (\w+)\n", page, re.MULTILINE)
    assert sections == [name for name in handful.__all__ if not name.startswith("_")]
    evaluate = page.partition("## evaluate\n")[2].partition("\n## ")[0]
    assert "evaluate(\n    learner,\n    distribution," in evaluate
    assert "- `tasks`: the number of tasks" in evaluate
    assert "```pycon\n>>> import handful" in evaluate
    assert "### MetaModel.adapt\n" in page
    assert " at 0x" not in page, "no addresses of a process"


def test_a_row_of_the_configuration_is_on_its_setting_alone():
    page = pages()["configuration.md"]
    assert page.count("\n| `patience` | `0` | validations without improvement") == 1
    assert not re.search(r"Raises|Example|`find_", page)
