"""`status.conditions` when several controllers each keep some of them."""

from dataclasses import dataclass

from onepass.api.meta import JSON, Object
from onepass.registry import lifecycle


@dataclass(frozen=True, slots=True)
class Condition:
    """One of them (meta/v1 Condition). `reason` is a CamelCase word, `message` a sentence for the administrator."""

    type: str
    true: bool
    reason: str
    message: str


def merged(old: JSON, now: float, *new: Condition) -> list[JSON]:
    """The list with `new` in it. lastTransitionTime moves only when a status does."""
    before = {str(each.get("type")): each for each in old if isinstance(each, dict)} if isinstance(old, list) else {}
    kept: dict[str, JSON] = dict(before.items())
    for condition in new:
        kept[condition.type] = _told(condition, before.get(condition.type, {}), now)
    return list(kept.values())


def without(old: JSON, kind: str) -> list[JSON]:
    """The list without the condition of that type."""
    return (
        [each for each in old if isinstance(each, dict) and each.get("type") != kind] if isinstance(old, list) else []
    )


def _told(condition: Condition, before: Object, now: float) -> Object:
    status = "True" if condition.true else "False"
    stamp = lifecycle.timestamp(now)
    return {
        "type": condition.type,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": before.get("lastTransitionTime", stamp) if before.get("status") == status else stamp,
    }
