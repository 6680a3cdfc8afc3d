"""The API page and its document, which need nothing from elsewhere."""

import json
import re
from pathlib import Path

import pytest
from apps import Caller

from handful.http.app import routes
from handful.http.middleware import Around
from handful.http.problems import KINDS

KEPT = Path(__file__).parents[2] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def call():
    app = routes()
    app.add_middleware(Around, count=lambda *_: None)
    return Caller(app, "none")


def test_the_kept_document_is_that_of_the_routes():
    assert json.loads(KEPT.read_text()) == json.loads(json.dumps(routes().openapi())), "run `make openapi`"


def test_the_document_is_whole():
    document = routes().openapi()
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
