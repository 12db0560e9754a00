"""What is there from the first start: two namespaces, and the roles without which nobody could do anything.

Put right again at each start as kube-apiserver does (k8s.io/kubernetes/pkg/registry/rbac/reconciliation): what was
taken away comes back, what an administrator added stays, and `autoupdate: "false"` keeps an object as it is.
"""

import functools
from collections.abc import Mapping, Sequence

from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.registry import bootstraproles, namespaces, rbac, rolerules
from onepass.registry.store import Store, Write
from onepass.registry.strategy import Actor, Strategy

OBJECTS: Sequence[tuple[Strategy, Object]] = (
    (namespaces.STRATEGY, {"metadata": {"name": "default"}}),
    (namespaces.STRATEGY, {"metadata": {"name": "kube-system"}}),
    *((rbac.CLUSTER_ROLES, role) for role in bootstraproles.CLUSTER_ROLES),
    *((rbac.CLUSTER_ROLE_BINDINGS, binding) for binding in bootstraproles.CLUSTER_ROLE_BINDINGS),
)


async def ensure(stores: Mapping[str, Store], actor: Actor) -> None:
    """Make what is missing, and give roles and bindings back what was taken from them; `stores` by Resource.key."""
    write = Write(actor)
    for strategy, default in OBJECTS:
        store, name = stores[strategy.resource.key], meta.name(default)
        try:
            await store.create("", default, write)
            continue
        except ApiError as refused:
            if refused.reason != "AlreadyExists":
                raise
        current = await store.get("", name)
        if strategy is namespaces.STRATEGY or _kept(current):
            continue
        if meta.section(current, "roleRef") != meta.section(default, "roleRef"):
            # It gives another role: our subjects must not get that one.
            await store.delete("", name, write)
            await store.create("", default, write)
        else:
            await store.update("", name, functools.partial(_restored, default), write)


def _kept(current: Object) -> bool:
    return meta.annotations(current).get(bootstraproles.AUTOUPDATE) == "false"


def _restored(default: Object, current: Object) -> Object:
    if _kept(current):
        return current
    metadata, wanted = meta.section(current, "metadata"), meta.section(default, "metadata")
    for key in ("labels", "annotations"):
        metadata[key] = meta.section(metadata, key) | meta.section(wanted, key)
    if "aggregationRule" in default:
        gathering: Object = {**meta.section(current, "aggregationRule")}
        _add(gathering, "clusterRoleSelectors", meta.section(default, "aggregationRule"))
        return {**current, "aggregationRule": gathering}
    for key in ("rules", "subjects"):
        _add(current, key, default)
    return current


def _add(current: Object, key: str, default: Object) -> None:
    """Add to a list what it lacks of the default's."""
    found = rolerules.objects(current.get(key))
    missing = [entry for entry in rolerules.objects(default.get(key)) if entry not in found]
    if missing:
        current[key] = [*found, *missing]
