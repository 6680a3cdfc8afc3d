"""A server that is stopped, doubled, out of files or of room, or whose clock jumps, loses nothing and goes on."""

import resource
import signal
import time

import httpx2
import pytest
from apps import caller
from processes import serving
from tests.serving.kills import User, lost, sent_again

from handful.errors import UserError
from handful.serving import write_ahead_log
from handful.serving.service import Service
from serving.oracle import check
from serving.worlds import classifier, points

DAY = 86400 * 10**9


def task(name):
    return {
        "name": name,
        "examples": [{"input": p, "label": label} for p, label in zip(points(0, 1), "ab", strict=True)],
    }


def test_a_second_server_on_a_folder_is_refused_also_while_the_first_one_stands_still(tmp_path):
    folder = tmp_path / "store"
    with serving(classifier(), folder) as process, process.client() as client:
        for number in (signal.SIGCONT, signal.SIGSTOP):
            process.end(number)
            with pytest.raises(UserError, match=f"Another service is running in .*, in process {process.child}"):
                Service(classifier(), folder)
        process.end(signal.SIGCONT)
        assert client.post("/v1/tasks", json=task("first")).status_code == 201
        process.end(signal.SIGKILL)
        process.ended()
    with Service(classifier(), folder) as service:
        assert [one.name for one in service.tasks()] == ["first"]


@pytest.mark.slow
def test_a_server_that_stood_still_goes_on_with_all_that_it_acknowledged(tmp_path):
    with serving(classifier(), tmp_path / "store") as process, process.client() as client:
        users = [User(process, number) for number in range(2)]
        for user in users:
            user.start()
        for _ in range(3):
            time.sleep(0.1)
            process.end(signal.SIGSTOP)
            with pytest.raises(httpx2.TimeoutException):
                client.get("/livez", timeout=0.1)
            process.end(signal.SIGCONT)
            assert client.get("/livez").status_code == 200
        process.end()
        for user in users:
            user.join()
        assert process.ended() == 0
    with Service({"points": classifier()}, tmp_path / "store") as service:
        check(service)
        assert [lost(service, user) for user in users] == [[], []]
    assert all(user.told for user in users)
    with serving(classifier(), tmp_path / "store") as process, process.client() as client:
        assert sum(sent_again(client, user) for user in users) >= 2


def test_a_server_without_free_files_answers_again_once_it_has_some(tmp_path):
    def few_files(service):
        resource.setrlimit(resource.RLIMIT_NOFILE, (104, 104))  # both, else the server raises the lower one

    with serving(classifier(), tmp_path / "store", prepare=few_files) as process:
        with process.client() as client:
            assert client.post("/v1/tasks", json=task("before")).status_code == 201
        idle = [process.socket() for _ in range(100)]
        time.sleep(0.3)
        for connection in idle:
            connection.close()
        process.wait()  # connections that it cannot take are reset, until it has seen that the idle ones are closed
        with process.client() as client:
            assert client.post("/v1/tasks", json=task("after")).status_code == 201
            listed = client.get("/v1/tasks").json()["data"]
    assert [one["name"] for one in listed] == ["before", "after"]


def test_a_full_disk_refuses_what_is_written_and_no_more_until_there_is_room(tmp_path):
    def pragma(text):
        return service.store.writer.outside(lambda connection: connection.execute(f"PRAGMA {text}").fetchone()[0])

    with Service({"points": classifier()}, tmp_path / "store") as service:
        call, acknowledged = caller(service), []
        assert call("POST", "/v1/tasks", json=task("first")).status_code == 201
        pragma(f"max_page_count = {pragma('page_count') + 4}")
        for number in range(50):
            answer = call("POST", "/v1/tasks", json=task(f"task {number}"), headers={"Idempotency-Key": f"k{number}"})
            if answer.status_code != 201:
                break
            acknowledged.append(answer.json()["id"])
        assert (answer.status_code, answer.json()["type"]) == (507, "/problems/storage-full")
        assert "retry-after" not in answer.headers
        check(service)
        first, *others = service.tasks()
        assert [one.id for one in others] == acknowledged
        assert call("POST", f"/v1/tasks/{first.id}/predict", json={"inputs": points(3)}).status_code == 200
        pragma(f"max_page_count = {2**30}")
        again = call("POST", "/v1/tasks", json=task(f"task {number}"), headers={"Idempotency-Key": f"k{number}"})
        assert again.status_code == 201
        check(service)


def test_a_log_that_is_too_large_refuses_what_is_written_until_nobody_holds_it(tmp_path, monkeypatch):
    with Service({"points": classifier()}, tmp_path / "store") as service:
        call = caller(service)
        first = call("POST", "/v1/tasks", json=task("first")).json()["id"]
        with monkeypatch.context() as patch:
            patch.setattr(write_ahead_log, "FULL", 0)
            answer = call("POST", "/v1/tasks", json=task("second"))
            assert (answer.status_code, answer.json()["type"]) == (507, "/problems/storage-full")
            assert str(tmp_path) not in answer.text
            assert call("POST", f"/v1/tasks/{first}/predict", json={"inputs": points(3)}).status_code == 200
        assert call("POST", "/v1/tasks", json=task("second")).status_code == 201
        check(service)


def test_ids_and_audit_keep_their_order_when_the_clock_jumps(tmp_path, monkeypatch):
    now, made = [10**18], []
    monkeypatch.setattr("uuid_utils.uuid7", lambda: __import__("uuid").UUID(int=now[0] << 64))
    with Service(classifier(), tmp_path / "store", clock=lambda: now[0]) as service:
        for number, jump in enumerate((0, -DAY, 30 * DAY, -40 * DAY, 1)):
            now[0] += jump
            request = {"name": f"task {number}", "inputs": points(1, 2, 3), "labels": ["a", "b", "b"]}
            one = service.create(**request, idempotency_key=f"k{number}")
            service.correct(one.id, points(1), ["c"])
            service.delete(one.id)
            assert service.restore(one.id).id == one.id
            made.append(one.id)
            assert (
                service.create(f"task {number}", points(1, 2, 3), ["a", "b", "b"], idempotency_key=f"k{number}") == one
            )
            check(service)
        assert [one.id for one in service.tasks()] == made == sorted(made)
        assert [entry.number for entry in service.audit()] == list(range(1, 4 * len(made) + 1))
        key = service.keys.create("default", "write", "before the clock goes back").token
        now[0] -= 10 * DAY
        assert service.keys.check(key).scope == "write"
        now[0] -= 10 * DAY
    with Service(classifier(), tmp_path / "store", clock=lambda: now[0]) as service:
        check(service)
        assert service.create("after a start", points(1, 2), ["a", "b"]).id > made[-1]


@pytest.mark.slow
def test_two_hundred_connections_that_trickle_do_not_keep_a_good_client_waiting(tmp_path):
    with serving(classifier(), tmp_path / "store") as process, process.client() as good:
        head = b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n"
        trickling = [process.socket(head if number % 2 else head + b"\r\n{") for number in range(200)]
        until, taken = time.monotonic() + 4, []
        while time.monotonic() < until:
            for number, connection in enumerate(trickling):
                connection.sendall(b"X" if number % 2 else b" ")
            start = time.monotonic()
            assert good.post("/v1/tasks", json=task(f"task {len(taken)}")).status_code == 201
            taken.append(time.monotonic() - start)
        for connection in trickling:
            connection.close()
    assert len(taken) >= 10
    assert sorted(taken)[len(taken) // 2] < 0.5
