"""Sums the request statistics of all replicas; a Ray Serve deployment."""

import time
from dataclasses import dataclass
from typing import final

from inference.serving.schemas import Latency, ReplicaInfo, ServiceStatus
from inference.serving.stats import RequestStats

STALE_AFTER_S = 10.0


@dataclass(frozen=True)
class Heartbeat:
    """What a replica reports about itself."""

    replica: str
    info: ReplicaInfo
    stats: RequestStats


@final
class StatsAggregator:
    """Sums the statistics of the replicas; replicas that have ended still count."""

    def __init__(self, reference: str) -> None:
        """reference: serve.model."""
        self._reference = reference
        self._heartbeats: dict[str, tuple[float, Heartbeat]] = {}

    async def record_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Record the statistics of a replica since it started."""
        self._heartbeats[heartbeat.replica] = time.monotonic(), heartbeat

    async def status(self) -> ServiceStatus:
        """The sums, and the replicas with a recent heartbeat."""
        total = sum((beat.stats for _, beat in self._heartbeats.values()), RequestStats())
        now = time.monotonic()
        return ServiceStatus(
            reference=self._reference,
            replicas=[
                beat.info
                for last_seen, beat in self._heartbeats.values()
                if now - last_seen < STALE_AFTER_S
            ],
            requests=total.requests,
            rejected=total.rejected,
            errors=total.errors,
            latency_s=_latency(total),
        )


def _latency(stats: RequestStats) -> Latency | None:
    p50, p90, p99 = (stats.percentile(fraction) for fraction in (0.5, 0.9, 0.99))
    if p50 is None or p90 is None or p99 is None:
        return None
    return Latency(p50=p50, p90=p90, p99=p99)
