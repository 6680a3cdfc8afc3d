"""Requests as JSON or in parts, as the server reads them."""

import json

import httpx2
import pytest

from handful.client.client import Client
from handful.client.content import JSON_ALONE, as_json, as_parts, in_parts
from handful.errors import UserError

SMALL, BIG = b"\x89PNG", bytes(JSON_ALONE)


def test_small_images_are_base64():
    body = {"inputs": [{"image": SMALL}, "text", [1.5, 2]]}
    assert json.loads(as_json(body)) == {"inputs": [{"image": "iVBORw=="}, "text", [1.5, 2]]}
    assert as_parts(body) == []
    assert as_parts({"inputs": [[1.0] * 10]}, most=0) == []
    assert as_parts(None) == []


def test_large_images_are_parts_that_the_body_names():
    images = [SMALL, BIG]
    body = {"name": "a", "examples": [{"input": {"image": image}, "label": "x"} for image in images]}
    task, *parts = as_parts(body)
    assert (task.name, task.media) == ("task", "application/json")
    named = [{"input": {"image": f"image-{place}"}, "label": "x"} for place in range(2)]
    assert json.loads(task.content) == {"name": "a", "examples": named}
    assert [(one.name, one.content) for one in parts] == [("image-0", SMALL), ("image-1", BIG)]
    assert body["examples"][0]["input"] == {"image": SMALL}, "it may be sent again"


def test_a_column_called_image_is_none():
    assert as_parts({"inputs": [{"image": "a.png"}, {"image": "b.png"}]}, most=0) == []


def test_large_images_of_examples_go_over_the_wire_in_parts():
    seen = []

    def server(request):
        seen.append(request)
        return httpx2.Response(404, json={})

    with Client("http://localhost", "k", transport=httpx2.MockTransport(server)) as client:
        for send in (
            lambda: client.create("a", [BIG], ["x"]),
            lambda: client.predict("a", [BIG[:1000]]),
        ):
            with pytest.raises(UserError):
                send()
    examples, inputs = seen
    assert examples.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="task"' in examples.content
    assert b'name="image-0"' in examples.content
    assert BIG in examples.content
    assert inputs.headers["content-type"] == "application/json"


def test_pieces_keep_the_order_and_the_limits():
    inputs = ["a" * 10, "b" * 10, "c" * 100, "d", "e"]
    pieces = list(in_parts(inputs, 2, 40))
    assert [one for piece in pieces for one in piece] == inputs
    assert pieces == [inputs[:2], inputs[2:3], inputs[3:]]
    assert all(len(as_json(piece)) <= 42 for piece in pieces if len(piece) > 1)
    assert list(in_parts([], 2, 40)) == [[]]
