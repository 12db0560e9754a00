"""Values under a type: which fields they have, what differs between two, and how one is laid over another.

The semantics are those of sigs.k8s.io/structured-merge-diff/v6/typed. `ABSENT` is a value that is not there, which is
not the same as null. No function alters its arguments; results share parts with them.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import orjson

from onepass.api.meta import JSON, Object
from onepass.registry.fields import fieldsets
from onepass.registry.fields.fieldsets import Fields, Path
from onepass.registry.fields.fieldtypes import FieldType, Shape


class _Absence(Enum):
    ABSENT = "absent"


ABSENT: Literal[_Absence.ABSENT] = _Absence.ABSENT
Value = JSON | Literal[_Absence.ABSENT]


class Unkeyed(ValueError):
    """An element of a list that cannot be told from others; the message says why, without the value."""


@dataclass(slots=True)
class Changes:
    """The fields that differ between two values, each in one of three sets."""

    removed: Fields = field(default_factory=dict)
    modified: Fields = field(default_factory=dict)
    added: Fields = field(default_factory=dict)


def same(one: JSON, other: JSON) -> bool:
    """Equality as JSON has it: true is not 1, while 1.0 is."""
    if one is other:
        return True
    if one != other:  # Python's own comparison is fast, and errs only towards equality
        return False
    if not isinstance(one, (dict, list)):
        return isinstance(one, bool) == isinstance(other, bool)
    return _told(one) == _told(other) or _alike(one, other)


def _told(value: JSON) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _alike(one: JSON, other: JSON) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return all(same(value, other[key]) for key, value in one.items())
    return isinstance(one, list) and isinstance(other, list) and all(map(same, one, other))


def step_of(kind: FieldType, item: JSON) -> str:
    """The step to an element of a list that is keyed or a set. Raises Unkeyed."""
    if not kind.keys:
        if item is None:
            raise Unkeyed("associative list without keys has an element that's an explicit null")
        if isinstance(item, dict):
            raise Unkeyed("associative list without keys has an element that's a map type")
        if isinstance(item, list):
            raise Unkeyed("not supported: associative list with lists as elements")
        return fieldsets.valued(item)
    if item is None:
        raise Unkeyed("associative list with keys may not have a null element")
    if not isinstance(item, dict):
        raise Unkeyed("associative list with keys may not have non-map elements")
    found: Object = {}
    for key in kind.keys:
        value = item[key] if key in item else kind.items.field(key).default
        if key in item or value is not None:
            found[key] = value
    if not found:
        named = " ".join(f'"{key}"' for key in kind.keys)
        told = f"associative list with keys has an element that omits all key fields [{named}]"
        raise Unkeyed(f"{told} (and doesn't have default values for any key fields)")
    return fieldsets.keyed(found)


def field_set(kind: FieldType, value: JSON) -> Fields:
    """Every field that a value has. Raises Unkeyed."""
    found: Fields = {}
    _collect(kind, value, (), found)
    return found


def _collect(kind: FieldType, value: JSON, path: Path, found: Fields) -> None:
    shape = kind.shape(value)
    if shape == "scalar" or (kind.atomic_map if shape == "map" else kind.atomic_list):
        if path:
            fieldsets.insert(found, path)
    elif shape == "map":
        for key, below in value.items() if isinstance(value, dict) else ():
            here = (*path, fieldsets.field(key))
            _collect(kind.field(key), below, here, found)
            if below is None or below == {} or key not in kind.fields:
                fieldsets.insert(found, here)
    else:
        _collect_items(kind, value if isinstance(value, list) else [], path, found)


def _collect_items(kind: FieldType, items: list[JSON], path: Path, found: Fields) -> None:
    steps = [step_of(kind, item) for item in items]
    counts = Counter(steps)
    for step, item in zip(steps, items, strict=True):
        if counts[step] == 1:
            _collect(kind.items, item, (*path, step), found)
        fieldsets.insert(found, (*path, step))


def compare(kind: FieldType, before: Value, after: Value) -> Changes:
    """What differs. Lists may hold an element twice, which then counts as one field. Raises Unkeyed."""
    changes = Changes()
    _compare(kind, before, after, (), changes)
    return changes


def _shapes(kind: FieldType, before: Value, after: Value) -> tuple[Shape, ...]:
    """As what two values are looked at: each its own where the type leaves it to the value."""
    if after is ABSENT:
        return (kind.shape(before),)
    if before is ABSENT or kind.single:
        return (kind.shape(after),)
    shapes = (kind.shape(before), kind.shape(after))
    settled = (before is None) == (after is None)
    return shapes[1:] if shapes[0] == shapes[1] and settled else shapes


def _compare(kind: FieldType, before: Value, after: Value, path: Path, changes: Changes) -> None:
    if before is not ABSENT and after is not ABSENT and same(before, after):
        return
    leaf = False
    for shape in _shapes(kind, before, after):
        leaf = _compared_as(shape, kind, before, after, path, changes)
    if not leaf and path:
        if before is ABSENT:
            fieldsets.insert(changes.added, path)
        elif after is ABSENT:
            fieldsets.insert(changes.removed, path)


def _compared_as(shape: Shape, kind: FieldType, before: Value, after: Value, path: Path, changes: Changes) -> bool:
    """Whether the value is a leaf, and as such told."""
    if shape == "map":
        one = before if isinstance(before, dict) else {}
        two = after if isinstance(after, dict) else {}
        if not kind.atomic_map and (one or two):
            for key in one | two:
                was, now = one.get(key, ABSENT), two.get(key, ABSENT)
                if type(was) is not str or was != now:  # most fields are texts that stay as they are
                    _compare(kind.field(key), was, now, (*path, fieldsets.field(key)), changes)
            return False
    elif shape == "list":
        items = before if isinstance(before, list) else []
        others = after if isinstance(after, list) else []
        if not kind.atomic_list and (items or others):
            _compare_items(kind, items, others, path, changes)
            return False
    if path:
        kept = changes.added if before is ABSENT else changes.removed if after is ABSENT else changes.modified
        if before is ABSENT or after is ABSENT or not same(before, after):
            fieldsets.insert(kept, path)
    return True


def _by_step(kind: FieldType, items: list[JSON]) -> dict[str, list[JSON]]:
    found: dict[str, list[JSON]] = {}
    for item in items:
        found.setdefault(step_of(kind, item), []).append(item)
    return found


def _compare_items(kind: FieldType, was: list[JSON], now: list[JSON], path: Path, changes: Changes) -> None:
    before, after = _by_step(kind, was), _by_step(kind, now)
    for step in before | after:
        one, two, here = before.get(step, []), after.get(step, []), (*path, step)
        if len(one) <= 1 and len(two) <= 1:
            _compare(kind.items, one[0] if one else ABSENT, two[0] if two else ABSENT, here, changes)
        elif len(one) > 1 and len(two) > 1:
            if not same(one, two):
                fieldsets.insert(changes.modified, here)
        elif len(one) > 1:
            if two:
                _compare(kind.items, ABSENT, two[0], here, changes)
            fieldsets.insert(changes.removed, here)
        else:
            if one:
                _compare(kind.items, one[0], ABSENT, here, changes)
            fieldsets.insert(changes.added, here)


def merge(kind: FieldType, base: Value, over: Value) -> Value:
    """`over` laid on `base`: nothing goes, leaves are those of `over`. Raises Unkeyed."""
    shape = _shapes(kind, base, over)[-1]
    if shape == "map" and not kind.atomic_map:
        one = base if isinstance(base, dict) else {}
        two = over if isinstance(over, dict) else {}
        if one or two:
            merged: Object = {}
            for key in one | two:
                value = merge(kind.field(key), one.get(key, ABSENT), two.get(key, ABSENT))
                if value is not ABSENT:
                    merged[key] = value
            return merged or ABSENT
    elif shape == "list" and not kind.atomic_list:
        was = base if isinstance(base, list) else []
        now = over if isinstance(over, list) else []
        if was or now:
            return _merge_items(kind, was, now) or ABSENT
    return base if over is ABSENT else over


def _merge_items(kind: FieldType, base: list[JSON], over: list[JSON]) -> list[JSON]:
    """In the order of `over`, with what only `base` has woven in where it stood."""
    wanted = [step_of(kind, item) for item in over]
    if len(set(wanted)) < len(wanted):
        raise Unkeyed("duplicate entries for a key")
    stood = [step_of(kind, item) for item in base]
    # An element that stands twice is merged with nothing.
    counts = Counter(stood)
    olds: dict[str, Value] = {s: item if counts[s] == 1 else None for s, item in zip(stood, base, strict=True)}
    news: dict[str, JSON] = dict(zip(wanted, over, strict=True))
    shared = iter([step for step in wanted if step in olds])
    coming = next(shared, None)
    merged: list[JSON] = []
    done: set[str] = set()

    def put(base_item: Value, over_item: Value) -> None:
        value = merge(kind.items, base_item, over_item)
        if value is not ABSENT:
            merged.append(value)

    left = right = 0
    while left < len(stood) or right < len(wanted):
        if left < len(stood) and right < len(wanted):
            if stood[left] == wanted[right]:
                step = stood[left]
                done.add(step)
                put(olds[step], news[step])
                left, right, coming = left + 1, right + 1, next(shared, None)
                continue
            if stood[left] in news and coming is not None and coming != stood[left]:
                left += 1  # it comes later, where `over` has it
                continue
        if left < len(stood):
            if stood[left] not in news:
                put(base[left], ABSENT)
                left += 1
                continue
            if stood[left] in done:
                left += 1
        if right < len(wanted):
            step = wanted[right]
            done.add(step)
            put(olds.get(step, ABSENT), news[step])
            right += 1
            if step == coming:
                coming = next(shared, None)
    return merged


def remove(kind: FieldType, value: JSON, gone: Fields) -> JSON:
    """The value without these fields; null where nothing is left of a map or a list."""
    shape = kind.shape(value)
    if shape == "scalar":
        return value
    if shape == "map":
        if not isinstance(value, dict) or kind.atomic_map:
            return None
        kept: Object = {}
        for key, below in value.items():
            node = gone.get(fieldsets.field(key))
            if node is None:
                kept[key] = below
            elif not fieldsets.is_member(node):
                kept[key] = remove(kind.field(key), below, node if isinstance(node, dict) else {})
        return kept or None
    if not isinstance(value, list) or kind.atomic_list:
        return None
    items: list[JSON] = []
    for item in value:
        node = gone.get(step_of(kind, item))
        if node is None:
            items.append(item)
        elif not fieldsets.is_member(node):
            items.append(remove(kind.items, item, node if isinstance(node, dict) else {}))
    return items or None


def with_named(kind: FieldType, fields: Fields) -> Fields:
    """The set, with every named field in it that has something below it there."""
    out: Fields = {}
    for step, below in fields.items():
        if step == "." or not isinstance(below, dict) or not below:
            out[step] = below
            continue
        name = step[2:]
        if step.startswith("f:") and kind.is_map:
            node = with_named(kind.field(name), below)
            out[step] = {".": {}, **node} if name in kind.fields else node
        elif step.startswith("k:") and kind.is_list:
            out[step] = with_named(kind.items, below)
        else:
            out[step] = below
    return out
