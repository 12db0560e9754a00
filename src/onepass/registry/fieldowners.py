"""Who manages which fields of a stored object: what `fields.ownership` decides, for a strategy and a write."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Literal

from onepass.api import errors, meta
from onepass.api.meta import JSON, Object
from onepass.registry import lifecycle
from onepass.registry.fields import fieldsets, fieldtypes, managers, ownership, typecheck, typedvalues
from onepass.registry.fields.managers import Manager, Managers
from onepass.registry.fields.ownership import Reach
from onepass.registry.strategy import Actor, Strategy


@dataclass(frozen=True, slots=True)
class Write:
    """Options of a write (meta/v1 CreateOptions, UpdateOptions, PatchOptions), and the form in which it came."""

    actor: Actor
    dry_run: bool = False
    field_validation: Literal["Strict", "Warn", "Ignore"] = "Warn"
    subresource: str = ""
    form: Literal["object", "patch", "apply"] = "object"
    config: Object = field(default_factory=dict)  # what is applied, when that is the form
    force: bool = False  # apply even what others manage
    odd: tuple[str, ...] = ()  # what only a strict reading of the body refuses, such as a key given twice


def applying(strategy: Strategy, write: Write) -> Callable[[Object], Object]:
    """The change that applying `write.config` makes. Raises bad_request at once for what cannot be applied.

    The change gets the stored object, or {} when there is none.
    """
    resource, config = strategy.resource, write.config
    version, _, kind = meta.text(config, "apiVersion"), None, meta.text(config, "kind")
    if (version, kind) != (resource.api_version, resource.kind):
        group = version if "/" in version else f"/{version}"
        raise errors.bad_request(f"invalid object type: {group}, Kind={kind}")
    if meta.section(config, "metadata").get("managedFields") is not None:
        raise errors.bad_request("metadata.managedFields must be nil")
    wrong = list(typecheck.problems(fieldtypes.of(strategy.model), config))
    if wrong:
        told = wrong[0] if len(wrong) == 1 else "\n  ".join(["errors:", *wrong])
        group = resource.api_version if resource.group else f"/{resource.version}"
        place = f"{meta.namespace(config)}/{meta.name(config)}; {group}, Kind={resource.kind}"
        raise errors.bad_request(f"failed to create typed patch object ({place}): {told}")
    return partial(_laid_over, strategy, write)


def _laid_over(strategy: Strategy, write: Write, old: Object) -> Object:
    who, kind = _manager(strategy, write), fieldtypes.of(strategy.model)
    live = _bare(old) if old else _nothing(strategy)
    managed = _tracked(strategy, live, managers.trusted(_stored(old)), who, write)
    new = ownership.laid_over(kind, live, write.config, managed, who, _reach(strategy, write.subresource))
    return ownership.with_last_applied(new, write.config) if who.name == ownership.KUBECTL else new


def owned(strategy: Strategy, old: Object | None, new: Object, given: JSON, write: Write) -> Object:
    """The new object with its managedFields. `given` are those that came with it. Raises conflict for an apply.

    Both objects are concealed; `new` has its defaults, but nothing yet of what the strategy makes of a write.
    """
    who, kind = _manager(strategy, write), fieldtypes.of(strategy.model)
    reach, time = _reach(strategy, write.subresource), lifecycle.timestamp(write.actor.now)
    stored = managers.trusted(_stored(old))
    before = strategy.marked(_bare(old)) if old else _nothing(strategy)
    bare = _bare(new)
    after = strategy.marked(bare)
    try:
        if write.form == "apply":
            managed = _tracked(strategy, before, stored, who, write)
            managed = ownership.applied(
                kind, before, after, write.config, managed, who, time, force=write.force, reach=reach
            )
        else:
            managed = stored if given == _stored(old) else _base(stored, given, write)
            if managed or old is None:
                managed = ownership.updated(kind, before, after, managed, who, time, reach)
    except ownership.Conflicts as found:
        raise errors.apply_conflict(str(found), found.causes) from found
    except typedvalues.Unkeyed:  # a list whose elements cannot be told apart, which validation has to judge
        managed = stored
    if not managed:
        return bare
    return {**bare, "metadata": {**meta.section(bare, "metadata"), "managedFields": managers.encoded(managed)}}


def settled(old: Object, new: Object) -> Object:
    """The new object; with the old times when nothing but times has changed, so that it need not be written."""
    was, now = _stored(old), _stored(new)
    if was == now or managers.timeless(was) != managers.timeless(now) or not typedvalues.same(_bare(old), _bare(new)):
        return new
    return {**new, "metadata": {**meta.section(new, "metadata"), "managedFields": was}}


def _base(stored: Managers, given: JSON, write: Write) -> Managers:
    """Whom a write begins with: a client may set managedFields, except through a subresource."""
    if write.subresource:
        return stored
    if managers.resets(given):
        return {}
    return managers.decoded(given) or stored


def _tracked(strategy: Strategy, live: Object, managed: Managers, who: Manager, write: Write) -> Managers:
    time = lifecycle.timestamp(write.actor.now)
    kind, reach = fieldtypes.of(strategy.model), _reach(strategy, write.subresource)
    return ownership.tracked(kind, live, managed, who, time, reach)


def _manager(strategy: Strategy, write: Write) -> Manager:
    operation: managers.Operation = "Apply" if write.form == "apply" else "Update"
    return Manager(write.actor.manager or "unknown", operation, strategy.resource.api_version, write.subresource)


@cache
def _reach_of(subresources: tuple[tuple[str, tuple[str, ...]], ...], unmanaged: tuple[str, ...], asked: str) -> Reach:
    owned = dict(subresources)
    if asked:
        return Reach({}, fieldsets.of(*[path.split(".") for path in owned[asked]]))
    kept = [path.split(".") for paths in (*owned.values(), unmanaged) for path in paths]
    return Reach(fieldsets.of(*kept))


def _reach(strategy: Strategy, subresource: str) -> Reach:
    return _reach_of(tuple(strategy.subresources.items()), strategy.unmanaged, subresource)


def _nothing(strategy: Strategy) -> Object:
    return {"apiVersion": strategy.resource.api_version, "kind": strategy.resource.kind}


def _stored(obj: Object | None) -> JSON:
    return meta.section(obj or {}, "metadata").get("managedFields")


def _bare(obj: Object) -> Object:
    metadata = {k: v for k, v in meta.section(obj, "metadata").items() if k != "managedFields"}
    return {**obj, "metadata": metadata}
