"""Ages as `kubectl get` shows them (k8s.io/apimachinery/pkg/util/duration)."""

from datetime import datetime

from onepass.api import meta
from onepass.api.meta import Object
from onepass.registry.strategy import Column

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_YEAR = 365 * _DAY


def human_duration(seconds: float) -> str:
    """A duration in at most two units."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 2 * _MINUTE:
        return f"{max(whole, 0)}s"
    for limit, unit, unit_name, rest, rest_name in (
        (10 * _MINUTE, _MINUTE, "m", 1, "s"),
        (3 * _HOUR, _MINUTE, "m", 0, ""),
        (8 * _HOUR, _HOUR, "h", _MINUTE, "m"),
        (2 * _DAY, _HOUR, "h", 0, ""),
        (8 * _DAY, _DAY, "d", _HOUR, "h"),
        (2 * _YEAR, _DAY, "d", 0, ""),
        (8 * _YEAR, _YEAR, "y", _DAY, "d"),
    ):
        if whole < limit:
            left = whole % unit // rest if rest else 0
            return f"{whole // unit}{unit_name}" + (f"{left}{rest_name}" if left else "")
    return f"{whole // _YEAR}y"


def since(moment: str, now: float) -> str:
    """How long ago a time was, as objects have times; "<unknown>" for none."""
    try:
        return human_duration(now - datetime.fromisoformat(moment).timestamp())
    except ValueError:
        return "<unknown>"


def age(obj: Object, now: float) -> str:
    """How long ago the object was created."""
    return since(meta.text(meta.section(obj, "metadata"), "creationTimestamp"), now)


AGE = Column("Age", age, description="How long ago the object was created.")
