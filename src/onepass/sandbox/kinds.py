"""The one table of what a member serves, in the order in which discovery tells it."""

from onepass.registry import namespaces, rbac, serviceaccounts
from onepass.registry.strategy import Strategy
from onepass.sandbox import objects, pods


def member(node: str) -> tuple[Strategy, ...]:
    """Every kind of a member whose one node is called `node`."""
    return (
        namespaces.STRATEGY,
        objects.NODES,
        pods.strategy(node),
        objects.CONFIG_MAPS,
        objects.SECRETS,
        objects.SERVICES,
        objects.EVENTS,
        serviceaccounts.STRATEGY,
        *rbac.STRATEGIES,
    )
