"""The server as a process: slow and hostile clients, and an end that loses nothing and does not wait for ever."""

import contextlib
import json
import resource
import select
import signal
import threading
import time

import httpx2
import pytest
from fastapi import FastAPI
from processes import HEADERS, serving

from handful.errors import UserError
from handful.http import server
from handful.http.server import Address
from handful.serving.service import Service
from listening import tls_files
from serving.worlds import classifier, points

BIG = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"


def task(name):
    return {
        "name": name,
        "examples": [{"input": p, "label": label} for p, label in zip(points(0, 1), "ab", strict=True)],
    }


def half_sent(process, name):
    """A connection on which a request to create a task has come halfway, and what is missing."""
    content = json.dumps(task(name)).encode()
    head = f"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: {HEADERS['authorization']}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return process.socket(head.encode() + content[:50]), content[50:]


def readable(connection):
    """Whether something has come, or the other side has closed."""
    return bool(select.select([connection], [], [], 0)[0])


def received(connection):
    """All that comes until the other side closes."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def read_slowly(connection):
    """Take an answer in parts, so slowly that it would take a minute."""
    with contextlib.suppress(OSError):
        while connection.recv(1024):
            time.sleep(0.05)


def test_at_the_first_signal_accepted_requests_are_finished_whatever_other_clients_do(tmp_path):
    with serving(classifier(), tmp_path / "store", ending=2) as process, process.client() as client:
        assert client.post("/v1/tasks", json=task("first")).status_code == 201
        idle = process.socket(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 200 ")
        slow, silent = (process.socket(BIG, buffer=4096) for _ in range(2))
        late = process.socket(BIG, buffer=65536)
        reader = threading.Thread(target=read_slowly, args=[slow])
        reader.start()
        accepted, rest = half_sent(process, "accepted")
        time.sleep(0.2)
        process.end()
        received(idle)
        assert process.ended(0) is None, "it is closed at once"
        time.sleep(0.3)
        accepted.sendall(rest)
        assert received(accepted).startswith(b"HTTP/1.1 201 ")
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"{process.url}/livez")
        head, _, content = received(late).partition(b"\r\n\r\n")
        assert f"content-length: {len(content)}\r\n".encode() in head, "it is read to its end"
        assert process.ended(10) == 0
        reader.join(10)
        assert not reader.is_alive()
        for connection in (slow, silent):
            connection.close()
    wal = tmp_path / "store" / "store.sqlite3-wal"
    assert not wal.exists() or not wal.stat().st_size
    with Service({"points": classifier()}, tmp_path / "store") as service:
        assert [one.name for one in service.tasks()] == ["first", "accepted"]


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once_and_loses_nothing(tmp_path):
    with serving(classifier(), tmp_path / "store", ending=60) as process, process.client() as client:
        assert client.post("/v1/tasks", json=task("kept")).status_code == 201
        slow = process.socket(BIG, buffer=4096)
        time.sleep(0.1)
        process.end()
        assert process.ended(0.5) is None
        process.end()
        assert process.ended() == 128 + signal.SIGTERM
        slow.close()
    with Service({"points": classifier()}, tmp_path / "store") as service:
        assert [one.name for one in service.tasks()] == ["kept"]


def test_clients_that_send_too_late_or_no_http_are_left_and_others_served(tmp_path):
    with serving(classifier(), tmp_path / "store", head=0.5, body=0.7) as process, process.client() as good:
        silent = [process.socket() for _ in range(20)]
        trickling = process.socket(b"GET /livez HTTP/1.1\r\n")
        late, _ = half_sent(process, "late")
        dripping, rest = half_sent(process, "dripping")
        start = time.monotonic()
        for number in range(12):
            assert good.get("/livez").status_code == 200
            if not readable(dripping):
                dripping.sendall(rest[number : number + 1])
            with contextlib.suppress(OSError):
                trickling.sendall(b"X-More: 1\r\n")
            time.sleep(0.1)
        assert readable(dripping), "the time for a content does not begin anew with each byte"
        assert time.monotonic() - start < 3
        for connection in (*silent, trickling):
            with contextlib.suppress(ConnectionError):
                assert received(connection) == b""
        for connection in (late, dripping):
            head, _, content = received(connection).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408 ")
            assert json.loads(content)["type"] == "/problems/deadline-exceeded"
        for sent, status in (
            (b"no http at all\r\n\r\n", b"400"),
            (b"GET /livez HTTP/1.1\r\nX-Long: " + b"x" * 100_000, b"431"),
            (b"GET /livez HTTP/1.1\r\n" + b"X-Many: 1\r\n" * 10_000, b"431"),
        ):
            answer = received(process.socket(sent))
            assert answer.startswith(b"HTTP/1.1 " + status), answer[:80]
            assert b"application/problem+json" in answer
        chunked = (
            b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n"
        )
        chunked += f"Authorization: {HEADERS['authorization']}\r\nConnection: close\r\n\r\n".encode()
        sent = chunked + (b"100000\r\n" + b" " * 2**20 + b"\r\n") * 5 + b"0\r\n\r\n"
        assert received(process.socket(sent)).startswith(b"HTTP/1.1 413 ")
        assert good.post("/v1/tasks", json=task("good")).status_code == 201


def test_what_clients_asked_for_that_have_left_is_not_done(tmp_path):
    def slowly(service):
        predict = service.predictor.predict

        def slow(asked):
            time.sleep(0.3)
            return predict(asked)

        service.predictor.predict = slow

    with serving(classifier(), tmp_path / "store", prepare=slowly) as process, process.client() as client:
        id_ = client.post("/v1/tasks", json=task("busy")).json()["id"]
        content = json.dumps({"inputs": points(*range(200))}).encode()
        head = f"POST /v1/tasks/{id_}/predict HTTP/1.1\r\nHost: x\r\nAuthorization: {HEADERS['authorization']}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        for connection in [process.socket(head.encode() + content) for _ in range(30)]:
            connection.close()
        assert client.post(f"/v1/tasks/{id_}/predict", json={"inputs": points(1)}).status_code == 200
        metrics = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines())
        left = float(metrics['handful_refusals_total{lane="predict",why="left"}'])
        rows = float(metrics['handful_rows_total{lane="predict"}'])
        assert left >= 20
        assert rows <= 2 * 200 * (30 - left) + 1


# Addresses


def test_many_clients_are_let_in_at_a_turn_of_the_event_loop(monkeypatch):
    with contextlib.closing(Address(port=0).bound()) as listener:
        monkeypatch.setattr(server._Server, "run", lambda self, sockets: doors.extend(sockets))
        doors = []
        server.run(FastAPI(), listener, Address())
        assert {one.getsockname() for one in doors} == {listener.getsockname()}
        assert len({one.fileno() for one in doors}) == server.DOORS
        for one in doors:
            one.close()


def test_a_low_limit_of_open_files_is_raised_to_what_all_connections_need(tmp_path):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < server.FILES:
        pytest.skip(f"the system allows {hard} files at the most")

    def few_files(service):
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    with serving(classifier(), tmp_path / "store", prepare=few_files) as process:
        idle = [process.socket() for _ in range(300)]
        with process.client() as client:
            assert client.get("/livez").status_code == 200
        for connection in idle:
            connection.close()


def test_a_port_that_is_taken_is_refused_in_a_sentence():
    with Address(port=0).bound() as first:
        first.listen()
        with pytest.raises(UserError, match=r"Cannot listen at 127\.0\.0\.1:\d+: Address already in use\. .*port="):
            Address(port=first.getsockname()[1]).bound()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_keys_are_not_sent_in_the_open(host):
    with pytest.raises(UserError, match="behind_proxy="):
        Address(host).check()
    Address(host, behind_proxy=True).check()
    Address("127.0.0.1").check()


def test_tls_needs_both_of_its_files_and_each_that_is_none_is_named(tmp_path):
    certificate, key = tls_files(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = tls_files(tmp_path / "other")
    text, none = tmp_path / "text.pem", tmp_path / "none.pem"
    text.write_text("no certificate")
    with pytest.raises(UserError, match="Set both"):
        Address(certificate=certificate).check()
    Address(certificate=certificate, key=key).check()
    for files, said in (
        ((none, key), f"{none} cannot be read (No such file or directory). Check tls_cert=."),
        ((certificate, none), f"{none} cannot be read (No such file or directory). Check tls_key=."),
        ((certificate, tmp_path), f"{tmp_path} cannot be read (Is a directory). Check tls_key=."),
        ((text, key), f"{text} is not a certificate in PEM format. Check tls_cert=."),
        ((key, certificate), f"{key} is not a certificate in PEM format. Check tls_cert=."),
        ((certificate, text), f"{text} is not a private key in PEM format without a password. Check tls_key=."),
        ((certificate, other), f"{certificate} and {other} cannot be used for TLS (key values mismatch)."),
    ):
        with pytest.raises(UserError) as error:
            Address(certificate=files[0], key=files[1]).check()
        assert str(error.value).startswith(said)
