"""Connections whose clients send bytes that are no request, or a second request before the first is answered."""

import json
import logging
import re
import time

import pytest
from processes import HEADERS, serving

from serving.worlds import classifier

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
AUTHORIZED = f"HTTP/1.1\r\nHost: x\r\nAuthorization: {HEADERS['authorization']}\r\n".encode()
BIG = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"GET /v1/tasks " + AUTHORIZED + b"\r\n"
CREATE = b"POST /v1/tasks " + AUTHORIZED + b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n"


def slowly(service):
    """Tasks are listed late."""
    listed = service.tasks

    def list_tasks(*arguments, **named):
        time.sleep(0.8)
        return listed(*arguments, **named)

    service.tasks = list_tasks


def received(connection):
    """All that comes until the other side closes, however it does."""
    came = b""
    connection.settimeout(3)
    with connection:
        try:
            while part := connection.recv(65536):
                came += part
        except ConnectionResetError:
            pass
    return came


def statuses(came):
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d+) ", came)]


def test_newlines_before_a_head_keep_no_connection_open(tmp_path):
    with serving(classifier(), tmp_path / "store", head=0.4) as process:
        connection = process.socket(GET)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\r\n")
        received(connection)


@pytest.mark.parametrize("part", [b"0\r\nX-A: ", b"2;x="], ids=["a trailer", "what a chunk is called"])
def test_what_is_no_content_in_a_content_has_an_end(tmp_path, part):
    head = CREATE.replace(b"Content-Length: 10", b"Transfer-Encoding: chunked")
    with serving(classifier(), tmp_path / "store") as process:
        connection = process.socket(head + b"2\r\n{}\r\n" + part)
        time.sleep(0.1)
        connection.sendall(b"a" * 70_000)
        assert statuses(received(connection)) == [431]


def test_an_answer_that_nobody_reads_ends_its_connection(tmp_path):
    with serving(classifier(), tmp_path / "store", answer=0.4) as process:
        silent = process.socket(BIG, buffer=4096)
        time.sleep(1)
        head, _, content = received(silent).partition(b"\r\n\r\n")
        assert len(content) < int(re.search(rb"content-length: (\d+)", head)[1]), "the rest is not sent any more"


def test_what_follows_a_request_never_takes_its_answer(tmp_path):
    with serving(classifier(), tmp_path / "store", head=0.3, body=0.3, prepare=slowly) as process:
        junk, begun, queued = (process.socket(SLOW) for _ in range(3))
        time.sleep(0.2)
        junk.sendall(b"no http at all\r\n\r\n")
        begun.sendall(b"GET /livez HTTP/1.1\r\n")
        queued.sendall(CREATE + b"[")
        assert received(junk) == b""
        assert statuses(received(begun)) == [200]
        assert statuses(received(queued)) == [200, 408]


def test_what_the_application_does_not_answer_has_an_id_a_line_and_a_count(tmp_path, capfd):
    def logged(_):
        log = logging.getLogger("handful.http")
        log.addHandler(logging.FileHandler(tmp_path / "log"))
        log.setLevel(logging.INFO)

    with serving(classifier(), tmp_path / "store", body=0.3, prepare=logged) as process:
        answers = [received(process.socket(sent)) for sent in (b"no http at all\r\n\r\n", CREATE + b"[")]
        process.socket(CREATE + b"[").close()
        time.sleep(0.1)
        with process.client() as client:
            metrics = client.get("/metrics").text
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    for answer, status, route in zip(answers, (400, 408), ("unmatched", "/v1/tasks"), strict=True):
        head, _, content = answer.decode().partition("\r\n\r\n")
        id_ = json.loads(content)["instance"]
        assert f"x-request-id: {id_}\r\n" in head
        [line] = [line for line in lines if line["request"] == id_]
        assert (line["event"], line["status"], line["route"]) == ("request", status, route)
        assert re.search(rf'handful_requests_total{{.*route="{route}",status="{status}"}} 1\.0', metrics)
    assert {line["event"] for line in lines} == {"request"}
    assert [line["status"] for line in lines if line["status"] in (499, 500)] == [499]
    assert capfd.readouterr().err == ""
