"""The gateway's own API server, put together."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

import onepass
from onepass.access import rules
from onepass.access.attributes import Attributes
from onepass.access.identity import Identity
from onepass.access.policy import Policy, Rule
from onepass.access.rules import Verdict
from onepass.apiserver import (
    app,
    approval,
    authentication,
    escalation,
    issuer,
    memberreviews,
    placement,
    reachable,
    reviewers,
    tokenrequest,
)
from onepass.apiserver.ports import Check, VersionInfo
from onepass.pki import tokens
from onepass.registry import clusters, namespaces, serviceaccounts
from onepass.registry.store import Store
from onepass.runtime.accounts import Accounts

GetPolicy = Callable[[], Policy]


@dataclass(frozen=True, slots=True)
class Own:
    """Who may do what on the gateway's own API."""

    policy: GetPolicy

    async def allows(self, identity: Identity, attributes: Attributes) -> Verdict:
        return rules.allows(self.policy(), identity, attributes)

    async def rules(self, identity: Identity, namespace: str) -> tuple[Sequence[Rule], str]:
        return rules.rules_for(self.policy(), identity, namespace), ""


@dataclass(frozen=True, slots=True)
class OnMember:
    """Who may do what on a member, by the gateway's rules."""

    policy: GetPolicy
    cluster: str

    async def allows(self, identity: Identity, attributes: Attributes) -> Verdict:
        return rules.review(self.policy(), identity, self.cluster, attributes, time.time())

    async def rules(self, identity: Identity, namespace: str) -> tuple[Sequence[Rule], str]:
        return rules.member_rules(self.policy(), identity, self.cluster, namespace, time.time())


@dataclass(frozen=True, slots=True)
class Issuing:
    """What service-account tokens say of their issuer: the first for new ones, any for those that are taken."""

    issuers: Sequence[str]
    jwks_uri: str


def build(
    stores: Mapping[str, Store],
    policy: GetPolicy,
    key: ec.EllipticCurvePrivateKey,
    checks: Mapping[str, Check],
    issuing: Issuing,
    virtual: Sequence[Store] = (),
    registry: CollectorRegistry | None = None,
) -> Starlette:
    """The ASGI application; `stores` by Resource.key in the order of discovery, `virtual` what is stored nowhere."""
    own, accounts = Own(policy), Accounts(key, issuing.issuers, policy)

    async def current() -> Policy:
        return policy()

    return app.build(
        stores=[*stores.values(), *virtual],
        authenticate=authentication.front_proxy,
        authorize=own,
        version=VersionInfo("1", "36", f"v1.36.0+onepass.{onepass.__version__}"),
        connects=(
            tokenrequest.connect(stores[serviceaccounts.STRATEGY.resource.key], accounts.sign),
            memberreviews.connect(clusters.RESOURCE, own, lambda name: OnMember(policy, name)),
        ),
        kindless=(
            *reviewers.every(own, accounts.verify),
            reachable.kindless(lambda identity: rules.reachable(policy(), identity, time.time())),
        ),
        admissions=(
            approval.admission(own),
            escalation.admission(current),
            placement.admission(stores[namespaces.RESOURCE.key]),
        ),
        checks=checks,
        registry=registry,
        aliases=memberreviews.ALIASES,
        judged=authentication.judged_by_host,
        documents=issuer.routes(issuing.issuers[0], issuing.jwks_uri, lambda: tokens.jwks([key.public_key()])),
    )
