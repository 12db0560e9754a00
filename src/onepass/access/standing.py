"""Whether a stream that is open still has its right: what was asked at its beginning, asked again."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from onepass.access import requestinfo, rules
from onepass.access.attributes import Attributes
from onepass.access.identity import Identity
from onepass.access.policy import Policy

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MUST_SEE = "the cluster must now see the user, and saw the gateway when the stream began"
_ACCOUNT = "system:serviceaccount:"

# The headers by which a client asked to act as somebody else, as they came: name, value, name, value.
Headers = tuple[str, ...]
# What of that the gateway's own API makes: whom the client is then, and all that it must be allowed for it.
Acting = Callable[[Headers], tuple[Identity, Sequence[Attributes]] | None]
# Whether an authority that is not the gateway's own, by its digest, has taken a serial number back.
Elsewhere = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Claim:
    """All that decides about a stream. `cluster` is "" for the gateway's own API; `path` is the one there."""

    user: str
    groups: tuple[str, ...]
    uid: str
    serial: str  # of the client certificate; "" without one
    cluster: str
    method: str
    path: str
    query: str
    upgrade: bool
    headers: Headers = ()
    as_user: bool = False  # the member sees the user, and not the gateway
    issuer: str = ""  # digest of the authority that has signed it; "" for the gateway's own
    front: str = ""  # by a host cluster, whose RBAC has decided: "ignore" or "narrow" (gateway/frontproxy.lua)
    attributes: Attributes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Raises requestinfo.Malformed for what the gatekeeper would not have let pass."""
        asked = requestinfo.attributes(self.method, self.path, self.query, self.upgrade)
        object.__setattr__(self, "attributes", asked)


@dataclass(frozen=True, slots=True)
class Standing:
    """`lost` says why the stream must end, "" when it goes on: until `until` (Unix seconds; None: without end)."""

    lost: str = ""
    until: int | None = None


def judge(policy: Policy, claim: Claim, now: float, acting: Acting, elsewhere: Elsewhere) -> Standing:
    """Whether the right holds at `now`, by the rule that let the stream begin or by any other."""
    taken_back = elsewhere(claim.issuer, claim.serial) if claim.issuer else claim.serial in policy.revoked
    if claim.serial and taken_back:
        return Standing("the client certificate has been revoked")
    if claim.front and (not claim.cluster or not _asks_passes(claim)):
        return _by_host(policy, claim)
    if not claim.front and claim.user.startswith(_ACCOUNT) and policy.accounts.get(claim.user) != claim.uid:
        return Standing("the service account of the token is gone")
    identity = Identity(claim.user, claim.groups, claim.uid)
    if not claim.cluster:
        return _at_home(policy, identity, claim, acting)
    wanted = _impersonation(claim.headers)
    found = rules.decide(policy, identity, claim.cluster, claim.method, claim.attributes, claim.upgrade, now, wanted)
    if found.code != 200:
        return Standing(found.message)
    if found.mode == "Impersonate" and not claim.as_user and wanted is None:
        return Standing(_MUST_SEE)
    return Standing(until=found.until)


def _asks_passes(claim: Claim) -> bool:
    """What the host has judged as a read, and is more, passes must allow; and everything when they narrow."""
    return claim.front == "narrow" or (claim.upgrade and claim.method != "POST")


def _by_host(policy: Policy, claim: Claim) -> Standing:
    """The host's decision is taken once, when the stream begins, as by kube-apiserver for what is its own."""
    if not claim.cluster:
        return Standing()
    target = policy.targets.get(claim.cluster)
    if target is None:
        return Standing(f'clusters.cluster.karpor.io "{claim.cluster}" not found')
    if target.mode == "Impersonate" and not claim.as_user:
        return Standing(_MUST_SEE)
    return Standing()


def _at_home(policy: Policy, identity: Identity, claim: Claim, acting: Acting) -> Standing:
    """On the gateway's own API, where RBAC alone decides, also about acting as somebody else."""
    acts = acting(claim.headers) if claim.headers else None
    if acts is not None:
        other, needed = acts
        if not all(rules.allows(policy, identity, asked).allowed for asked in needed):
            return Standing(f'User "{identity.user}" may no longer act as "{other.user}"')
        identity = other
    if rules.allows(policy, identity, claim.attributes).allowed:
        return Standing()
    asked = claim.attributes
    return Standing(f'User "{identity.user}" may no longer {asked.verb} {asked.qualified or asked.path}')


def _impersonation(headers: Headers) -> Identity | None:
    """As the gatekeeper reads the headers, which has refused what cannot be read."""
    named: dict[str, list[str]] = {}
    for name, value in zip(headers[::2], headers[1::2], strict=True):
        named.setdefault(name, []).append(value)
    extra: Mapping[str, tuple[str, ...]] = {
        _unescaped(name.removeprefix("impersonate-extra-")): tuple(values)
        for name, values in named.items()
        if name.startswith("impersonate-extra-")
    }
    user, uid = ("".join(named.get(f"impersonate-{field}", ())) for field in ("user", "uid"))
    groups = tuple(named.get("impersonate-group", ()))
    return Identity(user, groups, uid, extra) if user or groups or uid or extra else None


def _unescaped(key: str) -> str:
    return key if _BAD_ESCAPE.search(key) else unquote(key)
