"""The sums of all replicas' statistics."""

import asyncio

from inference.serving.schemas import ReplicaInfo
from inference.serving.stats import RequestStats
from inference.serving.stats_aggregator import Heartbeat, StatsAggregator


def stats_of(*seconds: float) -> RequestStats:
    stats = RequestStats()
    for value in seconds:
        stats.record(200, value)
    return stats


def test_a_later_heartbeat_replaces_the_earlier_and_replicas_are_added() -> None:
    async def run() -> None:
        aggregator = StatsAggregator("bright@production")
        assert (await aggregator.status()).latency_s is None
        info = ReplicaInfo(version=1, load_error=None)
        for replica, stats in (("a", stats_of(0.1)), ("a", stats_of(0.1, 0.2)), ("b", stats_of(9))):
            await aggregator.record_heartbeat(Heartbeat(replica, info, stats))
        status = await aggregator.status()
        assert (status.requests, status.rejected, status.errors) == (3, 0, 0)
        assert len(status.replicas) == 2
        assert status.latency_s
        assert status.latency_s.p50 < 1 < status.latency_s.p99

    asyncio.run(run())
