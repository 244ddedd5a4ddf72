"""The metrics of the service in the exposition format of Prometheus.

Names and units follow https://prometheus.io/docs/practices/naming/. The counts are those of all
replicas since the deployment, so any replica may be scraped.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from inference.serving.schemas import ReplicaInfo
from inference.serving.stats import RequestStats

METRICS_CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class MetricsSnapshot:
    """What is exposed: the sum over all replicas, and the replicas with a recent heartbeat."""

    reference: str
    """serve.model."""
    total: RequestStats
    replicas: Sequence[ReplicaInfo]
    requests_in_flight: int


def render_metrics(snapshot: MetricsSnapshot) -> bytes:
    """The snapshot as text, version 0.0.4 of the format."""
    registry = CollectorRegistry()
    registry.register(_Collector(snapshot))
    return generate_latest(registry)


@final
class _Collector:
    """The interface of prometheus_client for values that are counted elsewhere."""

    def __init__(self, snapshot: MetricsSnapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        snapshot = self._snapshot
        requests = CounterMetricFamily(
            "segfleet_requests", "Requests for segmentation by HTTP status.", labels=["status"]
        )
        for status, count in sorted(snapshot.total.by_status.items()):
            requests.add_metric([str(status)], count)
        yield requests
        yield _latency_histogram(snapshot.total)
        yield GaugeMetricFamily(
            "segfleet_requests_in_flight",
            "Requests that are queued or running.",
            value=snapshot.requests_in_flight,
        )
        replicas = GaugeMetricFamily(
            "segfleet_replicas",
            "Replicas that respond, by the version that they serve.",
            labels=["model", "version"],
        )
        versions = [replica.version for replica in snapshot.replicas]
        for version in sorted(set(versions)):
            replicas.add_metric([snapshot.reference, str(version)], versions.count(version))
        yield replicas
        yield GaugeMetricFamily(
            "segfleet_model_load_error",
            "1 if a replica cannot serve the version that the registry names, else 0.",
            value=float(any(replica.load_error for replica in snapshot.replicas)),
        )


def _latency_histogram(stats: RequestStats) -> HistogramMetricFamily:
    count = stats.latencies.total()
    buckets = [(str(limit), stats.count_within(limit)) for limit in _BUCKETS_S]
    return HistogramMetricFamily(
        "segfleet_request_duration_seconds",
        "Seconds from the arrival of a request at a replica to its response, if it succeeded.",
        buckets=[*buckets, ("+Inf", count)],
        sum_value=stats.latency_sum_s,
    )
