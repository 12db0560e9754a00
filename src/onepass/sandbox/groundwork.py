"""What a member has from the start: its node, its namespaces, and the roles that real clusters have too."""

import os
import platform
from collections.abc import Mapping, Sequence

from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.registry import defaults, lifecycle, namespaces, rbac
from onepass.registry.store import Store, Write
from onepass.registry.strategy import Actor, Strategy
from onepass.sandbox import objects

VERSION = "v1.36.0+sandbox"

_READ = ("get", "list", "watch")
_WRITE = ("create", "update", "patch", "delete", "deletecollection")
_SEEN = ("configmaps", "events", "namespaces", "pods", "pods/log", "pods/status", "serviceaccounts", "services")
_CHANGED = (
    *("configmaps", "pods", "pods/attach", "pods/exec", "pods/portforward", "secrets"),
    *("serviceaccounts", "services"),
)
_OWN = ("system:discovery", "system:basic-user")


def _rule(resources: Sequence[str], verbs: Sequence[str], group: str = "") -> JSON:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


def _role(name: str, *rules: JSON) -> tuple[Strategy, Object]:
    return rbac.CLUSTER_ROLES, {"metadata": {"name": name}, "rules": list(rules)}


_EDIT = (_rule(_SEEN, _READ), _rule(("secrets",), _READ), _rule(_CHANGED, _WRITE), _rule(("pods/exec",), ("get",)))
_ROLES = ("roles", "rolebindings")


def _namespace(name: str) -> tuple[Strategy, Object]:
    return namespaces.STRATEGY, {"metadata": {"name": name}}


def _from_defaults(obj: Object, strategy: Strategy) -> bool:
    """Which of the gateway's own default objects any cluster has."""
    return meta.name(obj) in _OWN or (strategy is rbac.CLUSTER_ROLES and meta.name(obj) == "cluster-admin")


_ADMINISTRATORS: Object = {
    "metadata": {"name": "cluster-admin"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:masters"}],
}

OBJECTS: Sequence[tuple[Strategy, Object]] = (
    *(_namespace(name) for name in ("default", "kube-public", "kube-system")),
    *((strategy, obj) for strategy, obj in defaults.OBJECTS if _from_defaults(obj, strategy)),
    (rbac.CLUSTER_ROLE_BINDINGS, _ADMINISTRATORS),
    _role("view", _rule(_SEEN, _READ)),
    _role("edit", *_EDIT),
    _role("admin", *_EDIT, _rule(_ROLES, (*_READ, *_WRITE), "rbac.authorization.k8s.io")),
)


async def lay(stores: Mapping[str, Store], node: str, actor: Actor) -> None:
    """Make what is missing, and tell the node's state anew. `stores` by Resource.key."""
    own: Object = {"metadata": {"name": node, "labels": _labels(node)}}
    for strategy, obj in (*OBJECTS, (objects.NODES, own)):
        try:
            await stores[strategy.resource.key].create("", obj, Write(actor))
        except ApiError as refused:
            if refused.reason != "AlreadyExists":
                raise

    def with_status(stored: Object) -> Object:
        return {**stored, "status": _node_status(actor.now)}

    await stores[objects.NODE.key].update("", node, with_status, Write(actor, subresource="status"))


def _labels(node: str) -> Object:
    return {"kubernetes.io/hostname": node, "kubernetes.io/os": "linux", "node-role.kubernetes.io/sandbox": ""}


def _node_status(now: float) -> Object:
    moment = lifecycle.timestamp(now)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    room: Object = {"cpu": str(os.cpu_count() or 1), "memory": f"{memory}Ki", "pods": "110"}
    ready: JSON = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "the sandbox runs containers as local processes",
        "lastHeartbeatTime": moment,
        "lastTransitionTime": moment,
    }
    return {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": "localhost"}],
        "capacity": room,
        "allocatable": dict(room),
        "conditions": [ready],
        "nodeInfo": {
            "architecture": platform.machine(),
            "containerRuntimeVersion": "sandbox://1",
            "kernelVersion": platform.release(),
            "kubeletVersion": VERSION,
            "kubeProxyVersion": "",
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
            "operatingSystem": "linux",
            "osImage": platform.platform(),
        },
    }
