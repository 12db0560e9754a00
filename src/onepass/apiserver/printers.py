"""Objects as rows: the Table that `kubectl get` asks for, and metadata alone (meta.k8s.io/v1)."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from onepass.api import errors, meta
from onepass.api.meta import JSON, Object
from onepass.apiserver.encoding import Media
from onepass.registry.strategy import Column, Strategy

INCLUDES = ("None", "Metadata", "Object")

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_YEAR = 365 * _DAY


def human_duration(seconds: float) -> str:
    """A duration in at most two units, as `kubectl get` shows ages (k8s.io/apimachinery/pkg/util/duration)."""
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


def age(obj: Object, now: float) -> str:
    """How long ago the object was created."""
    created = meta.text(meta.section(obj, "metadata"), "creationTimestamp")
    try:
        return human_duration(now - datetime.fromisoformat(created).timestamp())
    except ValueError:
        return "<unknown>"


def columns(strategy: Strategy) -> Sequence[Column]:
    """Every column of a kind: its name first, its age last but before those of `-o wide`."""
    return (
        Column("Name", lambda obj, _now: meta.name(obj), format="name", description="Name of the object."),
        *(column for column in strategy.columns if column.priority == 0),
        Column("Age", age, description="How long ago the object was created."),
        *(column for column in strategy.columns if column.priority > 0),
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
