"""Writes into each aggregated ClusterRole the rules that it gathers, as kube-controller-manager does.

Whoever decides gathers them anew (access.compile): what stands here is for people and for `kubectl describe`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from onepass.access import labels
from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.controllers import feed
from onepass.controllers.loop import Loop

ROLES = "clusterroles.rbac.authorization.k8s.io"


class Roles(Protocol):
    """Changes a role; the registry's store in disguise."""

    async def change(self, name: str, uid: str, change: Callable[[Object], Object]) -> None: ...


def gathered(objects: feed.Objects, role: Object) -> list[JSON]:
    """The rules of the roles that a role selects, each once, in the order of the roles' names."""
    aggregation = meta.section(role, "aggregationRule").get("clusterRoleSelectors")
    selectors = [
        labels.requirements(each)
        for each in (aggregation if isinstance(aggregation, list) else [])
        if isinstance(each, dict)
    ]
    found: list[JSON] = []
    for other in objects.list(ROLES):
        rules = other.get("rules")
        if meta.name(other) == meta.name(role) or not isinstance(rules, list):
            continue
        if any(labels.chooses(selector, meta.labels(other)) for selector in selectors):
            found += [rule for rule in rules if rule not in found]
    return found


@dataclass(slots=True)
class Aggregate:
    """The controller."""

    objects: feed.Objects
    roles: Roles

    async def run(self) -> None:
        """Until cancelled."""
        loop = Loop("aggregate", self.reconcile)
        await feed.run(self.objects, ROLES, loop, self._version, beside={ROLES: meta.resource_version})

    async def reconcile(self, name: str) -> float | None:
        role = self.objects.get(ROLES, name)
        if role is None or "aggregationRule" not in role:
            return None
        rules = gathered(self.objects, role)
        if rules != (role.get("rules") or []):
            await self.roles.change(name, meta.uid(role), lambda current: {**current, "rules": rules})
        return None

    def _version(self, role: Object) -> object:
        """Changes with what the role gathers; a plain role has nothing to do."""
        if "aggregationRule" not in role:
            return None
        rules = gathered(self.objects, role)
        return repr(rules), rules == (role.get("rules") or [])
