"""Namespaces. A deleted one goes at once; what was in it is swept up afterwards."""

from collections.abc import Sequence

from onepass.api import core_v1, errors, meta
from onepass.api.errors import ApiError, Cause
from onepass.api.meta import Object, Resource
from onepass.registry import causes, selection
from onepass.registry.store import Store, Write
from onepass.registry.strategy import Actor, Column, Strategy

RESOURCE = Resource("", "v1", "Namespace", "namespaces", "namespace", namespaced=False, short_names=("ns",))
_KEPT = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})


def _phase(obj: Object) -> str:
    return meta.text(meta.section(obj, "status"), "phase")


def _labelled(obj: Object) -> Object:
    """With the label by which selectors find a namespace by its name."""
    metadata = meta.section(obj, "metadata")
    labels = {**meta.section(metadata, "labels"), "kubernetes.io/metadata.name": meta.name(obj)}
    return {**obj, "metadata": {**metadata, "labels": labels}}


def _on_create(obj: Object, _actor: Actor) -> Object:
    return {**_labelled(obj), "status": {"phase": "Active"}}


def _on_update(_old: Object, new: Object, _actor: Actor) -> Object:
    return _labelled(new)


def _validate(obj: Object, old: Object | None) -> Sequence[Cause]:
    phase, going = _phase(obj), "deletionTimestamp" in meta.section(obj, "metadata")
    if phase == ("Terminating" if going else "Active") or (old is not None and phase == _phase(old)):
        return ()  # one that was stored wrong can still be labelled and mended
    may = "'Terminating' if `deletionTimestamp` is not empty" if going else "'Active' if `deletionTimestamp` is empty"
    return [causes.invalid("status.Phase", phase, f"may only be {may}")]


def _on_delete(obj: Object, _actor: Actor) -> Object:
    name = meta.name(obj)
    if name in _KEPT:
        told = f'namespaces "{name}" is forbidden: this namespace may not be deleted'
        raise errors.forbidden(told, RESOURCE, name)
    return {**obj, "status": {**meta.section(obj, "status"), "phase": "Terminating"}}


STRATEGY = Strategy(
    resource=RESOURCE,
    model=core_v1.Namespace,
    columns=(
        Column(
            "Status",
            lambda obj, _: _phase(obj),
            description="Active, or Terminating once it is deleted.",
        ),
    ),
    verbs=("create", "delete", "get", "list", "patch", "update", "watch"),  # all at once they cannot be deleted
    subresources={"status": ("status",)},
    selectable={"status.phase": _phase},
    prepare_create=_on_create,
    prepare_update=_on_update,
    validate=_validate,
    prepare_delete=_on_delete,
    generations=False,
    name_rule="label",
)


async def sweep(namespaces: Store, stores: Sequence[Store], actor: Actor) -> int:
    """Delete what lies in namespaces that are gone; returns how many objects that were.

    Safe to repeat and to run at any time: whoever creates an object sees its namespace first, so what is listed before
    the namespaces are has lost its own if that is not among them.
    """
    found: list[tuple[Store, Object]] = []
    for store in stores:
        if store.strategy.resource.namespaced:
            listing = await store.list("", selection.EVERYTHING)
            found += [(store, obj) for obj in listing.items]
    living = {meta.name(obj) for obj in (await namespaces.list("", selection.EVERYTHING)).items}
    swept = 0
    for store, obj in found:
        if meta.namespace(obj) in living:
            continue
        try:
            await store.delete(meta.namespace(obj), meta.name(obj), Write(actor), uid=meta.uid(obj))
        except ApiError as refused:
            if refused.code not in (404, 409):  # gone, or made anew, meanwhile
                raise
            continue
        swept += 1
    return swept
