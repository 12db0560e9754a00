"""Spans of time as people type and read them: `90s`, `30m`, `8h`, `1h30m`, `7d`, `2w`."""

import re
from datetime import UTC, datetime

from onepass.cli.failure import Failure

_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SPAN = re.compile(r"(?:\d{1,6}[wdhms])+", re.ASCII)
_LONGEST = 10 * 366 * _UNITS["d"]


def parse(text: str, option: str) -> int:
    """Seconds, from 1 to ten years, as given to `option`. Raises Failure."""
    if not _SPAN.fullmatch(text):
        raise Failure(f"{option}: {text!r} is not a span of time", "write it as 30m, 8h, 1h30m or 7d")
    seconds = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([wdhms])", text))
    if not 0 < seconds <= _LONGEST:
        raise Failure(f"{option}: {text!r} is not between one second and ten years", "write it as 30m, 8h, 1h30m or 7d")
    return seconds


def show(seconds: float) -> str:
    """The two largest units, rounded down: `7h59m`, `3d`, `45s`; `0s` for anything shorter or negative."""
    rest = max(0, int(seconds))
    parts: list[str] = []
    for unit in "dhms":
        count, rest = divmod(rest, _UNITS[unit])
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
        if len(parts) == 2:
            break
    return "".join(parts) or "0s"


def moment(text: str) -> datetime | None:
    """An RFC 3339 time as Kubernetes writes it; None when there is none or it cannot be read."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def rfc3339(at: datetime) -> str:
    """As `meta/v1 Time` is written: UTC, whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(at: datetime, now: datetime) -> str:
    """`2026-11-23 17:04 UTC (in 8h)` or `... (8h ago)`."""
    away = (at - now).total_seconds()
    told = f"in {show(away)}" if away >= 0 else f"{show(-away)} ago"
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC ({told})"
