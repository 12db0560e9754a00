"""Strategic merge patch: a merge patch that knows which lists are sets and which are keyed by a field.

The rules are those of k8s.io/apimachinery/pkg/util/strategicpatch and of
https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md.
What a list is comes from the JSON schema of the kind's model: `x-kubernetes-patch-strategy` and
`x-kubernetes-patch-merge-key`, as published in OpenAPI. A list without them is replaced, a map is merged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from onepass.api import errors, meta
from onepass.api.meta import JSON, Object

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON schema with its definitions, and the place in it that a value is described at."""

    node: Object
    definitions: Object

    @classmethod
    def of(cls, schema: Object) -> "Schema":
        """Of a whole schema whose references point into its `$defs`."""
        return cls(schema, meta.section(schema, "$defs")).resolved()

    def resolved(self) -> "Schema":
        node = self.node
        while True:
            reference = meta.text(node, "$ref").rpartition("/")[2]
            choices = node.get("anyOf")
            if reference:
                node = {**meta.section(self.definitions, reference), **_without_reference(node)}
            elif isinstance(choices, list):
                real = [c for c in choices if isinstance(c, dict) and c.get("type") != "null"]
                node = {**(real[0] if len(real) == 1 else {}), **{k: v for k, v in node.items() if k != "anyOf"}}
            else:
                return Schema(node, self.definitions)

    def field(self, key: str) -> "Schema":
        """Of the value under `key` in a mapping."""
        properties = meta.section(self.node, "properties")
        node = properties.get(key, self.node.get("additionalProperties"))
        return Schema(node if isinstance(node, dict) else {}, self.definitions).resolved()

    @property
    def items(self) -> "Schema":
        return Schema(meta.section(self.node, "items"), self.definitions).resolved()

    def has(self, strategy: str) -> bool:
        return strategy in meta.text(self.node, "x-kubernetes-patch-strategy").split(",")

    @property
    def merge_key(self) -> str:
        return meta.text(self.node, "x-kubernetes-patch-merge-key")


def _without_reference(node: Object) -> Object:
    return {k: v for k, v in node.items() if k != "$ref"}


def apply(original: Object, patch: Object, schema: Schema) -> Object:
    """The patched object; `original` may be altered. Raises bad_request for a patch that is malformed."""
    directive = patch.get(_PATCH)
    if directive == "replace":
        return {k: _clean(v) for k, v in patch.items() if k != _PATCH}
    if directive == "delete":
        return {}
    if directive is not None:
        raise _bad(f"unknown {_PATCH} directive {directive!r}")
    patch = dict(patch)
    _retain(original, patch)
    orders = {key.removeprefix(_ORDER): patch.pop(key) for key in list(patch) if key.startswith(_ORDER)}
    for key in [key for key in patch if key.startswith(_DELETE_FROM)]:
        _delete_primitives(original, key.removeprefix(_DELETE_FROM), patch.pop(key))
    for key, value in patch.items():
        current = original.get(key)
        if value is None or (not _alike(current, value) and _is_directive(value)):
            original.pop(key, None)  # a directive has nothing to act on
        elif _alike(current, value):
            original[key] = _merged(current, value, schema.field(key), orders.get(key))
        else:
            original[key] = _added(value, orders.get(key), schema.field(key).merge_key)
    for key in orders.keys() - patch.keys():
        current = original.get(key)
        if isinstance(current, list):
            original[key] = _ordered(current, _list(orders[key]), current, schema.field(key).merge_key)
    return original


def _alike(original: JSON, value: JSON) -> bool:
    """Whether there is something of the same sort to merge a value into."""
    return any(isinstance(original, sort) and isinstance(value, sort) for sort in (dict, list))


def _added(value: JSON, order: JSON, key: str) -> JSON:
    added = _clean(value)
    if order is None or not isinstance(added, list):
        return added
    _check_order(added, _list(order), key)
    return _ordered(added, _list(order), [], key)


def _merged(original: JSON, value: JSON, schema: Schema, order: JSON) -> JSON:
    if isinstance(value, dict):
        keeps = isinstance(original, dict) and not schema.has("replace")
        return apply(original if keeps and isinstance(original, dict) else {}, value, schema)
    if not isinstance(value, list):
        return value
    if not schema.has("merge"):
        return value  # as it is: directives mean nothing in it
    key = schema.merge_key
    before = original if isinstance(original, list) else []
    merged: list[JSON]
    if not any(isinstance(item, dict) for item in (*before, *value)):
        merged = list(dict.fromkeys(_scalars([*before, *value])))
        wanted = value
    else:
        merged, wanted = _merge_maps(before, value, key, schema.items)
    if order is not None:
        _check_order(wanted, _list(order), key)
        wanted = _list(order)
    return _ordered(merged, wanted, before, key)


