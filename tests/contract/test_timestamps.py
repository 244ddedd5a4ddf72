"""The format of times in records."""

from datetime import UTC, datetime

from contract.timestamps import utc_now


def test_it_is_utc_with_seconds() -> None:
    text = utc_now()
    parsed = datetime.fromisoformat(text)
    assert parsed.tzinfo == UTC
    assert parsed.microsecond == 0
    assert text.endswith("+00:00")
