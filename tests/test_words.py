"""Messages and docstrings are in the field's words: each word that is refused here has a plain one in its place."""

import re

import pytest
from tests.messages import ROOT, Text, texts_of

REFUSED = {
    r"there (is|are|was|were)": "name the subject: X exists, X has Y, without X",
    r"tells?|told": "shows, states, distinguishes, identifies",
    r"knows?": "has, uses, contains",
    r"hears?|heard": "receives",
    r"too modest": "underconfident",
    r"too sure( of itself)?": "overconfident",
    r"(?<!in )questions?": "queries",
    r"luck|lucky": "chance, residual variance",
    r"surely": "significantly",
    r"by heart": "memorize",
    r"mend(s|ed|ing)?": "fix, repair",
    r"is off by": "has an RMSE of, has an MAE of",
    r"a new task takes": "adaptation time",
    r"for want of": "for lack of",
    r"aloud": "reported",
    r"wish(es)?": "request; graceful interruption",
    r"parted": "separated",
}
"""Patterns of words, and what to write instead."""

NOT_PROSE = re.compile(r"\{[^{}]*\}|`[^`]*`|^ *\*{0,2}\w+(, \*{0,2}\w+)*: ", re.MULTILINE)
"""Expressions, code, and the names of arguments."""


def refused(text: Text) -> list[str]:
    """The words of a text that are on the list, each with the plain ones."""
    prose = " ".join(NOT_PROSE.sub(" ", text.words).split())
    found = [(re.search(rf"\b({word})\b", prose, re.IGNORECASE), plain) for word, plain in REFUSED.items()]
    return [f"{match[0]!r}: {plain}" for match, plain in found if match]


def test_messages_and_docstrings_are_in_plain_words():
    texts = [text for path in sorted(ROOT.rglob("*.py")) for text in texts_of(path)]
    assert len(texts) > 5000
    assert not [(str(text), words) for text in texts if (words := refused(text))]


@pytest.mark.parametrize(
    "code",
    [
        'raise UserError(f"There is no task {name!r}.")',
        'raise DataError("The file is empty.", hint="See what {task} tells.")',
        'note("spread", "The model knows no such column.")',
        'def f():\n    """Whether it is surely better.\n\n    hear: who hears of it.\n    """',
        'NAMES = ("a new task takes", "other words")',
        'text += f" is off by {error} in points"',
        'STEPS = 3\n"""What the learner is told, by heart."""',
        'label(f"{queries} questions" if many else "how lucky it is")',
    ],
)
def test_a_refused_word_is_seen(code, tmp_path):
    (tmp_path / "module.py").write_text(code)
    assert any(refused(text) for text in texts_of(tmp_path / "module.py"))


def test_names_and_code_are_no_words(tmp_path):
    code = '''f"The mean is {told} of `there is` for the learner in question."

def f(hear):
    """Call back.

    hear: called with each event, such as `knows`.
    """
'''
    (tmp_path / "module.py").write_text(code)
    texts = list(texts_of(tmp_path / "module.py"))
    assert len(texts) == 2
    assert not [text for text in texts if refused(text)]


def test_every_kind_of_message_is_in_the_list():
    files = [file for name in ("cli", "workflows") for file in (ROOT / name).glob("*.py")]
    kinds = {text.kind for file in files for text in texts_of(file)}
    assert kinds == {"docstring", "error", "help", "note", "progress", "text"}
