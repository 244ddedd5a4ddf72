"""The format of times in records, manifests and reports."""

from datetime import UTC, datetime


def utc_now() -> str:
    """The current time in UTC as ISO 8601 with seconds: 2026-01-31T12:34:56+00:00."""
    return datetime.now(UTC).isoformat(timespec="seconds")
