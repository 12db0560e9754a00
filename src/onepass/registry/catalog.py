"""The one table of what the gateway serves, in the order in which discovery tells it."""

from onepass.registry import (
    certificatesigningrequests,
    clusters,
    destinations,
    namespaces,
    passes,
    rbac,
    serviceaccounts,
)
from onepass.registry.strategy import Strategy


def gateway(
    *, bounds: destinations.GetBounds = destinations.anywhere, exec_allowed: frozenset[str] = frozenset()
) -> tuple[Strategy, ...]:
    """Every kind; what the operator decides about clusters comes in (see clusters.strategy)."""
    return (
        namespaces.STRATEGY,
        serviceaccounts.STRATEGY,
        certificatesigningrequests.STRATEGY,
        *rbac.STRATEGIES,
        clusters.strategy(bounds=bounds, exec_allowed=exec_allowed),
        passes.STRATEGY,
    )


GATEWAY = gateway()
