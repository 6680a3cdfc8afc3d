"""Problems of a server are the library's errors."""

import json

import pytest

from handful.client.remote_errors import RemoteError, place_of, problem_of
from handful.errors import DataError, HandfulError, UserError


def problem(status, slug, *errors, detail="Input 3: no number.", **headers):
    content = {"type": f"https://example.org/problems/{slug}", "status": status, "detail": detail, "errors": errors}
    return problem_of(status, headers, json.dumps(content).encode())


def test_a_problem_keeps_its_code_its_place_and_its_request():
    error = problem_of(
        422,
        {"x-request-id": "r1"},
        json.dumps(
            {
                "type": "/problems/non-finite",
                "detail": "No number.",
                "errors": [{"pointer": "/examples/3/input/a~1b~0", "code": "non-finite", "detail": "No number."}],
            }
        ).encode(),
    )
    assert isinstance(error, DataError)
    assert (str(error), error.code, error.slug, error.status, error.request_id) == (
        "No number.",
        "non-finite",
        "non-finite",
        422,
        "r1",
    )
    assert error.field == ("examples", 3, "input", "a/b~")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, UserError), (401, UserError), (404, UserError), (409, UserError), (429, UserError), (422, DataError)],
)
def test_what_is_refused_is_a_mistake_of_the_user(status, kind):
    error = problem(status, "not-found")
    assert isinstance(error, kind)
    assert isinstance(error, RemoteError)
    assert isinstance(error, DataError) == (kind is DataError)


@pytest.mark.parametrize("status", [500, 503, 507])
def test_what_the_server_fails_at_is_none(status):
    error = problem(status, "outcome-unknown")
    assert isinstance(error, HandfulError)
    assert not isinstance(error, UserError)


def test_a_problem_without_errors_has_the_code_of_its_kind():
    assert problem(503, "overloaded").code == "overloaded"


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"[]", b"null", b"[" * 100_000, b'{"detail": null, "errors": null}']
)
def test_an_answer_that_is_no_problem_is_an_error_all_the_same(content):
    error = problem_of(500, {}, content)
    assert "status 500" in str(error)
    assert error.field == ()


def test_an_address_that_moved_is_named():
    assert "https://new.example" in str(problem_of(308, {"location": "https://new.example"}, b""))


def test_pointers_are_places():
    assert place_of("") == ()
    assert place_of("/inputs/12/²") == ("inputs", 12, "²")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (413, "payload-too-large", "A proxy before the server refuses content of this size"),
        (502, "failed", "A proxy before the server got no response from it"),
        (503, "unavailable", "A proxy before the server got no response from it"),
        (504, "deadline-exceeded", "in time"),
    ],
)
def test_what_a_proxy_says_by_itself_is_no_reason_to_check_the_address(status, code, said):
    error = problem_of(status, {}, b"<html>")
    assert said in str(error)
    assert "address" not in str(error)
    assert (error.code, error.slug) == (code, "")
