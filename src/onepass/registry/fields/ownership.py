"""Whose fields are whose after a write: server-side apply, and the tracking of every other write.

The rules are those of k8s.io/apimachinery/pkg/util/managedfields and sigs.k8s.io/structured-merge-diff/v6/merge, for
kinds that have one version. A value is the whole object without metadata.managedFields.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from onepass.api import meta
from onepass.api.errors import Cause
from onepass.api.meta import JSON, Object
from onepass.registry.fields import fieldsets, managers, typecheck, typedvalues
from onepass.registry.fields.fieldsets import Fields
from onepass.registry.fields.fieldtypes import FieldType
from onepass.registry.fields.managers import Entry, Manager, Managers
from onepass.registry.fields.typedvalues import ABSENT, Changes

BEFORE_APPLY = "before-first-apply"
KUBECTL = "kubectl"  # the manager that kubectl applies as, which takes over from its client-side apply
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
MOST_ANNOTATED = 256 * 1024  # bytes of all annotations of an object

# Nobody manages what names an object, and what the server decides.
_STRIPPED = fieldsets.of(
    ("apiVersion",),
    ("kind",),
    ("metadata",),
    *[
        ("metadata", name)
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    ],
)


@dataclass(frozen=True, slots=True)
class Reach:
    """What a write through one endpoint can change: all but `excluded`, or within `included` alone."""

    excluded: Fields
    included: Fields | None = None

    def of(self, fields: Fields) -> Fields:
        if self.included is not None:
            return fieldsets.within(fields, self.included)
        return fieldsets.without(fields, self.excluded) if self.excluded else fields


EVERYTHING = Reach({})


class Conflicts(Exception):
    """Others manage, with other values, what a configuration that is applied sets. Never tells a value."""

    def __init__(self, found: Mapping[str, Fields], managed: Managers) -> None:
        self.found = {key: found[key] for key in sorted(found)}
        told = [(managed[key].manager, path) for key in self.found for path in fieldsets.paths(self.found[key])]
        self.causes: Sequence[Cause] = [
            Cause("FieldManagerConflict", f"conflict with {manager}", fieldsets.shown(path)) for manager, path in told
        ]
        super().__init__(_worded(self.causes))


def _worded(causes: Sequence[Cause]) -> str:
    if len(causes) == 1:
        return f"Apply failed with 1 conflict: {causes[0].message}: {causes[0].field}"
    lines: list[str] = []
    message = ""
    for cause in causes:
        if cause.message != message:
            message = cause.message
            lines.append(f"{message.replace('conflict', 'conflicts', 1)}:")
        lines.append(f"- {cause.field}")
    return f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)


def updated(
    kind: FieldType,
    before: JSON,
    after: JSON,
    managed: Managers,
    who: Manager,
    time: str,
    reach: Reach = EVERYTHING,
) -> Managers:
    """Who manages what after a create, an update or a patch from `before` to `after` by `who`."""
    changes = _within(typedvalues.compare(kind, before, after), reach)
    gained = fieldsets.union(changes.modified, changes.added)
    kept: dict[str, Entry] = {}
    for key, entry in managed.items():
        if entry.manager.api_version == who.api_version:
            rest = fieldsets.difference(fieldsets.difference(entry.fields, gained), changes.removed)
            if rest:
                kept[key] = entry if rest is entry.fields else replace(entry, fields=rest)
    own = fieldsets.difference(gained, _STRIPPED)
    if own:
        previous = kept.get(who.key)
        kept[who.key] = Entry(who, fieldsets.union(own, previous.fields) if previous else own, time)
    return managers.capped(kept)


def _within(changes: Changes, reach: Reach) -> Changes:
    return Changes(reach.of(changes.removed), reach.of(changes.modified), reach.of(changes.added))


def tracked(kind: FieldType, live: Object, managed: Managers, who: Manager, time: str, reach: Reach) -> Managers:
    """The managers of an object that is about to be applied to: one that had none gets one for what it has."""
    if managed:
        return managed
    nothing: Object = {key: live[key] for key in ("apiVersion", "kind") if key in live}
    return updated(
        kind, nothing, live, {}, Manager(BEFORE_APPLY, "Update", who.api_version, who.subresource), time, reach
    )


def laid_over(kind: FieldType, live: Object, config: Object, managed: Managers, who: Manager, reach: Reach) -> Object:
    """What applying a configuration makes of an object: merged, without what `who` applied before and now does not.

    Raises typedvalues.Unkeyed for a configuration that does not pass typecheck.
    """
    merged = typedvalues.merge(kind, live, config)
    last = managed.get(who.key)
    if merged is not ABSENT and last is not None and last.fields:
        everyone = reach.of(typedvalues.field_set(kind, config))
        for key, entry in managed.items():
            if key != who.key and entry.manager.api_version == who.api_version:
                everyone = fieldsets.union(everyone, entry.fields)
        merged = _pruned(kind, merged, last.fields, everyone)
    return merged if isinstance(merged, dict) else {}


def _pruned(kind: FieldType, merged: JSON, last: Fields, everyone: Fields) -> JSON:
    """Without the fields in `last` that nobody manages any more; `everyone` is what is managed now."""
    last = typedvalues.with_named(kind, last)
    whole = typedvalues.with_named(kind, typedvalues.field_set(kind, merged))
    cut = typedvalues.remove(kind, merged, last)
    left = typedvalues.with_named(kind, typedvalues.field_set(kind, cut))
    owned = fieldsets.union(left, typedvalues.with_named(kind, everyone))
    restored = typedvalues.remove(kind, merged, fieldsets.difference(whole, owned))
    kept = typedvalues.with_named(kind, typedvalues.field_set(kind, restored))
    return typedvalues.remove(kind, merged, fieldsets.intersection(fieldsets.difference(whole, kept), last))


def applied(
    kind: FieldType,
    live: Object,
    new: Object,
    config: Object,
    managed: Managers,
    who: Manager,
    time: str,
    *,
    force: bool,
    reach: Reach = EVERYTHING,
) -> Managers:
    """Who manages what after `config` has made `new` of `live`. Raises Conflicts unless `force`."""
    if who.name == KUBECTL:
        new = _as_applied(new, config, live)
    changes = _within(typedvalues.compare(kind, live, new), reach)
    gained = fieldsets.union(changes.modified, changes.added)
    others = {k: e for k, e in managed.items() if k != who.key and e.manager.api_version == who.api_version}
    conflicts = {key: both for key, e in others.items() if (both := fieldsets.intersection(e.fields, gained))}
    if conflicts and not force:
        mine = _last_applied(kind, live, who.api_version) if who.name == KUBECTL else {}
        refused = {key: rest for key, both in conflicts.items() if (rest := fieldsets.difference(both, mine))}
        if refused:
            raise Conflicts(refused, managed)
    out: dict[str, Entry] = {}
    for key, entry in others.items():
        rest = fieldsets.difference(fieldsets.difference(entry.fields, gained), changes.removed)
        if rest:
            out[key] = replace(entry, fields=rest)
    own = fieldsets.difference(reach.of(typedvalues.field_set(kind, config)), _STRIPPED)
    if own:
        previous = managed.get(who.key)
        moved = not typedvalues.same(live, new)
        out[who.key] = Entry(who, own, time if moved else previous.time if previous else "")
    return out


def _last_applied(kind: FieldType, live: Object, api_version: str) -> Fields:
    """The fields that client-side apply set and that still have its values: server-side apply may take them over."""
    annotation = meta.annotations(live).get(LAST_APPLIED)
    try:
        config: JSON = orjson.loads(annotation or "")
        if not isinstance(config, dict) or config.get("apiVersion") != api_version:
            return {}
        if any(typecheck.problems(kind, config)) or any(typecheck.problems(kind, live)):
            return {}
        fields = typedvalues.field_set(kind, config)
        changes = typedvalues.compare(kind, config, live)
    except ValueError:
        return {}
    for gone in (changes.modified, changes.added, changes.removed):
        fields = fieldsets.difference(fields, gone)
    return fields


def _as_applied(new: Object, config: Object, live: Object) -> Object:
    """The new object as it was before its client-side apply annotation was brought up to date, whoever manages that."""
    metadata = meta.section(new, "metadata")
    annotations = meta.section(metadata, "annotations")
    if LAST_APPLIED not in annotations:
        return new
    told = meta.annotations(config).get(LAST_APPLIED) or meta.annotations(live).get(LAST_APPLIED)
    kept: Object = {**annotations, LAST_APPLIED: told}
    return {**new, "metadata": {**metadata, "annotations": kept}}


def with_last_applied(obj: Object, config: Object) -> Object:
    """The object with its client-side apply annotation, if it has one, brought up to date with `config`."""
    annotations = meta.annotations(obj)
    if not annotations.get(LAST_APPLIED):
        return obj
    metadata = meta.section(config, "metadata")
    if isinstance(metadata.get("annotations"), dict):
        told = {k: v for k, v in meta.section(metadata, "annotations").items() if k != LAST_APPLIED}
        config = {**config, "metadata": {**metadata, "annotations": told}}
    text = orjson.dumps(config, option=orjson.OPT_SORT_KEYS).decode() + "\n"  # as Go writes it
    changed: Object = {**annotations, LAST_APPLIED: text}
    if sum(len(key) + len(str(value)) for key, value in changed.items()) > MOST_ANNOTATED:
        del changed[LAST_APPLIED]
    return {**obj, "metadata": {**meta.section(obj, "metadata"), "annotations": changed}}
