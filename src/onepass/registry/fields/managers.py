"""managedFields: who manages which fields of an object, in and out of the form in which they are stored.

As k8s.io/apimachinery/pkg/util/managedfields/internal has it: an entry is told from others by its manager, operation,
subresource and, for updates, its API version.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Literal

import orjson

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.registry.fields import fieldsets
from onepass.registry.fields.fieldsets import Fields

Operation = Literal["Apply", "Update"]
MOST_UPDATERS = 10  # more are gathered under one name, the oldest first
ANCIENT = "ancient-changes"


@dataclass(frozen=True, slots=True)
class Manager:
    """Whom an entry is about. `api_version` is not part of what tells an applier from others: see `key`."""

    name: str
    operation: Operation
    api_version: str
    subresource: str = ""

    @property
    def key(self) -> str:
        """Unique in an object, and what entries are sorted by where nothing else tells."""
        return _key(self)

    def __str__(self) -> str:
        """As a conflict tells it."""
        told = orjson.dumps(self.name).decode()
        if self.subresource:
            told += f" with subresource {orjson.dumps(self.subresource).decode()}"
        return f"{told} using {self.api_version}" if self.operation == "Update" else told


@lru_cache(4096)
def _key(manager: Manager) -> str:
    told: Object = {"manager": manager.name, "operation": manager.operation}
    if manager.operation == "Update":
        told["apiVersion"] = manager.api_version
    told["subresource"] = manager.subresource
    return orjson.dumps({k: v for k, v in told.items() if v}).decode()


@dataclass(frozen=True, slots=True)
class Entry:
    """The fields of one manager, and when it last changed one of them ("" when that is not known)."""

    manager: Manager
    fields: Fields
    time: str = ""


Managers = Mapping[str, Entry]  # by Manager.key


_MOST = 256  # entries that a client may send: putting twenty thousand together takes minutes, in which nobody is served


def decoded(value: JSON) -> Managers | None:
    """What was sent for metadata.managedFields; None when it makes no sense, or is more than anybody means."""
    found: dict[str, Entry] = {}
    if isinstance(value, list) and len(value) > _MOST:
        return None
    for item in value if isinstance(value, list) else []:
        entry = _decoded(item) if isinstance(item, dict) else None
        if entry is None:
            return None
        found[entry.manager.key] = entry
    return found


def trusted(value: JSON) -> Managers:
    """As `decoded`, for what this server has stored itself: the sets are taken as they are."""
    found: dict[str, Entry] = {}
    for item in value if isinstance(value, list) else []:
        assert isinstance(item, dict)
        entry = Entry(_manager(item), meta.section(item, "fieldsV1"), meta.text(item, "time"))
        found[entry.manager.key] = entry
    return found


def _manager(item: Object) -> Manager:
    operation: Operation = "Apply" if item.get("operation") == "Apply" else "Update"
    texts = (meta.text(item, key) for key in ("manager", "apiVersion", "subresource"))
    name, version, subresource = texts
    return Manager(name, operation, version, subresource)


def _decoded(item: Object) -> Entry | None:
    texts = ("manager", "operation", "apiVersion", "time", "fieldsType", "subresource")
    if any(not isinstance(item.get(key) or "", str) for key in texts):
        return None
    if item.get("operation") not in ("Apply", "Update") or not item.get("apiVersion"):
        return None
    if item.get("fieldsType") != "FieldsV1":
        return None
    time = meta.text(item, "time")
    try:
        if time:
            datetime.fromisoformat(time)
        return Entry(_manager(item), fieldsets.parse(item.get("fieldsV1") or {}), time)
    except (ValueError, RecursionError):
        return None


def resets(value: JSON) -> bool:
    """Whether a client asks to forget all managers: by an empty list, or a list of one empty entry."""
    return value in ([], [{}])


def encoded(managers: Managers) -> list[JSON]:
    """What to store, in the order of a real server: appliers first, each kind by time."""
    entries = sorted(managers.values(), key=_place)
    return [_encoded(entry) for entry in entries]


def _place(entry: Entry) -> tuple[str, str, str, str, str]:
    manager = entry.manager
    return manager.operation, entry.time, manager.name, manager.api_version, manager.subresource


def _encoded(entry: Entry) -> Object:
    told: Object = {
        "manager": entry.manager.name,
        "operation": entry.manager.operation,
        "apiVersion": entry.manager.api_version,
        "time": entry.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": entry.fields,
        "subresource": entry.manager.subresource,
    }
    return {key: value for key, value in told.items() if value or key == "fieldsV1"}


def capped(managers: Managers) -> Managers:
    """With at most MOST_UPDATERS entries of updates, so that no object grows with every client that touches it."""
    updaters = [entry for entry in managers.values() if entry.manager.operation == "Update"]
    spare = len(updaters) - MOST_UPDATERS
    if spare <= 0:
        return managers
    out = dict(managers)
    first: dict[str, Entry] = {}
    for entry in sorted(updaters, key=lambda entry: (entry.time, entry.manager.key)):
        if spare <= 0:
            break
        version = entry.manager.api_version
        bucket = Manager(ANCIENT, "Update", version)
        if version not in first:
            first[version] = entry
            continue
        if bucket.key not in out:
            oldest = out.pop(first[version].manager.key)
            out[bucket.key] = replace(oldest, manager=bucket)
        gathered = fieldsets.union(entry.fields, out[bucket.key].fields)
        del out[entry.manager.key]
        out[bucket.key] = Entry(bucket, gathered, entry.time)
        spare -= 1
    return out


def timeless(value: JSON) -> JSON:
    """managedFields without their times, to tell whether anything else has changed."""
    if not isinstance(value, list):
        return value
    return [{k: v for k, v in item.items() if k != "time"} if isinstance(item, dict) else item for item in value]
