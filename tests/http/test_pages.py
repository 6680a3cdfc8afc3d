"""The API page and its document, which need nothing from elsewhere."""

import html
import json
import re
from pathlib import Path

import pytest
from apps import Caller

from handful.http import schemas
from handful.http.app import routes
from handful.http.kinds import KINDS
from handful.http.middleware import Around
from handful.http.reference import pages
from handful.http.request_examples import EXCHANGES, PROBLEM

DOCS = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def call():
    app = routes()
    app.add_middleware(Around, count=lambda *_: None)
    return Caller(app, "none")


@pytest.fixture(scope="module")
def made():
    return pages()


@pytest.fixture(scope="module")
def document(made):
    return json.loads(made["openapi.json"])


@pytest.mark.parametrize("name", ["openapi.json", "api.md", "problems.md"])
def test_the_kept_pages_are_those_of_the_code(made, name):
    assert (DOCS / name).read_text(encoding="utf-8") == made[name], "run `make reference`"


def test_the_page_of_the_api_has_every_route_with_its_scope_and_links_to_all_types_and_problems(made, document):
    page = made["api.md"]
    sections = dict(re.findall(r"^### (.+?)\n\n(.+?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            section = sections[f"{method.upper()} {path}"]
            assert operation["description"] in section
            scoped = re.search(r"^Scope: `(predict|write|admin)`", section, re.MULTILINE) is not None
            assert scoped == path.startswith("/v1/")
    assert set(re.findall(r"\]\(problems\.md#([\w-]+)\)", page)) <= set(KINDS)
    assert {name.lower() for name in document["components"]["schemas"]} >= set(re.findall(r"\]\(#(\w+)\)", page))
    assert "Scope: `admin`" in sections["POST /v1/keys"]
    assert "precondition-required" in sections["POST /v1/tasks/{task}/rollback"]
    assert "precondition-required" not in sections["POST /v1/tasks/{task}/examples"]


@pytest.mark.parametrize(("method", "path"), EXCHANGES)
def test_the_examples_are_requests_and_whole_answers(document, method, path):
    exchange = EXCHANGES[method, path]
    operation = document["paths"][path][method]
    if exchange.request is not None:
        schema_of(operation["requestBody"]).model_validate(exchange.request)
    [answered] = [one for status, one in operation["responses"].items() if status.startswith("2")]
    assert schema_of(answered).model_validate(exchange.answer).model_dump(mode="json") == exchange.answer


def test_the_example_of_a_problem_is_of_its_kind():
    kind = KINDS[PROBLEM["type"].removeprefix("/problems/")]
    assert schemas.ProblemContent.model_validate(PROBLEM).model_dump() == PROBLEM
    assert (PROBLEM["title"], PROBLEM["status"]) == (kind.title, kind.status)


def schema_of(part):
    return getattr(schemas, part["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2])


@pytest.mark.parametrize("slug", KINDS)
def test_the_page_of_a_kind_of_problem_says_what_it_is_and_what_to_do(call, made, slug):
    page, kind = call("GET", f"/problems/{slug}").text, KINDS[slug]
    for text in (slug, str(kind.status), kind.title, kind.cause, kind.remedy):
        plain = html.unescape(re.sub(r"</?code>", "", page))
        assert text.replace("`", "") in plain
        assert text in made["problems.md"]


def test_the_document_is_whole(document):
    assert document["openapi"].startswith("3.1")
    text = json.dumps(document)
    for name in set(re.findall(r'"#/components/schemas/(\w+)"', text)):
        assert name in document["components"]["schemas"], name
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["responses"]["default"]["content"].keys() == {"application/problem+json"}, (method, path)
            assert operation["description"], (method, path)
            assert ("security" in operation) == path.startswith("/v1/")
            assert ("requestBody" in operation) <= (method in ("post", "patch"))


def test_the_api_page_and_all_that_it_loads_come_from_here(call):
    page = call("GET", "/docs")
    assert page.status_code == 200
    found = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(found) >= 4
    for address in (*found, "/openapi.json", *(f"/problems/{slug}" for slug in KINDS)):
        answer = call("GET", address)
        assert (answer.status_code, bool(answer.content)) == (200, True), address
        if answer.headers["content-type"].startswith("text/html"):
            assert "//" not in answer.text, address
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy


@pytest.mark.parametrize("path", ["/docs/__init__.py", "/docs/..%2fcore.py", "/problems/no-such"])
def test_nothing_else_is_served(call, path):
    assert call("GET", path).status_code == 404
