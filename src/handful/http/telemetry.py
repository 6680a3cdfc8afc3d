"""What the server counts and measures, for Prometheus: by route templates, without tenants, tasks or paths."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from handful.http.calls import Server
from handful.serving.states import States
from handful.serving.store import Store

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
"""All others are one: strangers make up names."""
COUNTS = {
    "hits": "Predictions whose state was in memory.",
    "misses": "Predictions whose state was loaded.",
    "evictions": "States that were dropped for others.",
    "evicted_seconds": "Seconds for which states that were dropped had been in memory.",
}


class Telemetry:
    """The metrics of one application.

    server: whose queues are looked at whenever the metrics are asked for.
    """

    def __init__(self, server: Server) -> None:
        self._registry = CollectorRegistry()
        labels = "method", "route", "status"
        self._requests = Counter("handful_requests", "Requests by status.", labels, registry=self._registry)
        self._seconds = Histogram(
            "handful_request_seconds",
            "Seconds from a request's head to the end of its response.",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._registry.register(_Queues(server))
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """A finished request.

        route: its template.
        status: 0 without a response.
        """
        kind = method if method in METHODS else "other", route, status
        if kind not in self._counted:  # looking them up takes longer than counting
            requests = self._requests.labels(kind[0], route, str(status))
            self._counted[kind] = requests, self._seconds.labels(route)
        requests, took = self._counted[kind]
        requests.inc()
        took.observe(seconds)

    def page(self) -> bytes:
        """All metrics in the text form of Prometheus."""
        return generate_latest(self._registry)


class _Queues(Collector):
    """What waits, ran and was refused."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        lanes = self._server.batcher.lanes.items()
        waiting = GaugeMetricFamily("handful_waiting_rows", "Rows that wait.", labels=["lane"])
        requests = GaugeMetricFamily("handful_waiting_requests", "Requests that wait.", labels=["lane"])
        busy = GaugeMetricFamily("handful_busy_seconds", "For which the oldest work has run.", labels=["lane"])
        rows = CounterMetricFamily("handful_rows", "Rows that were processed.", labels=["lane"])
        work = CounterMetricFamily("handful_work_seconds", "Seconds of threads.", labels=["lane"])
        refused = CounterMetricFamily(
            "handful_refusals", "Requests that were refused, expired, or left by their client.", labels=["lane", "why"]
        )
        sizes = HistogramMetricFamily("handful_batch_requests", "Requests of one batch.", labels=["lane"])
        for name, lane in lanes:
            seen = lane.seen
            waiting.add_metric([name], lane.waiting.rows)
            requests.add_metric([name], lane.waiting.count)
            rows.add_metric([name], seen.rows)
            work.add_metric([name], seen.seconds)
            sizes.add_metric([name], *_buckets(dict(seen.sizes)))
            for why in ("refused", "expired", "left"):
                refused.add_metric([name, why], getattr(seen, why))
        for name, seconds in self._server.busy_for.items():
            busy.add_metric([name], seconds)
        yield from (waiting, requests, busy, rows, work, refused, sizes)
        encoding = CounterMetricFamily("handful_encode_seconds", "Seconds of threads that made tensors of inputs.")
        encoding.add_metric([], self._server.service.predictor.encode_seconds)
        yield encoding
        yield from _of_states(self._server.service.states)
        yield from _of_store(self._server.service.store)


def _of_states(states: States) -> Iterator[Metric]:
    """What is in memory of all models together."""
    banks = states.banks
    yield CounterMetricFamily("handful_adapt_seconds", "Seconds of threads that adapted.", states.adapt_seconds)
    yield GaugeMetricFamily("handful_states", "States in memory.", sum(map(len, banks)))
    yield GaugeMetricFamily("handful_state_bytes", "Bytes of states in memory.", sum(bank.nbytes for bank in banks))
    for name, text in COUNTS.items():
        yield CounterMetricFamily(f"handful_state_{name}", text, sum(getattr(bank.counts, name) for bank in banks))


def _of_store(store: Store) -> Iterator[Metric]:
    """What the store says of itself."""
    seen = store.measured
    yield CounterMetricFamily("handful_commits", "Transactions that were committed.", seen.commits)
    yield CounterMetricFamily("handful_commit_seconds", "Seconds that commits took.", seen.commit_seconds)
    if seen.log_bytes is not None:
        yield GaugeMetricFamily("handful_wal_bytes", "Bytes of the write-ahead log.", seen.log_bytes)


def _buckets(counts: dict[int, int]) -> tuple[list[tuple[str, float]], float]:
    """How many values are at most each size, and the sum of all values.

    counts: of each value.
    """
    bounds = [(str(float(most)), float(sum(n for size, n in counts.items() if size <= most))) for most in SIZES]
    return [*bounds, ("+Inf", float(sum(counts.values())))], float(sum(size * n for size, n in counts.items()))
