"""The gateway's own API server, put together."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette

import onepass
from onepass.access import rules
from onepass.access.attributes import Attributes
from onepass.access.identity import AUTHENTICATED, Identity
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
from onepass.apiserver.reviewers import Verified
from onepass.pki import tokens
from onepass.registry import clusters, namespaces, serviceaccounts
from onepass.registry.store import Store

_TOKEN_LONGEST = 30 * 86400  # seconds

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


@dataclass(frozen=True, slots=True)
class Accounts:
    """Makes and verifies service-account tokens."""

    key: ec.EllipticCurvePrivateKey
    issuers: Sequence[str]
    policy: GetPolicy

    def sign(
        self, account: tokenrequest.Account, audiences: Sequence[str], seconds: int, now: float
    ) -> tokenrequest.Token:
        granted = tuple(audiences) or (self.issuers[0],)
        bound = tokens.Account(account.namespace, account.name, account.uid)
        token = tokens.Token(bound, granted, int(now), int(now) + min(seconds, _TOKEN_LONGEST), str(uuid.uuid4()))
        return tokenrequest.Token(tokens.sign(self.key, self.issuers[0], token), granted, token.expires)

    async def verify(self, text: str, audiences: Sequence[str]) -> Verified | None:
        """As the data plane does: also the account must still be there, and the same one."""
        wanted = tuple(audiences or self.issuers)
        try:
            token = tokens.verify(text, [self.key.public_key()], self.issuers, wanted, time.time())
        except tokens.TokenRefused:
            return None
        account = token.account
        if self.policy().accounts.get(account.user) != account.uid:
            return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{account.namespace}", AUTHENTICATED)
        has = tuple(audience for audience in wanted if audience in token.audiences)
        return Verified(Identity(account.user, groups, account.uid), has)


def build(
    stores: Mapping[str, Store],
    policy: GetPolicy,
    key: ec.EllipticCurvePrivateKey,
    checks: Mapping[str, Check],
    issuing: Issuing,
    virtual: Sequence[Store] = (),
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
        aliases=memberreviews.ALIASES,
        judged=authentication.judged_by_host,
        documents=issuer.routes(issuing.issuers[0], issuing.jwks_uri, lambda: tokens.jwks([key.public_key()])),
    )