def _merge_maps(before: list[JSON], value: list[JSON], key: str, schema: Schema) -> tuple[list[JSON], list[JSON]]:
    """The merged list, not yet in order, and the elements of the patch that are no directives."""
    if not key:
        raise _bad("a list of objects without a merge key cannot be merged")
    wanted: list[JSON] = []
    gone: set[str] = set()
    for item in value:
        if not isinstance(item, dict):
            raise _bad("the elements of a list are of different types")
        directive = item.get(_PATCH)
        if directive is None:
            wanted.append(item)
        elif directive == "delete":
            gone.add(_hashable(_required(item, key)))
        elif directive != "replace":
            raise _bad(f"unknown {_PATCH} directive {directive!r} in a list")
    replaced = any(isinstance(item, dict) and item.get(_PATCH) == "replace" for item in value)
    merged = [] if replaced else [old for old in before if _hashable(_key_of(old, key)) not in gone]
    places: dict[str, int] = {}
    for index, old in enumerate(merged):
        places.setdefault(_hashable(_key_of(old, key)), index)
    for item in wanted:
        assert isinstance(item, dict)
        place = places.get(_hashable(_required(item, key)))
        if place is None:
            places[_hashable(item[key])] = len(merged)
            merged.append(apply({}, item, schema))
        else:
            old = merged[place]
            merged[place] = apply(old if isinstance(old, dict) else {}, item, schema)
    return merged, wanted


def _retain(original: Object, patch: Object) -> None:
    if _RETAIN not in patch:
        return
    kept = _scalars(_list(patch.pop(_RETAIN)))
    if any(value is not None and not key.startswith("$") and key not in kept for key, value in patch.items()):
        raise _bad(f"{_RETAIN} does not name every field of its patch")
    for key in original.keys() - set(kept):
        del original[key]


def _delete_primitives(original: Object, key: str, values: JSON) -> None:
    gone = {_hashable(value) for value in _scalars(_list(values))}
    current = original.get(key)
    if isinstance(current, list):
        original[key] = [item for item in current if _hashable(item) not in gone]


def _check_order(wanted: Sequence[JSON], order: Sequence[JSON], key: str) -> None:
    """Every element of the patch stands in the order, and in that order."""
    rest = iter([_key_of(item, key) for item in order])
    if not all(_key_of(item, key) in rest for item in wanted):
        raise _bad(f"the order of a list does not match its {_ORDER[:-1]}")


def _ordered(merged: list[JSON], wanted: Sequence[JSON], before: Sequence[JSON], key: str) -> list[JSON]:
    """Elements that the patch names in the patch's order, the others as they stood, woven by the old order."""
    places = {_hashable(_key_of(item, key)): i for i, item in reversed(list(enumerate(wanted)))}
    old = {_hashable(_key_of(item, key)): i for i, item in reversed(list(enumerate(before)))}

    def place(item: JSON, known: dict[str, int]) -> int:
        return known.get(_hashable(_key_of(item, key)), -1)

    named = sorted((item for item in merged if place(item, places) >= 0), key=lambda item: place(item, places))
    others = [item for item in merged if place(item, places) < 0]
    woven: list[JSON] = []
    for item in named:
        here = place(item, old)
        while others and place(others[0], old) < here:  # so what is new comes before all that the patch does not name
            woven.append(others.pop(0))
        woven.append(item)
    return woven + others


def _key_of(item: JSON, key: str) -> JSON:
    return item.get(key) if isinstance(item, dict) and key else item


def _hashable(value: JSON) -> str:
    return f"{type(value).__name__}:{value!r}"


def _required(item: Object, key: str) -> JSON:
    if key not in item:
        raise _bad(f"an element of a list lacks its merge key {key!r}")
    return item[key]


def _is_directive(item: JSON) -> bool:
    return isinstance(item, dict) and _PATCH in item


def _clean(value: JSON) -> JSON:
    """A value that is new to the object, without the directives and nulls that have nothing to act on."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not k.startswith((_RETAIN, _DELETE_FROM, _ORDER))}
        return {k: _clean(v) for k, v in kept.items() if v is not None and not _is_directive(v)}
    return [_clean(item) for item in value if not _is_directive(item)] if isinstance(value, list) else value


def _list(value: JSON) -> list[JSON]:
    if not isinstance(value, list):
        raise _bad("a directive that must be a list is not one")
    return value


def _scalars(values: Sequence[JSON]) -> list[str | int | float | bool | None]:
    scalars = [value for value in values if not isinstance(value, (dict, list))]
    if len(scalars) < len(values):
        raise _bad("the elements of a list are of different types")
    return scalars


def _bad(message: str) -> errors.ApiError:
    return errors.bad_request(f"invalid strategic merge patch: {message}")
