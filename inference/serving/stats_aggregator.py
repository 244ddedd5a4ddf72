"""Sums the request statistics of all replicas; a Ray Serve deployment."""

import time
from dataclasses import dataclass
from typing import final

from inference.serving.prometheus import MetricsSnapshot
from inference.serving.schemas import Latency, ReplicaInfo, ServiceStatus
from inference.serving.stats import RequestStats

STALE_AFTER_S = 10.0


@dataclass(frozen=True)
class Heartbeat:
    """What a replica reports about itself."""

    replica: str
    info: ReplicaInfo
    stats: RequestStats
    requests_in_flight: int = 0


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
        total = self._total()
        return ServiceStatus(
            reference=self._reference,
            replicas=[beat.info for beat in self._recent()],
            requests=total.requests,
            rejected=total.rejected,
            errors=total.errors,
            latency_s=_latency_percentiles(total),
        )

    async def metrics(self) -> MetricsSnapshot:
        """The sums and the recent replicas, for Prometheus."""
        recent = self._recent()
        return MetricsSnapshot(
            self._reference,
            self._total(),
            [beat.info for beat in recent],
            sum(beat.requests_in_flight for beat in recent),
        )

    def _total(self) -> RequestStats:
        return sum((beat.stats for _, beat in self._heartbeats.values()), RequestStats())

    def _recent(self) -> list[Heartbeat]:
        now = time.monotonic()
        return [beat for seen, beat in self._heartbeats.values() if now - seen < STALE_AFTER_S]


def _latency_percentiles(stats: RequestStats) -> Latency | None:
    p50, p90, p99 = (stats.percentile(fraction) for fraction in (0.5, 0.9, 0.99))
    if p50 is None or p90 is None or p99 is None:
        return None
    return Latency(p50=p50, p90=p90, p99=p99)
