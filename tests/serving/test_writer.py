"""The writer: each request whole or not at all, answered once it is on disk, and one that fails harms no other."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from handful.errors import HandfulError
from handful.serving.sqlite import engine_of
from handful.serving.writer import Writer


@pytest.fixture
def file(tmp_path):
    return tmp_path / "rows.sqlite3"


@pytest.fixture
def writer(file):
    writer = Writer(engine_of(file, writes=True))
    writer.run(lambda c: c.execute(text("CREATE TABLE rows (number INTEGER PRIMARY KEY, content BLOB)")))
    yield writer
    writer.close()


def insert(number, size=1):
    row = {"number": number, "size": size}
    return lambda connection: connection.execute(text("INSERT INTO rows VALUES (:number, zeroblob(:size))"), row)


def rows(file):
    with engine_of(file, writes=False).connect() as connection:
        return list(connection.execute(text("SELECT number FROM rows ORDER BY number")).scalars())


def together(writer, works):
    """What becomes of several works in one group: they wait while another one runs."""
    running, go = threading.Event(), threading.Event()

    def hold(_):
        running.set()
        go.wait(10)

    def outcome(work):
        try:
            return writer.run(work)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(works) + 1) as pool:
        held = pool.submit(outcome, hold)
        running.wait(10)
        waiting = []
        for work in works:  # one after another, so that their order is known
            waiting.append(pool.submit(outcome, work))
            while writer._waiting.qsize() < len(waiting):
                pass
        go.set()
        held.result()
        return [one.result() for one in waiting]


def test_a_group_is_one_commit_and_a_failing_member_fails_alone(writer, file, monkeypatch):
    monkeypatch.setattr("handful.serving.writer.SECONDS", 10.0)

    def half(connection):
        insert(7)(connection)
        raise RuntimeError("in the middle")

    before = writer.commits
    outcomes = together(writer, [insert(1), half, insert(1), insert(3)])
    assert writer.commits == before + 1
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "CursorResult",
        "RuntimeError",
        "IntegrityError",
        "CursorResult",
    ]
    assert rows(file) == [1, 3]


def test_a_group_has_a_limit(writer, file, monkeypatch):
    monkeypatch.setattr("handful.serving.writer.SECONDS", 10.0)
    monkeypatch.setattr("handful.serving.writer.REQUESTS", 3)
    before = writer.commits
    together(writer, [insert(number) for number in range(5)])
    assert writer.commits == before + 2  # one that all waited for and two of them; three
    assert rows(file) == [0, 1, 2, 3, 4]


def test_nobody_is_answered_before_the_commit(writer, file, monkeypatch):
    monkeypatch.setattr("handful.serving.writer.SECONDS", 10.0)
    seen = []
    together(writer, [insert(1), lambda c: seen.append(rows(file))])
    assert seen == [[]]
    assert rows(file) == [1]


@pytest.mark.parametrize("place", range(4))
def test_a_full_disk_fails_the_group_and_what_is_acknowledged_is_there(writer, file, place, monkeypatch):
    monkeypatch.setattr("handful.serving.writer.SECONDS", 10.0)
    writer.outside(lambda c: c.execute("PRAGMA max_page_count = 20"))
    works = [insert(number, 10**6 if number == place else 1) for number in range(4)]
    outcomes = together(writer, works)
    acknowledged = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, Exception)]
    assert rows(file) == acknowledged
    assert isinstance(outcomes[place], HandfulError)
    assert outcomes[place].code == "unwritable"
    writer.run(insert(9))  # room again, on a new connection
    assert rows(file) == [*acknowledged, 9]


def test_a_failing_commit_fails_all_and_the_next_request_is_answered(writer, file):
    writer.run(
        lambda c: c.execute(
            text("CREATE TABLE children (parent INTEGER REFERENCES rows DEFERRABLE INITIALLY DEFERRED)")
        )
    )
    with pytest.raises(Exception, match="FOREIGN KEY constraint failed"):
        writer.run(lambda c: c.execute(text("INSERT INTO children VALUES (5)")))
    writer.run(insert(5))
    assert rows(file) == [5]


def test_a_group_survives_an_exit_in_a_request(writer, file):
    def leave(_):
        raise SystemExit

    with pytest.raises(SystemExit):
        writer.run(leave)
    writer.run(insert(2))
    assert rows(file) == [2]


def test_schema_changes_are_rolled_back_too(writer, file):
    def change(connection):
        connection.execute(text("CREATE TABLE more (number INTEGER)"))
        raise RuntimeError("after all not")

    with pytest.raises(RuntimeError):
        writer.run(change)
    with engine_of(file, writes=False).connect() as connection:
        assert connection.execute(text("SELECT name FROM sqlite_master")).scalars().all() == ["rows"]


def test_what_was_handed_in_is_finished_at_the_end_and_nothing_is_after_it(writer, file):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(writer.run, [insert(number) for number in range(20)]))
    writer.close()
    assert rows(file) == list(range(20))
    with pytest.raises(HandfulError, match="closed"):
        writer.run(insert(30))
