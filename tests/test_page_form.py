"""The form of every page: what it is for stands first, headings nest, and code fits into a window."""

import re
from itertools import pairwise

import pytest

from test_docs import FENCE, PAGES, ROOT, TEXTS, of_page

WIDTH = 88
"""Characters of a line of code that the site shows without a break, see docs/assets/site.css."""
CODE = ("sh", "shell", "python", "py", "text")
GENERATED = ("docs/reference/api.md", "docs/reference/cli.md")
"""What they show comes from the code."""


def faults(text):
    """What is wrong with the form of a page."""
    title, _, rest = text.partition("\n")
    prose = [block.strip("\n") for block in FENCE.sub("", rest).split("\n\n")]
    levels = [len(marks) for marks in re.findall(r"^(#+) ", FENCE.sub("", text), re.MULTILINE)]
    found = []
    if not title.startswith("# ") or not re.match(r"[A-Z`*\[]", rest.lstrip()) or rest.lstrip().startswith("```"):
        found.append("begins with a title and a sentence that says what the page is for")
    if levels.count(1) != 1 or any(deeper > level + 1 for level, deeper in pairwise(levels)):
        found.append("headings nest, with one title")
    found += [
        f"begins in the middle of a sentence: {block[:40]}" for block in prose if re.match(r"(?!handful )[a-z]", block)
    ]
    return found


def wide(text):
    """The lines of code that a reader would see broken."""
    code = [match["body"] for match in FENCE.finditer(text) if match["info"].strip() in CODE]
    return [line for body in code for line in body.splitlines() if len(line) > WIDTH]


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_a_page_says_what_it_is_for(page):
    assert not faults(TEXTS[page])


@pytest.mark.parametrize("page", [page for page in PAGES if of_page(page) not in GENERATED], ids=of_page)
def test_code_fits_into_a_window(page):
    assert not wide(TEXTS[page])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# A\n\n```sh\nls\n```\n", "a sentence"),
        ("# A\n\n## B\n", "a sentence"),
        ("# A\n\nOne.\n\n### C\n", "nest"),
        ("# A\n\nOne.\n\n# B\n", "nest"),
        ("# A\n\nOne.\n\n```sh\nls\n```\n\nlists files.\n", "lists files"),
    ],
)
def test_a_fault_is_seen(text, said):
    (fault,) = faults(text)
    assert said in fault


def test_a_wide_line_is_seen():
    assert wide(f"```sh\n{'x' * (WIDTH + 1)}\n```\n")
    assert ROOT / "README.md" in PAGES
