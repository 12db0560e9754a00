"""Whether an applied configuration, which is only a part of an object, fits the type of its kind.

Worded as sigs.k8s.io/structured-merge-diff/v6/typed does, except that a wrong value is told by its type alone: it may
be one that nobody is to read.
"""

from collections.abc import Iterator

from onepass.api.meta import JSON
from onepass.registry.fields import fieldsets, typedvalues
from onepass.registry.fields.fieldtypes import FieldType

_NAMES: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", list: "list", dict: "map"}
_EXPECTED = {"string": "string", "numeric": "numeric (int or float)", "boolean": "boolean", "untyped": "any scalar"}


def problems(kind: FieldType, value: JSON, path: str = "") -> Iterator[str]:
    """What does not fit, each with its path; nothing when all does."""
    if value is None:
        return
    shape = kind.shape(value)
    if shape == "map":
        if isinstance(value, dict):
            for key, below in value.items():
                here = f"{path}.{key}"
                if key in kind.fields or kind.element is not None:
                    yield from problems(kind.field(key), below, here)
                else:
                    yield f"{here}: field not declared in schema"
        else:
            yield f"{path}: expected map, got {_told(value)}"
    elif shape == "list":
        if isinstance(value, list):
            yield from _in_list(kind, value, path)
        else:
            yield f"{path}: expected list, got {_told(value)}"
    elif not _fits(kind.scalar, value):
        yield f"{path}: expected {_EXPECTED[kind.scalar]}, got {_told(value)}"


def _in_list(kind: FieldType, items: list[JSON], path: str) -> Iterator[str]:
    seen: set[str] = set()
    for index, item in enumerate(items):
        step = f"i:{index}"
        if not kind.atomic_list:
            try:
                step = typedvalues.step_of(kind, item)
            except typedvalues.Unkeyed as wrong:
                yield f"{path}: element {index}: {wrong}"
                return
            if step in seen:
                yield f"{path}: duplicate entries for key {fieldsets.shown((step,))}"
            seen.add(step)
        yield from problems(kind.items, item, path + fieldsets.shown((step,)))


def _fits(scalar: str, value: JSON) -> bool:
    if isinstance(value, bool):
        return scalar in ("boolean", "untyped")
    if isinstance(value, str):
        return scalar in ("string", "untyped")
    return isinstance(value, (int, float)) and scalar in ("numeric", "untyped")


def _told(value: JSON) -> str:
    return _NAMES.get(type(value), "null")
