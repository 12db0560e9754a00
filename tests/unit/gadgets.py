"""A kind with a field of every sort, and generated objects and patches of it."""

import json
from dataclasses import replace
from typing import Annotated, cast

from hypothesis import strategies as st
from pydantic import Field

from onepass.api import meta, objectmeta
from onepass.api.meta import JSON, Object, Resource
from onepass.api.objectmeta import Model, ObjectMeta
from onepass.apiserver.endpoints import Endpoints
from onepass.apiserver.openapi import OpenAPI
from onepass.apiserver.ports import VersionInfo
from onepass.registry.store import Store
from onepass.registry.strategy import Strategy
from onepass.storage.interface import Storage

GADGET = Resource("test.example", "v1", "Gadget", "gadgets", "gadget", namespaced=False)


def keyed(patched_by: str, *keys: str) -> dict[str, JSON]:
    return {
        "x-kubernetes-patch-strategy": "merge",
        "x-kubernetes-patch-merge-key": patched_by,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [*keys],
    }


SET: dict[str, JSON] = {"x-kubernetes-patch-strategy": "merge", "x-kubernetes-list-type": "set"}
ATOMIC: dict[str, JSON] = {"x-kubernetes-map-type": "atomic"}


class Inner(Model):
    a: str | None = None
    b: int | None = None


class Port(Model):
    port: int
    protocol: str = "TCP"
    name: str | None = None


class Part(Model):
    name: str
    value: str | None = None
    tags: Annotated[list[str] | None, Field(json_schema_extra=SET)] = None
    inner: Inner | None = None
    ports: Annotated[list[Port] | None, Field(json_schema_extra=keyed("port", "port", "protocol"))] = None


class GadgetSpec(Model):
    text: str | None = None
    count: int | None = None
    flag: bool | None = None
    plain: list[str] | None = None
    objects: list[Inner] | None = None
    names: Annotated[list[str] | None, Field(json_schema_extra=SET)] = None
    ports: Annotated[list[Port] | None, Field(json_schema_extra=keyed("port", "port", "protocol"))] = None
    parts: Annotated[list[Part] | None, Field(json_schema_extra=keyed("name", "name"))] = None
    labels: dict[str, str] | None = None
    fixed: Annotated[dict[str, str] | None, Field(json_schema_extra=ATOMIC)] = None
    inner: Inner | None = None
    whole: Annotated[Inner | None, Field(json_schema_extra=ATOMIC)] = None
    anything: dict[str, object] | None = None
    either: int | str | None = None


