"""Service accounts: identities for programs. The API server makes their tokens, on `serviceaccounts/NAME/token`."""

from onepass.api import core_v1
from onepass.api.meta import JSON, Object, Resource
from onepass.registry.strategy import Column, Strategy


def _secrets(obj: Object, _now: float) -> JSON:
    named = obj.get("secrets")
    return len(named) if isinstance(named, list) else 0


STRATEGY = Strategy(
    resource=Resource("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", True, short_names=("sa",)),
    model=core_v1.ServiceAccount,
    columns=(Column("Secrets", _secrets, type="integer", description="How many secrets it names."),),
    tells_deleted=True,
)
