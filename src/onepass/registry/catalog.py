"""The one table of what the gateway serves, in the order in which discovery tells it."""

from collections.abc import Callable, Sequence

from onepass.registry import (
    certificatesigningrequests,
    clusters,
    destinations,
    execplugins,
    namespaces,
    passes,
    rbac,
    serviceaccounts,
)
from onepass.registry.strategy import Strategy


def gateway(
    *,
    bounds: destinations.GetBounds = destinations.anywhere,
    plugins: Sequence[execplugins.Plugin] = (),
    is_cluster: Callable[[str], bool] = passes.anything,
) -> tuple[Strategy, ...]:
    """Every kind; what the operator decides about clusters comes in, and which there are (see clusters, passes)."""
    return (
        namespaces.STRATEGY,
        serviceaccounts.STRATEGY,
        certificatesigningrequests.STRATEGY,
        *rbac.STRATEGIES,
        clusters.strategy(bounds=bounds, plugins=plugins),
        passes.strategy(is_cluster),
    )


GATEWAY = gateway()
