"""What is sent again, when, and until when: on a clock that only waits move, without a network."""

import httpx2
import pytest

from handful.client.calls import Call
from handful.client.exchange import LONGEST_WAIT, Patience, Reply, Send, Wait
from handful.client.remote_errors import RemoteError
from handful.errors import HandfulError, UserError

GET = Call("GET", "/v1/tasks/a", dict, repeatable=True)
ONCE = Call("DELETE", "/v1/tasks/a", dict)
DONE = Reply(200, {}, b'{"id": "a"}')


class World:
    """Answers in turn, of which errors are raised; what waits were, and how long each request was given."""

    def __init__(self, *answers, drawn=1.0, **patience):
        self.answers, self.time, self.waits, self.given = list(answers), 100.0, [], []
        self.patience = Patience(now=lambda: self.time, drawn=lambda low, high: low + drawn * (high - low), **patience)

    def carry_out(self, call):
        steps = self.patience.exchange(call, self.time + self.patience.seconds)
        step = next(steps)
        try:
            while True:
                if isinstance(step, Wait):
                    self.waits.append(step.seconds)
                    self.time += step.seconds
                    step = steps.send(None)
                    continue
                assert isinstance(step, Send)
                assert step.call is call
                self.given.append(step.seconds)
                answer = self.answers.pop(0)
                step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
        except StopIteration as end:
            assert not self.answers, "not all answers were asked for"
            return end.value


def problem(status, slug, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, named, b'{"type": "/problems/%s", "detail": "No."}' % slug.encode())


BUSY = problem(503, "overloaded", retry_after="2")


def test_an_answer_is_read():
    assert World(DONE).carry_out(GET) == {"id": "a"}


@pytest.mark.parametrize("call", [GET, ONCE], ids=["repeatable", "once"])
@pytest.mark.parametrize(
    "refusal", [BUSY, problem(429, "rate-limited"), problem(409, "idempotency-in-progress"), httpx2.ConnectError("")]
)
def test_what_was_not_carried_out_is_sent_again(refusal, call):
    assert World(refusal, refusal, DONE).carry_out(call) == {"id": "a"}


@pytest.mark.parametrize(
    "loss",
    [
        httpx2.ReadError("reset"),
        httpx2.RemoteProtocolError("closed", request=httpx2.Request("GET", "http://localhost")),
        httpx2.ReadTimeout(""),
        Reply(502, {}, b"<html>"),
        Reply(504, {}, b"<html>"),
        problem(503, "outcome-unknown"),
        problem(503, "deadline-exceeded"),
    ],
)
def test_what_was_lost_is_sent_again_only_where_that_is_safe(loss):
    assert World(loss, DONE).carry_out(GET) == {"id": "a"}
    with pytest.raises(RemoteError):
        World(loss).carry_out(ONCE)


@pytest.mark.parametrize(
    "refusal",
    [
        problem(404, "not-found"),
        problem(422, "wrong-shape"),
        problem(429, "quota-exceeded"),
        problem(507, "storage-full"),
    ],
)
def test_what_stays_refused_is_not_sent_again(refusal):
    with pytest.raises(HandfulError, match=r"No\."):
        World(refusal).carry_out(GET)


def test_waits_grow_and_differ_by_chance():
    world = World(*[httpx2.ConnectError("")] * 8, DONE, attempts=9, drawn=1.0)
    world.carry_out(GET)
    assert world.waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, LONGEST_WAIT])
    half = World(*[httpx2.ConnectError("")] * 2, DONE, drawn=0.5)
    half.carry_out(GET)
    assert half.waits == pytest.approx([0.05, 0.1])


@pytest.mark.parametrize(
    ("asked", "waited"),
    [("2", 2), ("0", 0), ("3600", 60), ("Wed, 21 Oct 2026 07:28:00 GMT", 0), ("-5", 0), ("1e9", 0), ("²", 0)],
)
def test_a_server_says_how_long_to_wait_up_to_a_minute(asked, waited):
    world = World(problem(503, "overloaded", retry_after=asked), DONE, seconds=300.0, drawn=0.0)
    world.carry_out(GET)
    assert world.waits == [waited]


def test_all_attempts_share_one_time():
    world = World(BUSY, BUSY, BUSY, seconds=5.0, drawn=0.0)
    with pytest.raises(HandfulError) as caught:
        world.carry_out(GET)
    assert caught.value.status == 503
    assert world.given == pytest.approx([5, 3, 1])
    assert world.time == 104.0, "nobody waits for what cannot be sent any more"


def test_attempts_are_limited():
    world = World(BUSY, BUSY, attempts=2)
    with pytest.raises(HandfulError):
        world.carry_out(GET)
    assert len(world.waits) == 1


def test_a_server_that_is_not_there_is_said_so():
    with pytest.raises(HandfulError, match=r"cannot be reached \(refused\)") as caught:
        World(httpx2.ConnectError("refused"), attempts=1).carry_out(GET)
    assert (caught.value.code, caught.value.slug) == ("unreachable", "not-ready")
    assert not isinstance(caught.value, UserError)


@pytest.mark.parametrize("why", ["certificate has expired", "certificate is not yet valid"])
def test_a_certificate_of_another_time_is_a_matter_of_clocks(why):
    lost = httpx2.ConnectError(f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {why} (_ssl.c:1006)")
    with pytest.raises(HandfulError, match=rf"not valid now \({why}\)\. Renew it, or set the clock"):
        World(lost).carry_out(GET)


def test_a_change_that_may_have_been_made_is_said_so():
    with pytest.raises(HandfulError, match="may have been carried out") as caught:
        World(httpx2.ReadError("reset")).carry_out(ONCE)
    assert caught.value.slug == "outcome-unknown"
    with pytest.raises(HandfulError, match="may have been carried out"):
        World(Reply(502, {}, b"<html>")).carry_out(ONCE)
    with pytest.raises(HandfulError, match="in time") as caught:
        World(httpx2.ReadTimeout(""), attempts=1).carry_out(GET)
    assert caught.value.code == "deadline-exceeded"


def test_an_answer_that_is_none_is_said_so():
    with pytest.raises(HandfulError, match=r"GET /v1/tasks/a is not valid"):
        World(Reply(200, {}, b"<html>")).carry_out(GET)