class Gadget(Model):
    """Has a field of every sort."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: GadgetSpec | None = None
    status: Inner | None = None


STRATEGY = Strategy(resource=GADGET, model=Gadget, columns=(), subresources={"status": ("status",)})


def schemas(*strategies: Strategy) -> Object:
    """What the server publishes of these kinds in OpenAPI v3."""
    stores = [Store(cast(Storage, None), replace(strategy, conceal=None)) for strategy in strategies]
    documents = OpenAPI(Endpoints(stores, [], []), VersionInfo("1", "36", "v1.36.0")).documents
    found: Object = {}
    for document in documents.values():
        found |= meta.section(meta.section(document, "components"), "schemas")
    return found


LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_HEAD: Object = {"apiVersion": GADGET.api_version, "kind": GADGET.kind, "metadata": {"name": "g"}}
_WORDS = st.sampled_from(["x", "y", "z", ""])
_KEYS = st.sampled_from(["a", "b", "c"])
_NUMBERS = st.integers(0, 3)


def _json(made: st.SearchStrategy[object]) -> st.SearchStrategy[JSON]:
    return cast("st.SearchStrategy[JSON]", made)


def _maybe(**fields: st.SearchStrategy[JSON]) -> st.SearchStrategy[Object]:
    return st.fixed_dictionaries({}, optional=fields)


def _with(required: dict[str, st.SearchStrategy[JSON]], **fields: st.SearchStrategy[JSON]) -> st.SearchStrategy[Object]:
    return st.fixed_dictionaries(required, optional=fields)


def _several(items: st.SearchStrategy[JSON], doubled: bool, *keys: str) -> st.SearchStrategy[JSON]:
    def place(item: JSON) -> str:
        return str([item.get(key, "TCP") for key in keys] if isinstance(item, dict) else item)

    return st.lists(items, max_size=4, unique_by=None if doubled else place)


def specs(*, doubled: bool = False, nulls: bool = False, merged: bool = False) -> st.SearchStrategy[Object]:
    """What may stand under `spec`.

    With `doubled`, lists may hold an element twice; with `nulls`, fields are null; with `merged`, elements can be told
    apart by the one key that strategic merge knows.
    """
    inner = _maybe(a=_WORDS, b=_NUMBERS)
    port = _with({"port": _NUMBERS}, protocol=st.sampled_from(["TCP", "UDP"]), name=_WORDS)
    ports = _several(port, doubled, *(["port"] if merged else ["port", "protocol"]))
    tags = _several(_WORDS, doubled)
    part = _with({"name": _KEYS}, value=_WORDS, tags=tags, inner=inner, ports=ports)
    words = st.dictionaries(_KEYS, _WORDS, max_size=3)
    leaves = st.one_of(_WORDS, _NUMBERS, st.booleans(), st.lists(_NUMBERS, max_size=2))
    anything = st.dictionaries(_KEYS, st.one_of(leaves, st.dictionaries(_KEYS, leaves, max_size=2)), max_size=3)
    fields: dict[str, st.SearchStrategy[JSON]] = {
        "text": _WORDS,
        "count": _NUMBERS,
        "flag": st.booleans(),
        "plain": st.lists(_WORDS, max_size=3),
        "objects": st.lists(inner, max_size=2),
        "names": tags,
        "ports": ports,
        "parts": _several(part, doubled, "name"),
        "labels": _json(words),
        "fixed": _json(words),
        "inner": inner,
        "whole": inner,
        "anything": _json(anything),
        "either": st.one_of(_NUMBERS, _WORDS),
    }
    if nulls:
        fields = {key: st.one_of(st.none(), made) for key, made in fields.items()}
    return _maybe(**fields)


def metadatas() -> st.SearchStrategy[Object]:
    words = st.dictionaries(_KEYS, _WORDS, max_size=2)
    last = st.builds(
        lambda kept, spec: {**kept, LAST_APPLIED: json.dumps({**_HEAD, "spec": spec})}, words, specs(nulls=True)
    )
    finalizers = st.lists(st.sampled_from(["f.io/a", "f.io/b"]), unique=True, max_size=2)
    owner = st.fixed_dictionaries({"apiVersion": st.just("v1"), "kind": st.just("K"), "name": _KEYS, "uid": _KEYS})
    owners = st.lists(owner, max_size=2, unique_by=lambda owner: str(owner["uid"]))
    optional: dict[str, st.SearchStrategy[JSON]] = {
        "labels": _json(words),
        "annotations": _json(st.one_of(words, words, last)),
        "finalizers": _json(finalizers),
        "ownerReferences": _json(owners),
    }
    return st.fixed_dictionaries({"name": st.just("g")}, optional=optional)


def gadgets(*, doubled: bool = False, nulls: bool = False, merged: bool = False) -> st.SearchStrategy[Object]:
    """Whole objects, or configurations to apply, which look the same."""
    required: dict[str, st.SearchStrategy[JSON]] = {
        "apiVersion": st.just(GADGET.api_version),
        "kind": st.just(GADGET.kind),
        "metadata": metadatas(),
    }
    optional: dict[str, st.SearchStrategy[JSON]] = {
        "spec": specs(doubled=doubled, nulls=nulls, merged=merged),
        "status": _maybe(a=_WORDS, b=_NUMBERS),
    }
    return st.fixed_dictionaries(required, optional=optional)
