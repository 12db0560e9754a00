"""What a value is made of, field by field: what merging, patching and owning need to know of a kind's schema.

Read from the JSON schema of the kind's model with the extensions that OpenAPI publishes, by the rules of
k8s.io/kube-openapi/pkg/schemaconv: a list without `x-kubernetes-list-type` is atomic, a map or an object without
`x-kubernetes-map-type` is granular, and where anything may stand, the value itself says what it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from pydantic import BaseModel

from onepass.api import meta
from onepass.api.meta import JSON, Object

Shape = Literal["map", "scalar", "list"]
_SCALARS = {"string": "string", "integer": "numeric", "number": "numeric", "boolean": "boolean"}


@dataclass(slots=True, eq=False)
class FieldType:
    """A type. Several of map, scalar and list may be open where the schema leaves them so; never altered once made."""

    scalar: str = ""  # string, numeric, boolean, or untyped for any; "" when no scalar may stand here
    is_map: bool = False
    is_list: bool = False
    atomic_map: bool = False  # a map that has one owner, and is replaced whole
    atomic_list: bool = False
    fields: Mapping[str, "FieldType"] = field(default_factory=dict)  # the named fields of a map
    element: "FieldType | None" = None  # of a map's other keys; None when there may be none
    item: "FieldType | None" = None  # of a list
    keys: tuple[str, ...] = ()  # of a list of objects; a list that is neither atomic nor keyed is a set
    default: JSON = None
    patch_strategy: frozenset[str] = frozenset()
    patch_merge_key: str = ""

    def field(self, key: str) -> "FieldType":
        """The type of the value under `key` of a map."""
        return self.fields.get(key) or self.element or DEDUCED

    @property
    def items(self) -> "FieldType":
        return self.item or UNTYPED

    @property
    def single(self) -> bool:
        """Whether the type alone says what a value is."""
        return self.is_map + self.is_list + bool(self.scalar) == 1

    def shape(self, value: object) -> Shape:
        """What a value of this type is to be taken as."""
        if isinstance(value, dict):
            found: Shape | None = "map" if self.is_map else None
        elif isinstance(value, list):
            found = "list" if self.is_list else None
        else:
            found = "scalar" if self.scalar and isinstance(value, (str, int, float)) else None
        return found or ("map" if self.is_map else "scalar" if self.scalar else "list")


# Anything, with one owner; and anything whose maps are granular: what stands where a schema does not tell.
UNTYPED = FieldType(scalar="untyped", is_map=True, is_list=True, atomic_map=True, atomic_list=True)
UNTYPED.element = UNTYPED.item = UNTYPED
DEDUCED = FieldType(scalar="untyped", is_map=True, is_list=True, atomic_list=True, item=UNTYPED)
DEDUCED.element = DEDUCED


@cache
def of(model: type[BaseModel]) -> FieldType:
    """The type of the objects that a model describes."""
    schema: Object = model.model_json_schema(by_alias=True)
    return _Reader(meta.section(schema, "$defs")).read(schema)


class _Reader:
    """Reads one document; a definition that refers to itself is one type that refers to itself."""

    def __init__(self, definitions: Object) -> None:
        self.definitions = definitions
        self.known: dict[str, FieldType] = {}

    def read(self, node: Object) -> FieldType:
        node = _resolved_choice(node)
        name = meta.text(node, "$ref").rpartition("/")[2]
        if not name:
            return self._filled(FieldType(), node)
        known = self.known.get(name)
        if known is None:
            known = self.known[name] = FieldType()
            self._filled(known, meta.section(self.definitions, name))
        beside = {k: v for k, v in node.items() if k.startswith("x-kubernetes-") or k == "default"}
        if not beside:
            return known
        return self._filled(FieldType(), {**meta.section(self.definitions, name), **beside})

    def _filled(self, kind: FieldType, node: Object) -> FieldType:
        told = meta.text(node, "type")
        kind.default = node.get("default")
        kind.patch_strategy = frozenset(meta.text(node, "x-kubernetes-patch-strategy").split(",")) - {""}
        kind.patch_merge_key = meta.text(node, "x-kubernetes-patch-merge-key")
        if told in _SCALARS:
            kind.scalar = "untyped" if told == "string" and node.get("format", "byte") != "byte" else _SCALARS[told]
        elif told == "array":
            kind.is_list = True
            items = node.get("items")
            kind.item = self.read(items) if isinstance(items, dict) and items else UNTYPED
            kind.atomic_list = meta.text(node, "x-kubernetes-list-type") in ("", "atomic")
            keys = node.get("x-kubernetes-list-map-keys")
            kind.keys = tuple(str(key) for key in keys) if isinstance(keys, list) else ()
        elif told == "object":
            self._map(kind, node)
        else:
            kind.scalar, kind.is_map, kind.is_list = "untyped", True, True
            kind.element, kind.item, kind.atomic_list = DEDUCED, UNTYPED, True
        return kind

    def _map(self, kind: FieldType, node: Object) -> None:
        kind.is_map = True
        kind.atomic_map = node.get("x-kubernetes-map-type") == "atomic"
        properties = meta.section(node, "properties")
        kind.fields = {key: self.read(part) for key, part in properties.items() if isinstance(part, dict)}
        rest = node.get("additionalProperties")
        if isinstance(rest, dict) and rest:
            kind.element = self.read(rest)
        elif rest is True or rest == {} or (rest is None and not properties):
            kind.element = DEDUCED


def _resolved_choice(node: Object) -> Object:
    """Without the null that pydantic allows beside a type: absence is told otherwise in an API object."""
    choices = node.get("anyOf")
    if not isinstance(choices, list):
        return node
    real = [choice for choice in choices if isinstance(choice, dict) and choice.get("type") != "null"]
    rest = {k: v for k, v in node.items() if k != "anyOf"}
    return {**real[0], **rest} if len(real) == 1 else rest
