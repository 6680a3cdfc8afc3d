"""Errors carry a code of one list, where the fault is, and a way out whose parameters each face spells itself."""

import ast
import copy
import pickle
from pathlib import Path

import pytest

import handful
from handful.client.remote_errors import RemoteError
from handful.errors import (
    CODES,
    ArtifactError,
    DataError,
    DivergedError,
    HandfulError,
    OverloadedError,
    UserError,
    count_of,
    nearest_of,
    unknown_name,
)

SLUGS = """
invalid-request ragged-input non-finite wrong-shape unknown-label contradictory-labels too-few-examples
unsupported-media payload-too-large archive-unsafe unauthenticated forbidden not-found name-taken version-conflict
precondition-required idempotency-in-progress idempotency-mismatch quota-exceeded rate-limited overloaded
deadline-exceeded adapt-diverged task-quarantined storage-full outcome-unknown not-ready
"""
"""The kinds of problem of a service, a closed list."""

KINDS = {
    each.__name__: each
    for each in (ArtifactError, DataError, DivergedError, HandfulError, OverloadedError, RemoteError, UserError)
}


def raised():
    """Every error that the library makes: where, and the call."""
    root = Path(handful.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                yield f"{path.relative_to(root)}:{node.lineno}", node


def test_every_code_is_of_the_list_and_of_a_kind_of_problem_that_a_service_has():
    used = {kind.default_code for kind in KINDS.values()} | {unknown_name("learner", "a", ["b"]).code}
    for where, call in raised():
        for argument in call.keywords:
            if argument.arg == "code" and isinstance(argument.value, ast.Constant):
                assert argument.value.value in CODES, where
                used.add(argument.value.value)
    assert used == set(CODES)
    assert set(CODES.values()) <= set(SLUGS.split())


def test_an_error_has_the_code_of_its_kind_unless_it_has_its_own():
    assert UserError("No.").code == "invalid-request"
    assert DataError("No.").code == "invalid-data"
    assert DataError("No.", code="wrong-shape").code == "wrong-shape"
    assert DataError("No.").field == ()


def test_an_error_about_one_of_several_things_still_knows_what_not_to_quote():
    error = DataError("'5 kg' is no number.", unquoted="The cell is no number.").about("Row 2", 1)
    assert (error.message, error.unquoted) == ("Row 2: '5 kg' is no number.", "Row 2: The cell is no number.")
    assert DataError("No.").about("Row 2").unquoted == ""


def test_a_damaged_file_is_no_mistake_of_the_user():
    assert not issubclass(ArtifactError, ValueError)
    assert issubclass(ArtifactError, HandfulError)


def test_a_hint_names_parameters_as_python_does_unless_a_face_spells_them():
    error = UserError("A task is too large.", hint="Lower {way} or {query_shot}.")
    assert str(error) == "A task is too large. Lower way= or query_shot=."
    assert error.spelled("/{}".format) == "A task is too large. Lower /way or /query_shot."
    assert str(UserError("No.")) == "No."


@pytest.mark.parametrize("name", ["{way}", "{{way}}", "{", "}", "{0}", "{nobody}", "%s"])
def test_braces_in_the_users_data_are_shown_as_they_are(name):
    error = DataError(f"The class {name} is empty.", hint="Lower {way}.")
    assert error.spelled("--{}".format) == f"The class {name} is empty. Lower --way."
    assert error.about(f"Task {name}").spelled("--{}".format) == f"Task {name}: The class {name} is empty. Lower --way."


def test_an_error_about_one_of_several_things_says_which_and_keeps_the_rest():
    error = DataError("Not finite.", code="non-finite", field=("inputs", 2), hint="Leave it out.")
    one = error.about("Task 3", "tasks", 3)
    assert (type(one), one.code, one.field) == (DataError, "non-finite", ("tasks", 3, "inputs", 2))
    assert str(one) == "Task 3: Not finite. Leave it out."
    assert str(error) == "Not finite. Leave it out."
    assert DivergedError("No.", key="a").about("Task a").key == "a"


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_can_be_copied_and_sent_to_another_process(again):
    error = DivergedError("No.", key="a", field=("inputs",), hint="Lower {inner_lr}.")
    assert vars(again(error)) == vars(error)
    assert str(again(error)) == "No. Lower inner_lr=."


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 classes"), (1, "1 class"), (1.0, "1 class"), (0.25, "0.25 classes"), (12_000, "12,000 classes")],
)
def test_one_of_a_noun_is_singular(count, words):
    assert count_of(count, "class", "classes") == words
    assert count_of(count, "step") == words.replace("classes", "steps").replace("class", "step")


def test_long_names_and_those_beyond_the_first_thousand_are_not_compared():
    assert nearest_of("a" * 101, ["a" * 100]) is None
    assert nearest_of("a" * 100, ["a" * 101, "a" * 99]) == "a" * 99
    assert nearest_of("size", [*map(str, range(1_000)), "sizes"]) is None
