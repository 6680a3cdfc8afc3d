"""Metrics and the log show how the server does, and nothing of whom it does it for."""

import json
import logging

import pytest
from apps import caller

from handful.serving.service import Service
from serving.worlds import classifier, points


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    with Service({"points": classifier()}, tmp_path_factory.mktemp("store")) as service:
        yield caller(service)


def series(call):
    return {line.rpartition(" ")[0] for line in call("GET", "/metrics").text.splitlines() if not line.startswith("#")}


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_strange_paths_and_methods_add_no_series(call, count):
    call("GET", "/v1/x")
    call("BREW", "/v1/x")
    series(call)
    before = series(call)
    for number in range(count):
        call("GET" if number % 2 else f"BREW{number}", f"/v1/tasks{number}/{number}")
    assert series(call) == before
    assert any('route="unmatched"' in one for one in before)


def test_requests_and_batches_are_counted_without_names(call):
    secret = "MARKER-7f3a"
    content = {"name": secret, "examples": [{"input": p, "label": f"{secret}{n}"} for n, p in enumerate(points(0, 1))]}
    task = call("POST", "/v1/tasks", json=content).json()["id"]
    call("POST", f"/v1/tasks/{task}/predict", json={"inputs": points(2, 3, 4)})
    text = call("GET", "/metrics").text
    assert 'handful_requests_total{method="POST",route="/v1/tasks/{task}/predict",status="200"} 1.0' in text
    assert 'handful_rows_total{lane="predict"} 3.0' in text
    assert 'handful_batch_requests_count{lane="predict"} 1.0' in text
    assert secret not in text
    assert task not in text


def test_the_log_has_a_line_for_each_request_without_what_was_sent(call, caplog):
    caplog.set_level("INFO", "handful.http")
    secret = "MARKER-7f3a"
    call("POST", f"/v1/tasks?x={secret}", json={"name": secret}, headers={"X-Request-Id": "one"})
    call("GET", f"/v1/{secret}", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    first, second = lines = [json.loads(record.message) for record in caplog.records]
    assert [record.message for record in caplog.records] == [json.dumps(one, separators=(",", ":")) for one in lines]
    assert (first["request"], first["route"], first["status"]) == ("one", "/v1/tasks", 422)
    assert first["key"].startswith("key_")
    assert (second["route"], second["status"], second["trace"]) == ("unmatched", 404, "a" * 32)
    assert secret not in caplog.text


def test_a_program_that_wants_fewer_lines_has_none_for_a_request(call, caplog):
    log = logging.getLogger("handful.http")
    before = log.level
    log.setLevel(logging.WARNING)  # of the logger alone: that of caplog's handler would hide a line that is there
    try:
        call("GET", "/livez", key="")
    finally:
        log.setLevel(before)
    assert not caplog.records


def test_health_needs_no_key(call):
    for path in ("/livez", "/readyz", "/metrics"):
        assert call("GET", path, key="").status_code == 200


def test_a_server_that_ends_is_not_ready_but_lives(call):
    call.app.state.ready = False
    try:
        assert call("GET", "/readyz").status_code == 503
        assert call("GET", "/livez").status_code == 200
    finally:
        call.app.state.ready = True


def test_a_server_whose_work_hangs_does_not_live(call, monkeypatch):
    monkeypatch.setattr("handful.serving.pools.Pool.busy_for", 1e9)
    assert call("GET", "/livez").status_code == 503


def test_states_adapting_commits_and_the_log_are_measured(call):
    content = {"name": "measured", "examples": [{"input": p, "label": str(n)} for n, p in enumerate(points(0, 1))]}
    task = call("POST", "/v1/tasks", json=content).json()["id"]
    call("POST", f"/v1/tasks/{task}/predict", json={"inputs": points(2)})
    lines = [line.split() for line in call("GET", "/metrics").text.splitlines() if not line.startswith("#")]
    found = {line[0]: float(line[1]) for line in lines if len(line) == 2}
    for name in ("state_hits_total", "state_bytes", "states", "adapt_seconds_total", "commits_total", "wal_bytes"):
        assert found[f"handful_{name}"] > 0, name
    assert 0 < found["handful_commit_seconds_total"] < 60
    assert (found["handful_state_misses_total"], found["handful_state_evictions_total"]) == (0, 0)


def test_refusals_and_all_threads_are_shown(call, monkeypatch):
    call.app.state.server.batcher.lanes["predict"].seen.refused += 2
    monkeypatch.setattr("handful.serving.pools.Pool.busy_for", 7.0)
    text = call("GET", "/metrics").text
    assert 'handful_refusals_total{lane="predict",why="refused"} 2.0' in text
    assert 'handful_waiting_requests{lane="predict"} 0.0' in text
    for name in ("predict", "adapt", "look", "check"):
        assert f'handful_busy_seconds{{lane="{name}"}} 7.0' in text


def test_a_server_whose_looks_hang_does_not_live(call, monkeypatch):
    monkeypatch.setattr(call.app.state.server.batcher._pools["look"], "_since", {1: -1e9})
    assert call("GET", "/livez").status_code == 503
