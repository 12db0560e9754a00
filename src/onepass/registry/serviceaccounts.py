"""Service accounts: identities for programs. The API server makes their tokens, on `serviceaccounts/NAME/token`."""

from onepass.api import core_v1
from onepass.api.meta import Resource
from onepass.registry.strategy import Strategy

STRATEGY = Strategy(
    resource=Resource("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", True, short_names=("sa",)),
    model=core_v1.ServiceAccount,
    columns=(),  # the number of secrets was one until Kubernetes 1.36
    tells_deleted=True,
)
