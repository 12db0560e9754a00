"""Who may do what on a member: its own RBAC, and `system:masters` before it, as on a real cluster."""

from collections.abc import Mapping, Sequence

from onepass.access import compile as compiler
from onepass.access import rules
from onepass.access.attributes import Attributes
from onepass.access.identity import Identity
from onepass.access.policy import Policy, Rule
from onepass.access.rules import Verdict
from onepass.registry import serviceaccounts
from onepass.registry.mirror import Mirror
from onepass.registry.rbac import STRATEGIES
from onepass.registry.store import Store

MASTERS = "system:masters"
_KINDS = tuple(strategy.resource.key for strategy in (*STRATEGIES, serviceaccounts.STRATEGY))


class Rights:
    """Decides by the RBAC objects as a mirror of the member's stores has them."""

    def __init__(self, stores: Mapping[str, Store]) -> None:
        self._mirror = Mirror({key: stores[key] for key in _KINDS})
        self._compiler = compiler.Compiler()
        self._generation = -1
        self._policy = Policy()

    async def run(self) -> None:
        """Follow the objects until cancelled."""
        await self._mirror.run()

    async def synced(self) -> None:
        """Returns once the objects are known; before, nothing is allowed but to masters."""
        await self._mirror.synced()

    async def allows(self, identity: Identity, attributes: Attributes) -> Verdict:
        if MASTERS in identity.groups:
            return Verdict(True, f"group {MASTERS}")
        return rules.allows(self.policy(), identity, attributes)

    async def rules(self, identity: Identity, namespace: str) -> tuple[Sequence[Rule], str]:
        if MASTERS in identity.groups:
            everything = frozenset({"*"})
            return (Rule(everything, everything, everything), Rule(everything, paths=("*",))), ""
        return rules.rules_for(self.policy(), identity, namespace), ""

    def policy(self) -> Policy:
        """RBAC and service accounts as they are now."""
        generation = self._mirror.generation
        if generation != self._generation:
            self._policy = self._compiler.compile({key: self._mirror.list(key) for key in _KINDS})
            self._generation = generation
        return self._policy
