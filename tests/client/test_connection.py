"""Whom a key is sent to, and what goes over the wire, blocking and awaited alike."""

import functools
import http.server
import subprocess
import sys
import threading
import time
from typing import ClassVar

import anyio
import httpx2
import pytest

from handful.client import connection
from handful.client.client import AsyncClient, Client
from handful.errors import HandfulError, UserError

LOCAL = "http://127.0.0.1:8000"
TASK = {
    "id": "task_1",
    "name": "shelf",
    "model": {"name": "photos", "digest": "sha256:0"},
    "version": 2,
    "labels": ["a", "b"],
    "examples": 4,
    "created_at": "2026-11-30T12:00:00.000Z",
}


def blocking(handler, work, **options):
    """What a piece of work does with a client of a server."""
    with Client(LOCAL, "hf_secret", transport=httpx2.MockTransport(handler), **options) as client:
        return work(client)


def awaited(handler, work, **options):
    """The same with an awaited client."""

    async def run():
        async with AsyncClient(LOCAL, "hf_secret", transport=httpx2.MockTransport(handler), **options) as client:
            return await work(client)

    return anyio.run(run)


faces = pytest.mark.parametrize("face", [blocking, awaited])


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Waits take no time; how long they would have been."""
    found = []

    async def wait(seconds):
        found.append(seconds)

    monkeypatch.setattr(connection, "sleep", found.append)
    monkeypatch.setattr(connection.anyio, "sleep", wait)
    return found


@pytest.mark.parametrize(
    "url", ["http://localhost:8000", "http://127.0.0.2", "http://[::1]:81", "https://example.org", "https://x.org/a"]
)
def test_addresses_that_a_key_goes_to(url):
    assert Client(url, "k").url.startswith(url)


def test_certificates_to_trust_that_are_none_are_named(tmp_path, monkeypatch):
    (tmp_path / "text").write_text("no certificate")
    for name, said in (("missing", "No such file or directory"), ("text", "no certificate in PEM format")):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
        with pytest.raises(UserError, match=f"SSL_CERT_FILE names .*{name}, which cannot be used: .*{said}"):
            Client("https://example.org", "k")
        Client(LOCAL, "k").close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.org", "without encryption"),
        ("http://10.0.0.1:8000", "allow_http="),
        ("http://127.0.0.1.example.org", "without encryption"),
        ("http://localhost.example.org", "without encryption"),
        ("ftp://localhost", "not the address"),
        ("localhost:8000", "not the address"),
        ("", "not the address"),
        ("https://user:pass@example.org", "Pass the key separately"),
        ("https://example.org?key=k", "Pass the key separately"),
        ("https://exa mple.org:x", "not the address"),
    ],
)
def test_addresses_that_no_key_goes_to(url, said):
    with pytest.raises(UserError, match=said):
        Client(url, "k")


def test_a_trusted_network_is_allowed():
    assert Client("http://10.0.0.1:8000", "k", allow_http=True).url == "http://10.0.0.1:8000"


@pytest.mark.parametrize("key", ["", " ", "a\nb", "ключ"])
def test_what_is_no_key_is_refused_and_not_shown(key):
    with pytest.raises(UserError, match="The key") as caught:
        Client(LOCAL, key)
    assert not key.strip() or key not in str(caught.value)


@faces
def test_the_key_is_in_one_header_alone(face):
    seen = []

    def server(request):
        seen.append(request)
        return httpx2.Response(200, json=TASK)

    client = face(server, lambda client: _with_itself(client, client.get("a/../b?c")))
    [request] = seen
    assert request.headers["authorization"] == "Bearer hf_secret"
    assert request.url.raw_path == b"/v1/tasks/a%2F..%2Fb%3Fc"
    others = {name: value for name, value in request.headers.items() if name != "authorization"}
    assert "secret" not in repr((others, str(request.url), client))


def _with_itself(client, answer):
    if isinstance(client, Client):
        return client

    async def itself():
        await answer
        return client

    return itself()


@faces
def test_a_server_that_sends_on_gets_no_further_request(face):
    asked = []

    def server(request):
        asked.append(request.url.host)
        return httpx2.Response(307, headers={"location": "https://elsewhere.example/"})

    with pytest.raises(HandfulError, match="elsewhere"):
        face(server, lambda client: client.get("a"))
    assert asked == ["127.0.0.1"]


@faces
def test_a_request_says_how_long_the_client_waits(face):
    given = []

    def server(request):
        given.append(int(request.headers["x-request-timeout-ms"]))
        return httpx2.Response(200, json=TASK)

    face(server, lambda client: client.get("a"), timeout=5.0)
    face(server, lambda client: client.get("a"), timeout=600.0)
    assert 4000 < given[0] <= 5000
    assert given[1] == 60_000


@faces
def test_a_refused_request_is_sent_again_with_its_idempotency_key(face, waits):
    keys, bodies = [], []

    def server(request):
        keys.append(request.headers["idempotency-key"])
        bodies.append(request.content)
        if len(keys) == 2:
            raise httpx2.ReadError("reset")
        busy = httpx2.Response(503, headers={"retry-after": "3"}, json={"type": "/problems/overloaded"})
        return busy if len(keys) == 1 else httpx2.Response(201, json=TASK)

    made = face(server, lambda client: client.create("shelf", ["x", "y"], ["a", "b"]))
    assert made.id == "task_1"
    assert len(set(keys)) == len(set(bodies)) == 1
    assert len(keys) == 3
    assert waits[0] >= 3 > waits[1]
    face(server, lambda client: client.create("shelf", ["x", "y"], ["a", "b"]))
    assert len(set(keys)) == 2, "another call has another key"
    face(server, lambda client: client.add("task_1", ["x"], ["a"], idempotency_key="mine"))
    assert keys[-1] == "mine"


@faces
def test_a_version_that_is_expected_goes_with_the_request(face):
    seen = []

    def server(request):
        seen.append(request.headers.get("if-match"))
        return httpx2.Response(200, json=TASK)

    face(server, lambda client: client.roll_back("a", 1, expected=2))
    face(server, lambda client: client.roll_back("a", 1))
    face(server, lambda client: client.get("a"))
    assert seen == ['"2"', "*", None]


def predicting(request, *, inputs=3, asked=None):
    """A server that predicts numbers by themselves, so many at once."""
    if request.url.path == "/v1/limits":
        limits = {"json_bytes": 10**6, "inputs": inputs, "numbers": 10**6, "image_bytes": 1, "upload_bytes": 1}
        return httpx2.Response(200, json=limits)
    content = httpx2.Response(200, content=request.content).json()
    if asked is not None:
        asked.append((len(content["inputs"]), content["version"]))
    wrong = [place for place, value in enumerate(content["inputs"]) if value[0] < 0]
    if wrong:
        error = {"pointer": f"/inputs/{wrong[0]}/0", "code": "invalid-data", "detail": "Negative."}
        return httpx2.Response(422, json={"type": "/problems/invalid-request", "detail": "No.", "errors": [error]})
    made = [{"value": float(value[0])} for value in content["inputs"]]
    return httpx2.Response(200, json={"task": "a", "version": 7, "model": TASK["model"], "predictions": made})


@faces
def test_few_inputs_are_one_request(face):
    asked = []
    made = face(functools.partial(predicting, asked=asked), lambda client: client.predict("a", [[1.0], [2.0]]))
    assert [one.value for one in made.predictions] == [1.0, 2.0]
    assert asked == [(2, None)]
    assert face(predicting, lambda client: client.predict("a", [])).predictions == ()


@faces
def test_many_inputs_are_sent_in_parts_and_come_back_in_order_from_one_version(face):
    asked, inputs = [], [[float(number)] for number in range(100)]
    made = face(functools.partial(predicting, inputs=30, asked=asked), lambda client: client.predict("a", inputs))
    assert [one.value for one in made.predictions] == list(range(100))
    assert sorted(asked[1:]) == [(10, 7), (30, 7), (30, 7)]
    assert asked[0] == (30, None)


@faces
def test_an_error_in_a_part_names_the_input_by_its_number_among_all(face):
    inputs = [[float(number)] for number in range(100)]
    inputs[64] = [-1.0]
    with pytest.raises(UserError) as caught:
        face(functools.partial(predicting, inputs=30), lambda client: client.predict("a", inputs))
    assert caught.value.field == ("inputs", 64, 0)


def test_lists_are_iterated_over_all_their_pages():
    def server(request):
        after = int(request.url.params.get("after", 0))
        assert request.url.params["limit"] == "2"
        data = [TASK | {"id": str(number)} for number in range(after + 1, min(after + 3, 6))]
        return httpx2.Response(
            200, json={"data": data, "has_more": after + 2 < 5, "next_after": data[-1]["id"] if after + 2 < 5 else None}
        )

    async def ids(client):
        return [task.id async for task in client.tasks(limit=2)]

    assert blocking(server, lambda client: [task.id for task in client.tasks(limit=2)]) == list("12345")
    assert awaited(server, ids) == list("12345")


def test_a_list_without_end_is_refused():
    page = {"data": [TASK], "has_more": True, "next_after": "task_1"}
    with pytest.raises(HandfulError, match="same page"):
        blocking(lambda request: httpx2.Response(200, json=page), lambda client: list(client.tasks()))


@pytest.mark.parametrize(("labels", "sent"), [([1, 2], "label"), (["1", "2"], "label"), ([0.5, 2], "label")])
def test_numbers_are_names_of_classes_where_the_model_has_classes(labels, sent):
    bodies = []

    def server(request):
        if request.url.path == "/v1/models":
            models = [{"name": "photos", "digest": "sha256:0", "kind": "classification"}]
            return httpx2.Response(200, json={"data": models, "has_more": False, "next_after": None})
        bodies.append(httpx2.Response(200, content=request.content).json())
        return httpx2.Response(201, json=TASK)

    blocking(server, lambda client: client.create("shelf", ["x", "y"], labels))
    assert [list(one) for one in bodies[0]["examples"]] == [["input", sent]] * 2


@faces
def test_inputs_without_their_labels_are_refused_before_anything_is_sent(face):
    with pytest.raises(UserError, match="2 inputs and 1 label: give"):
        face(lambda request: pytest.fail("sent"), lambda client: client.create("shelf", ["x", "y"], ["a"]))


# On a real connection


@pytest.fixture
def loopback():
    """A server on this machine that counts how many requests it has at once, and answers each after a while."""

    class Slow(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        here, most, lock = 0, 0, threading.Lock()
        connections: ClassVar = set()

        def do_GET(self):
            with self.lock:
                Slow.here += 1
                Slow.most = max(Slow.most, Slow.here)
                Slow.connections.add(self.client_address)
            if "trickle" in self.path:
                self.send_response(200)
                self.send_header("content-length", "1000")
                self.end_headers()
                for _ in range(1000):
                    try:
                        self.wfile.write(b" ")
                    except OSError:
                        break
                    time.sleep(0.02)
            else:
                time.sleep(0.03)
                content = httpx2.Response(200, json=TASK).content
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                with self.lock:
                    Slow.here -= 1
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Slow
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_client_has_but_so_many_requests_at_once(loopback):
    url, server = loopback
    with Client(url, "k", concurrency=2) as client:
        threads = [threading.Thread(target=client.get, args=("a",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.most == 2
    assert len(server.connections) == 2, "connections are kept"


def test_an_answer_that_trickles_is_given_up(loopback):
    url, _ = loopback
    start = time.monotonic()
    with Client(url, "k", timeout=0.2, attempts=1) as client, pytest.raises(HandfulError, match="in time"):
        client.get("trickle")

    async def awaiting():
        async with AsyncClient(url, "k", timeout=0.2, attempts=1) as client:
            await client.get("trickle")

    with pytest.raises(HandfulError, match="in time"):
        anyio.run(awaiting)
    assert time.monotonic() - start < 10, "it would trickle for 20 seconds"


def test_nobody_there():
    with (
        Client("http://127.0.0.1:9", "k", attempts=1) as client,
        pytest.raises(HandfulError, match="cannot be reached"),
    ):
        client.get("a")


def test_a_client_needs_no_torch():
    code = "import sys, handful; handful.Client('http://localhost', 'k'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
