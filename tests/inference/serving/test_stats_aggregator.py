"""The sums of the statistics of all replicas."""

import asyncio
import time

import pytest

from inference.serving import stats_aggregator
from inference.serving.schemas import ReplicaInfo
from inference.serving.stats import RequestStats
from inference.serving.stats_aggregator import STALE_AFTER_S, Heartbeat, StatsAggregator

INFO = ReplicaInfo(version=1, load_error=None)


def stats_of(*seconds: float) -> RequestStats:
    stats = RequestStats()
    for value in seconds:
        stats.record(200, value)
    return stats


def test_a_heartbeat_replaces_the_previous_one_of_its_replica() -> None:
    async def run() -> None:
        aggregator = StatsAggregator("bright@production")
        assert (await aggregator.status()).latency_s is None
        for replica, stats in (("a", stats_of(0.1)), ("a", stats_of(0.1, 0.2)), ("b", stats_of(9))):
            await aggregator.record_heartbeat(Heartbeat(replica, INFO, stats))
        status = await aggregator.status()
        assert (status.requests, status.rejected, status.errors) == (3, 0, 0)
        assert len(status.replicas) == 2
        assert status.latency_s
        assert status.latency_s.p50 < 1 < status.latency_s.p99

    asyncio.run(run())


def test_a_replica_without_heartbeats_is_not_listed_but_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        aggregator = StatsAggregator("bright@production")
        await aggregator.record_heartbeat(Heartbeat("a", INFO, stats_of(0.1)))
        later = time.monotonic() + STALE_AFTER_S + 1
        monkeypatch.setattr(stats_aggregator.time, "monotonic", lambda: later)
        await aggregator.record_heartbeat(Heartbeat("b", INFO, stats_of(0.1)))
        status = await aggregator.status()
        assert (status.requests, len(status.replicas)) == (2, 1)

    asyncio.run(run())
