"""Objects as rows: the Table that `kubectl get` asks for, and metadata alone (meta.k8s.io/v1)."""

from collections.abc import Iterable, Sequence

from onepass.api import errors, meta
from onepass.api.meta import JSON, Object, Resource
from onepass.apiserver.encoding import Media
from onepass.registry import ages
from onepass.registry.strategy import Column, Strategy

INCLUDES = ("None", "Metadata", "Object")

_DATED = frozenset({"Age", "Created At"})  # a kind with a column of these has its own place for it


def columns(strategy: Strategy) -> Sequence[Column]:
    """Every column of a kind. Unless the kind says where they stand, its name is first, and its age last but before
    those of `-o wide`."""
    own = {column.name for column in strategy.columns}
    if "Name" in own:
        return strategy.columns
    dated = bool(_DATED & own)
    return (
        Column("Name", lambda obj, _now: meta.name(obj), format="name", description="Name of the object."),
        *(column for column in strategy.columns if column.priority == 0 or dated),
        *(() if dated else (ages.AGE,)),
        *(column for column in strategy.columns if column.priority > 0 and not dated),
    )


def table(
    strategy: Strategy,
    objects: Iterable[Object],
    metadata: Object,
    *,
    media: Media,
    include: str,
    now: float,
    headed: bool = True,
) -> Object:
    """A Table of `objects`. `include` says how much of each object goes with its row: one of INCLUDES.

    A watch sends the column definitions with its first event only: `headed` False leaves them out.
    """
    shown = columns(strategy)
    definitions: list[JSON] = [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        }
        for column in shown
    ]
    rows: list[JSON] = [
        {"cells": [column.cell(obj, now) for column in shown], "object": _included(obj, include, media)}
        for obj in objects
    ]
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{media.version}",
        "metadata": metadata,
        "columnDefinitions": definitions if headed else None,
        "rows": rows,
    }


def check_include(value: str) -> str:
    """`includeObject` of a request, "Metadata" when it is not given. Raises bad_request."""
    if value and value not in INCLUDES:
        raise errors.bad_request(f'unrecognized includeObject value: "{value[:64]}"')
    return value or "Metadata"


def _included(obj: Object, include: str, media: Media) -> JSON:
    if include == "None":
        return None
    return obj if include == "Object" else partial(obj, media)


def partial(obj: Object, media: Media) -> Object:
    """Nothing but the metadata."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{media.version}",
        "metadata": meta.section(obj, "metadata"),
    }


def partial_list(objects: Iterable[Object], metadata: Object, media: Media) -> Object:
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": f"meta.k8s.io/{media.version}",
        "metadata": metadata,
        "items": [partial(obj, media) for obj in objects],
    }


def items(resource: Resource, objects: Iterable[Object]) -> Iterable[Object]:
    """The items of a list as kube-apiserver has them: those of its own kinds leave it to the list to name the kind,
    and those of custom resources name it each."""
    if not resource.builtin:
        return objects
    return [{key: value for key, value in obj.items() if key not in ("apiVersion", "kind")} for obj in objects]
