"""The metrics of the service, as Prometheus reads them."""

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from inference.serving.prometheus import METRICS_CONTENT_TYPE, MetricsSnapshot, render_metrics
from inference.serving.schemas import ReplicaInfo
from inference.serving.stats import RequestStats

MODEL = "bright@production"


def render(
    total: RequestStats, *replicas: ReplicaInfo, requests_in_flight: int = 0
) -> dict[str, Metric]:
    """The metric families of a snapshot by name, parsed from their text."""
    text = render_metrics(MetricsSnapshot(MODEL, total, replicas, requests_in_flight)).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def replica(version: int, load_error: str | None = None) -> ReplicaInfo:
    return ReplicaInfo(version=version, load_error=load_error)


def test_requests_are_counted_by_status() -> None:
    stats = RequestStats()
    for status in (200, 200, 503, None):
        stats.record(status, 0.1)
    requests = render(stats)["segfleet_requests"]
    assert requests.type == "counter"
    assert [(sample.labels, sample.value) for sample in requests.samples] == [
        ({"status": "200"}, 2.0),
        ({"status": "499"}, 1.0),
        ({"status": "503"}, 1.0),
    ]


def test_the_histogram_counts_the_latencies_up_to_each_limit() -> None:
    stats = RequestStats()
    for seconds in (0.003, 0.04, 0.04, 20.0):
        stats.record(200, seconds)
    stats.record(500, 1.0)
    histogram = render(stats)["segfleet_request_duration_seconds"]
    assert histogram.type == "histogram"
    buckets = {
        sample.labels["le"]: sample.value for sample in histogram.samples if "le" in sample.labels
    }
    assert (buckets["0.005"], buckets["0.025"], buckets["0.05"]) == (1.0, 1.0, 3.0)
    assert (buckets["10.0"], buckets["+Inf"]) == (3.0, 4.0)
    assert list(buckets.values()) == sorted(buckets.values())
    others = {sample.name: sample.value for sample in histogram.samples if not sample.labels}
    assert others["segfleet_request_duration_seconds_count"] == 4.0
    assert others["segfleet_request_duration_seconds_sum"] == pytest.approx(20.083)


def test_replicas_are_counted_by_the_version_that_they_serve() -> None:
    families = render(RequestStats(), replica(2), replica(1), replica(2), requests_in_flight=7)
    assert [(sample.labels, sample.value) for sample in families["segfleet_replicas"].samples] == [
        ({"model": MODEL, "version": "1"}, 1.0),
        ({"model": MODEL, "version": "2"}, 2.0),
    ]
    assert families["segfleet_requests_in_flight"].samples[0].value == 7.0


@pytest.mark.parametrize(("load_error", "value"), [(None, 0.0), ("weights.npz is damaged", 1.0)])
def test_one_replica_that_cannot_load_its_model_is_an_error(
    load_error: str | None, value: float
) -> None:
    families = render(RequestStats(), replica(1), replica(1, load_error))
    assert families["segfleet_model_load_error"].samples[0].value == value


def test_a_new_service_has_no_requests_and_no_latencies() -> None:
    families = render(RequestStats())
    assert families["segfleet_requests"].samples == []
    assert {sample.value for sample in families["segfleet_request_duration_seconds"].samples} == {
        0.0
    }


def test_the_content_type_names_the_version_of_the_format() -> None:
    assert METRICS_CONTENT_TYPE.startswith("text/plain; version=0.0.4")
