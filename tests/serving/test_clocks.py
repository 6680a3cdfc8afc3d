"""A clock that is off by a day, forward and back: ids never go back, requests are carried out once, keys expire."""

import itertools
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import uuid_utils

from client import servers
from handful.errors import UserError
from handful.http.app import make_app
from handful.serving import ids
from handful.serving.service import Service
from serving.oracle import check
from serving.worlds import classifier, points

DAY = 24 * 3600
LABELS = ["apple", "pear", "apple"]


class Clock:
    """The clock of this machine, off by so many seconds."""

    def __init__(self) -> None:
        self.off = 0

    def nanoseconds(self):
        return time.time_ns() + self.off * 10**9

    def uuid7(self):
        return SimpleNamespace(int=uuid_utils.uuid7().int + (self.off * 1000 << 80))


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(ids, "uuid_utils", clock)
    return clock


@pytest.mark.parametrize(
    "off", [-DAY, pytest.param(DAY, marks=pytest.mark.slow), pytest.param(-400 * DAY, marks=pytest.mark.slow)]
)
def test_a_clock_that_is_off_does_no_harm(clock, tmp_path, off):
    made = []
    for moved in (0, off, 0):
        clock.off = moved
        with Service(classifier(), tmp_path, clock=clock.nanoseconds) as service:
            key = service.keys.create("default", "write", "of a test").token
            with servers.blocking(make_app(service), key) as client:
                name = f"task {len(made)}"
                task = client.create(name, points(0, 1, 2), LABELS, idempotency_key=name)
                assert client.create(name, points(0, 1, 2), LABELS, idempotency_key=name) == task
                client.add(task.id, points(4), ["plum"])
                client.roll_back(task.id, 1)
                erased = client.erase(task.id, next(iter(client.examples(task.id))).id)
                client.delete(task.id)
                client.restore(task.id)
                assert client.predict(task.id, points(7)).version == client.get(task.id).version
            made.append([task.id, *(one.id for one in service.examples(task.id)), erased.id])
            assert service.purge() == []
            check(service)
    for earlier, later in itertools.pairwise(made):
        assert max(map(number, earlier)) < min(map(number, later)), "ids never go back"


def number(id_):
    return id_.partition("_")[2]


def test_a_key_expires_by_the_clock_that_there_is(clock, tmp_path):
    until = datetime.fromtimestamp(time.time() + 3600, UTC)
    for off, valid in ((0, True), (DAY, False), (-DAY, True)):
        clock.off = off
        with Service(classifier(), tmp_path, clock=clock.nanoseconds) as service:
            if not off:
                token = service.keys.create("default", "write", "of a test", expires_at=until).token
            with servers.blocking(make_app(service), token) as client:
                if valid:
                    assert list(client.tasks()) == []
                else:
                    with pytest.raises(UserError, match="key"):
                        list(client.tasks())
