"""Several servers on one database: what one does the others see at once, and the end of one harms none of them."""

import contextlib
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.http.processes import serving
from tests.serving.kills import User, examples, lost, sent_again

from handful import Service
from handful.serving.verification import verify
from serving.clusters import settled
from serving.oracle import check
from serving.worlds import classifier, points

pytestmark = pytest.mark.slow


@pytest.fixture
def address(cluster):
    return cluster.store()


@pytest.fixture
def servers(address):
    """Three of them."""
    with contextlib.ExitStack() as running:
        yield [running.enter_context(serving(classifier(), address)) for _ in range(3)]


@pytest.fixture
def clients(servers):
    with contextlib.ExitStack() as open_:
        yield [open_.enter_context(server.client()) for server in servers]


def task(name="shelf"):
    return {"name": name, "examples": examples([1, 2, 3, 4], "aabb")}


def test_a_task_of_one_server_is_predicted_and_corrected_by_the_others_at_once(clients):
    first, second, third = clients
    made = first.post("/v1/tasks", json=task()).json()
    place, asked = f"/v1/tasks/{made['id']}", {"inputs": points(1, 9)}

    def predicted(client):
        answer = client.post(f"{place}/predict", json=asked)
        assert answer.status_code == 200, answer.text
        return answer.json()

    before = [predicted(client) for client in (second, third, first)]
    assert before == [before[0]] * 3
    assert before[0]["version"] == 1
    answer = third.post(f"{place}/corrections", json={"examples": examples([1], "b")})
    assert answer.json()["version"] == 2
    after = [predicted(client) for client in clients]
    assert after == [after[0]] * 3
    assert (after[0]["version"], after[0]["predictions"] != before[0]["predictions"]) == (2, True)
    assert second.post(f"{place}/rollback", json={"version": 1}, headers={"if-match": '"1"'}).status_code == 412
    assert second.post(f"{place}/rollback", json={"version": 1}, headers={"if-match": '"2"'}).status_code == 200
    assert [predicted(client) for client in clients] == before
    assert first.delete(place, headers={"if-match": "*"}).status_code < 300
    assert [client.post(f"{place}/predict", json=asked).status_code for client in clients] == [404] * 3


def test_a_key_that_is_revoked_at_one_server_is_refused_by_the_others_within_a_second(clients):
    admin = clients[0]
    made = admin.post("/v1/keys", json={"name": "of a test", "scope": "predict"}).json()
    own = {"authorization": f"Bearer {made['token']}"}

    def statuses():
        return [client.get("/v1/models", headers=own).status_code for client in clients]

    assert statuses() == [200] * 3
    assert admin.delete(f"/v1/keys/{made['id']}").status_code < 300
    revoked = time.monotonic()
    assert statuses()[0] == 401
    time.sleep(max(0.0, revoked + 1 - time.monotonic()))
    assert statuses() == [401] * 3


def test_a_request_that_is_sent_to_several_servers_is_carried_out_once(clients):
    headers = {"idempotency-key": "k"}

    def sent(client, name="shelf"):
        return client.post("/v1/tasks", json=task(name), headers=headers)

    with ThreadPoolExecutor(3) as threads:
        at_once = list(threads.map(sent, clients))
    done = [answer.json() for answer in at_once if answer.status_code == 201]
    assert done
    assert {answer.status_code for answer in at_once} <= {201, 409}
    again = [sent(client) for client in clients]
    assert [answer.status_code for answer in again] == [201] * 3
    assert [answer.json() for answer in again] == [done[0]] * 3
    assert {sent(client, "another").json()["type"] for client in clients} == {"/problems/idempotency-mismatch"}
    assert [len(client.get("/v1/tasks").json()["data"]) for client in clients] == [1] * 3


def test_a_server_that_is_killed_under_load_harms_neither_the_others_nor_the_store(servers, address, cluster):
    users = [User(server, f"{place} {number}") for place, server in enumerate(servers) for number in range(2)]
    gone, others = users[:2], users[2:]
    for user in users:
        user.start()

    def answered(those):
        return min(sum(answer is not None for _, answer in user.told) for user in those)

    def wait(those, count):
        until = time.monotonic() + 60
        while answered(those) < count:
            assert time.monotonic() < until
            time.sleep(0.01)

    wait(users, 3)
    servers[0].end(signal.SIGKILL)
    assert servers[0].ended() == -signal.SIGKILL
    wait(others, answered(others) + 6)
    for server in servers[1:]:
        server.end()
    for user in users:
        user.join()
    assert [server.ended() for server in servers[1:]] == [0, 0]
    assert [user.wrong for user in users] == [[]] * 6
    settled(cluster, address)
    with Service({"points": classifier()}, address) as service:
        assert check(service) >= 6
        assert [lost(service, user) for user in users] == [[]] * 6
    found = verify(address)
    assert found.findings == ()
    assert found.adapted > 0
    with serving(classifier(), address) as server, server.client() as client:
        assert sum(sent_again(client, user) for user in gone) >= 2
