"""Spans of time as people type and read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from onepass.cli import durations
from onepass.cli.failure import Failure

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("8h", 28_800), ("1h30m", 5400), ("7d", 604_800), ("2w", 1_209_600), ("1d1s", 86_401)],
)
def test_reads_a_span(text: str, seconds: int) -> None:
    assert durations.parse(text, "--for") == seconds


@pytest.mark.parametrize("text", ["", "8", "h", "-8h", "8 h", "8H", "1.5h", "8h ", "0s", "11w999999w", "٣h", "1y"])
def test_refuses_what_is_no_span_and_says_how_to_write_one(text: str) -> None:
    with pytest.raises(Failure) as caught:
        durations.parse(text, "--for")
    assert repr(text) in caught.value.what
    assert "8h" in caught.value.hint


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (-5, "0s"), (45, "45s"), (60, "1m"), (61, "1m1s"), (28_799, "7h59m"), (86_400, "1d"), (90_061, "1d1h")],
)
def test_shows_the_two_largest_units(seconds: int, text: str) -> None:
    assert durations.show(seconds) == text


def test_a_moment_is_told_with_its_distance() -> None:
    assert durations.clock(NOW + timedelta(hours=8), NOW) == "2026-11-23 20:00 UTC (in 8h)"
    assert durations.clock(NOW - timedelta(days=1), NOW) == "2026-11-22 12:00 UTC (1d ago)"


def test_times_go_out_and_come_in_as_kubernetes_writes_them() -> None:
    local = NOW.astimezone(timezone(timedelta(hours=2)))
    assert durations.rfc3339(local) == "2026-11-23T12:00:00Z"
    assert durations.moment("2026-11-23T12:00:00Z") == NOW
    assert durations.moment("2026-11-23T12:00:00.123456Z") == NOW.replace(microsecond=123456)


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01T00:00:00Z"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert durations.moment(text) is None
