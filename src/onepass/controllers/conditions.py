"""`status.conditions` when several controllers each keep some of them."""

from dataclasses import dataclass

from onepass.api.meta import JSON, Object
from onepass.registry import lifecycle

_STATUS = {True: "True", False: "False", None: "Unknown"}


@dataclass(frozen=True, slots=True)
class Condition:
    """One of them (meta/v1 Condition). `true` None is Unknown. `reason` is a CamelCase word, `message` a sentence for
    the administrator; `generation` the one of the object that was looked at, where that matters."""

    type: str
    true: bool | None
    reason: str
    message: str
    generation: int | None = None


def find(conditions: JSON, kind: str) -> Object | None:
    """The condition of that type."""
    listed = conditions if isinstance(conditions, list) else []
    return next((each for each in listed if isinstance(each, dict) and each.get("type") == kind), None)


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
    status = _STATUS[condition.true]
    stamp = lifecycle.timestamp(now)
    told: Object = {
        "type": condition.type,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": before.get("lastTransitionTime", stamp) if before.get("status") == status else stamp,
    }
    return told if condition.generation is None else told | {"observedGeneration": condition.generation}
