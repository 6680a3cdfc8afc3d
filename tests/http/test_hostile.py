"""Hostile requests: see `hostile`; each kind of wrong answer is found where it is given."""

import pytest
from tests.http.hostile import (
    MARKER,
    Sent,
    WrongAnswerError,
    attacked,
    judge,
    models,
    run,
)
from tests.http.processes import serving

PROBLEM = '{"type": "/problems/%s", "title": "", "status": 422, "detail": "%s", "instance": "", "errors": []}'
MEDIA = {"content-type": "application/problem+json"}


@pytest.mark.parametrize(
    ("status", "headers", "content"),
    [
        (500, MEDIA, PROBLEM % ("outcome-unknown", "")),
        (502, {}, ""),
        (200, {}, 'Traceback (most recent call last):\n  File "x"'),
        (422, MEDIA, PROBLEM % ("non-finite", MARKER)),
        (422, {"content-type": "application/json"}, PROBLEM % ("non-finite", "")),
        (422, MEDIA, PROBLEM % ("something-else", "")),
        (422, MEDIA, PROBLEM % ("non-finite", "x" * 20_000)),
        (422, MEDIA, '{"detail": "Not found"}'),
        (400, MEDIA, PROBLEM % ("non-finite", "")),
    ],
)
def test_a_wrong_answer_is_found(status, headers, content):
    with pytest.raises((WrongAnswerError, KeyError)):
        judge(Sent("", "POST", "/v1/tasks"), status, headers, content.encode())


def test_hostile_requests_are_refused_or_answered(tmp_path):
    with serving(models(), tmp_path / "store") as process:
        attacker = attacked(process, 300)
    assert {200, 400, 401, 404, 405, 415, 422} <= {*attacker.statuses}


@pytest.mark.slow
def test_many_hostile_requests_are_refused_or_answered(tmp_path):
    found = run(tmp_path, 2000, seed=1)
    assert sum(found["statuses"].values()) >= 1900
    assert sum(not own for own, _ in found["routes"].values()) <= 1
