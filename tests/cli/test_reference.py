"""The pages of the docs that are made from the code of the command line."""

from pathlib import Path

import pytest

from handful.cli.reference import pages

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", ["cli.md", "configuration.md"])
def test_the_kept_pages_are_those_of_the_code(name):
    assert (REFERENCE / name).read_text(encoding="utf-8") == pages()[name], "run `make reference`"
