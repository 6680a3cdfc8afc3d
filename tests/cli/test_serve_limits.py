"""Limits of a server come from the environment."""

import pytest

from handful.cli.serve_limits import limits_of
from handful.errors import UserError
from handful.http.limits import DEFAULTS
from handful.serving.quotas import Quotas


def test_limits_are_the_defaults_but_for_those_that_are_set():
    assert limits_of({"PATH": "/bin"})[:2] == (DEFAULTS, Quotas())
    found = limits_of({"HANDFUL_MAX_JSON_BYTES": "1000", "HANDFUL_MAX_TASKS": "5", "HANDFUL_MAX_STATE_BYTES": "7"})
    assert (found.requests.json_bytes, found.requests.inputs) == (1000, DEFAULTS.inputs)
    assert (found.quotas.tasks, found.quotas.classes, found.state_bytes) == (5, 200, 7)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("JSON_BYTES", "0", "above 0"),
        ("JSON_BYTES", "4 MiB", "above 0"),
        ("TASKS", "-1", "above 0"),
        ("JSON_DEPTH", "33", "32 at most"),
        ("TASK", "1", "HANDFUL_MAX_TASKS"),
    ],
)
def test_a_limit_that_is_none_is_refused(name, text, told):
    with pytest.raises(UserError, match=told) as error:
        limits_of({f"HANDFUL_MAX_{name}": text})
    assert f"HANDFUL_MAX_{name} " in str(error.value)


def test_each_limit_has_its_row_in_the_documentation(pytestconfig):
    text = (pytestconfig.rootpath / "docs/reference/configuration.md").read_text()
    for name in (*vars(DEFAULTS), *vars(Quotas()), "state_bytes"):
        assert f"`{name.upper()}`" in text
