"""Aggregated ClusterRoles get the rules that they gather, through one another, and follow changes."""

import asyncio

from tests.unit.test_registry_mirror import running

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.controllers.aggregate import ROLES, Aggregate
from onepass.registry import rbac
from onepass.registry.mirror import Mirror
from onepass.registry.store import Store, Write
from onepass.runtime.statuses import Statuses
from onepass.storage.interface import Storage


def rule(resource: str) -> Object:
    return {"apiGroups": [""], "resources": [resource], "verbs": ["get"]}


def whole(name: str, *values: str, label: str = "") -> Object:
    selectors: list[JSON] = [{"matchLabels": {"to": value}} for value in values]
    metadata: Object = {"name": name, "labels": {"to": label} if label else {}}
    return {"metadata": metadata, "aggregationRule": {"clusterRoleSelectors": selectors}, "rules": [rule("own")]}


def part(name: str, to: str, *resources: str) -> Object:
    return {"metadata": {"name": name, "labels": {"to": to}}, "rules": [rule(resource) for resource in resources]}


def resources(mirror: Mirror, name: str) -> list[JSON]:
    listed = (mirror.get(ROLES, name) or {}).get("rules")
    rules = listed if isinstance(listed, list) else []
    return [resource for each in rules if isinstance(each, dict) for resource in (each["resources"] or [])]  # type: ignore[union-attr]


async def until(mirror: Mirror, name: str, wanted: list[str]) -> None:
    while resources(mirror, name) != wanted:
        await mirror.changed(mirror.generation)


async def test_rules_are_gathered_and_kept_in_step(storage: Storage, write: Write) -> None:
    store = Store(storage, rbac.CLUSTER_ROLES)
    for role in (whole("admin", "admin"), whole("view", "view", label="admin"), part("a", "view", "pods", "nodes")):
        await store.create("", role, write)
    mirror = Mirror({ROLES: store})
    async with running(mirror):
        task = asyncio.create_task(Aggregate(mirror, Statuses(store)).run())
        try:
            await until(mirror, "view", ["pods", "nodes"])
            await until(mirror, "admin", ["pods", "nodes"])
            await store.create("", part("b", "view", "nodes", "events"), write)
            await until(mirror, "admin", ["pods", "nodes", "events"])
            await store.update("", "admin", lambda obj: {**obj, "rules": [rule("secrets")]}, write)
            await until(mirror, "admin", ["pods", "nodes", "events"])
            await store.delete("", "a", write)
            await until(mirror, "admin", ["nodes", "events"])
            assert meta.name(mirror.get(ROLES, "b") or {}) == "b"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
