"""A server that is killed at any moment has all that it acknowledged once it is started again.

Clients create, extend, correct, roll back and erase tasks over HTTP until the server is killed. Then all invariants
hold of the store, every answer that came is true of it, and requests that are sent again are answered as before.
"""

import json
import random
import signal
import threading
import time
from collections import Counter

import httpx2
from tests.http.processes import serving
from tests.serving.oracle import check
from tests.serving.worlds import classifier, points

from handful.serving.service import Service

CLIENTS = 3
ANSWERS, SECONDS = 24, 0.02
"""After so many answers a server is killed at the latest, and so long after the last of them."""
KILLS = 6
"""Of one store: the oracle adapts all of its versions again."""


class User(threading.Thread):
    """Works on tasks of its own until the server is gone.

    Attributes:
        told: each request (method, path, content, headers) and its answer; None where none came.
        wrong: answers that nobody expects.
    """

    def __init__(self, process, seed):
        super().__init__()
        self.told, self.wrong = [], []
        self._client, self._choose = process.client(), random.Random(seed)

    def run(self):
        with self._client:
            try:
                while True:
                    self._life()
            except httpx2.TransportError:
                return

    def _life(self):
        """Of one task."""
        numbers, place = self._choose.sample(range(40), 4), "/v1/tasks"
        name = f"task {self._choose.random()}"
        task = self._ask("POST", place, {"name": name, "examples": examples(numbers, "aabb")}, keyed=True)
        place = f"{place}/{task['id']}"
        for _ in range(self._choose.randrange(6)):
            kind, number = self._choose.choice(["add", "correct", "roll back"]), self._choose.randrange(40, 60)
            if kind == "add":
                content = {"examples": examples([number], [self._choose.choice("abc")])}
                self._ask("POST", f"{place}/examples", content, keyed=True, refused=(422,))
            elif kind == "correct":
                content = {"examples": examples([self._choose.choice([*numbers, number])], "b")}
                self._ask("POST", f"{place}/corrections", content, keyed=True, refused=(422,))
            else:
                self._ask("POST", f"{place}/rollback", {"version": 1}, {"if-match": "*"})
        if self._choose.random() < 0.4:
            example = self._client.get(f"{place}/examples").json()["data"][-1]["id"]
            self._ask("DELETE", f"{place}/examples/{example}?erase=true", refused=(422,))

    def _ask(self, method, path, content=None, headers=None, *, keyed=False, refused=()):
        headers = {"x-request-timeout-ms": "60000", **(headers or {})}
        if keyed:
            headers["idempotency-key"] = f"key {self._choose.random()}"
        request = method, path, content, headers
        self.told.append([request, None])
        answer = self._client.request(method, path, json=content, headers=headers)
        if answer.is_success:
            self.told[-1][1] = answer.json()
        else:
            self.told.pop()
            if answer.status_code not in refused:
                self.wrong.append(answer.text)
        return answer.json()


def examples(numbers, labels):
    return [{"input": point, "label": label} for point, label in zip(points(*numbers), labels, strict=True)]


def killed(process, seed):
    """The users of a server that was killed at some moment."""
    users = [User(process, f"{seed} {number}") for number in range(CLIENTS)]
    for user in users:
        user.start()
    choose, until = random.Random(seed), time.monotonic() + 30
    answers = choose.randrange(ANSWERS)
    while sum(len(user.told) for user in users) <= answers and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(choose.uniform(0, SECONDS))
    process.end(signal.SIGKILL)
    for user in users:
        user.join()
    assert process.ended() == -signal.SIGKILL, "it ended by itself"
    assert not any(user.wrong for user in users), [user.wrong for user in users]
    return users


def lost(service, user):
    """The answers that came and are not true of the store."""
    found, tasks = [], {}
    for _, answer in user.told:
        if answer is not None:
            tasks.setdefault(answer.get("task") or answer["id"], []).append(answer)
    for id_, answers in tasks.items():
        versions = {one.number: one for one in service.versions(id_)}
        under_way = user.told[-1][0][1] if user.told[-1][1] is None else ""
        erased = [answer for answer in answers if "task" in answer] or "erase=true" in under_way
        head = service.get(id_).head.number
        last = answers[-1]["version"]
        if head != last and not (id_ in under_way and head in (1, max(versions))):
            found.append(("head", answers[-1], head))
        for answer in answers:
            one = versions.get(answer["version"])
            if one is None or (one.erased_at is not None and not erased):
                found.append(("version", answer, one))
            elif one.erased_at is None and "task" in answer:
                found += [("digest", answer, one)] * (one.digest != answer["digest"])
            elif one.erased_at is None and (one.examples, [*one.labels]) != (answer["examples"], answer["labels"]):
                found.append(("content", answer, one))
    return found


def sent_again(client, user):
    """How many requests are answered as before; where no answer came, they are carried out once at most."""
    erased = {one[0][1].split("/")[3] for one in user.told if "erase=true" in one[0][1]}
    count = 0
    for (method, path, content, headers), answer in user.told:
        keyed = "idempotency-key" in headers
        id_ = path.split("/")[3] if path.count("/") > 2 else answer and answer["id"]
        if (method != "DELETE" and not keyed) or (keyed and id_ in erased):
            continue
        again = client.request(method, path, json=content, headers=headers)
        if answer is None:
            assert again.is_success or again.status_code == 422, again.text
            third = client.request(method, path, json=content, headers=headers)
            assert not again.is_success or third.json() == again.json()
        else:
            assert again.json() == answer, f"{method} {path}: {again.text}, before {json.dumps(answer)}"
        count += 1
    return count


def run(folder, kills, seed=0):
    """Kill servers; returns how many answers came, how many of them are lost, and how many requests were sent again."""
    model, counts = classifier(), Counter(acknowledged=0, lost=0)
    for first in range(0, kills, KILLS):
        seeds = [f"{seed} {number}" for number in range(first, min(kills, first + KILLS))]
        _one_store(model, folder / f"store {first}", seeds, counts)
    return counts


def _one_store(model, store, seeds, counts):
    users = []
    for seed in [*seeds, None]:
        with serving(model, store) as process:
            with process.client() as client:
                counts["sent again"] += sum(sent_again(client, user) for user in users)
            if seed is None:
                process.end()
                assert process.ended() == 0
                return
            users = killed(process, seed)
        with Service(model, store) as service:
            counts["versions"] += check(service)
            for user in users:
                counts["acknowledged"] += sum(answer is not None for _, answer in user.told)
                gone = lost(service, user)
                counts["lost"] += len(gone)
                assert not gone, gone
