"""Ages, and rows."""

import pytest

from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.apiserver import printers

MINUTE, HOUR, DAY = 60, 3600, 86400
YEAR = 365 * DAY


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        # k8s.io/apimachinery/pkg/util/duration
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (1.9, "1s"),
        (119, "119s"),
        (2 * MINUTE, "2m"),
        (2 * MINUTE + 5, "2m5s"),
        (9 * MINUTE + 59, "9m59s"),
        (10 * MINUTE + 59, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (3 * HOUR + 7 * MINUTE + 59, "3h7m"),
        (8 * HOUR + 59 * MINUTE, "8h"),
        (48 * HOUR - 1, "47h"),
        (2 * DAY, "2d"),
        (2 * DAY + 5 * HOUR, "2d5h"),
        (8 * DAY + 5 * HOUR, "8d"),
        (2 * YEAR - 1, "729d"),
        (2 * YEAR, "2y"),
        (2 * YEAR + 3 * DAY, "2y3d"),
        (8 * YEAR + 3 * DAY, "8y"),
    ],
)
def test_durations_are_told_in_two_units_at_most(seconds: float, told: str) -> None:
    assert printers.human_duration(seconds) == told


@pytest.mark.parametrize(
    ("created", "told"), [("2026-01-31T12:00:00Z", "5m"), ("", "<unknown>"), ("yesterday", "<unknown>")]
)
def test_an_age_is_told_from_the_creation(created: str, told: str) -> None:
    obj: Object = {"metadata": {"creationTimestamp": created}}
    assert printers.age(obj, 1769860800.0 + 5 * MINUTE) == told


def test_only_three_things_can_be_included() -> None:
    assert [printers.check_include(value) for value in ("", "None", "Object")] == ["Metadata", "None", "Object"]
    with pytest.raises(ApiError):
        printers.check_include("Everything")
