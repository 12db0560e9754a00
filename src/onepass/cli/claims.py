"""Whose it is what a join has made in a member: marks on each object, and how they are read again.

The marks say where an object comes from and prove nothing: whoever may make a namespace in the member can write them.
So what bears them may be taken away, and is never built upon.
"""

import secrets
from dataclasses import dataclass

from onepass.api import meta
from onepass.api.meta import Object
from onepass.cli import client, foothold, memberclient
from onepass.cli.failure import Refused
from onepass.cli.memberclient import Member
from onepass.registry import names

CLUSTER = "onepass.karpor.io/cluster"  # which Cluster it belongs to
GATEWAY = "onepass.karpor.io/gateway"  # of which gateway
URL = "onepass.karpor.io/gateway-url"  # where that was, for people
ATTEMPT = "onepass.karpor.io/attempt"  # which run of `join` made it; on a Cluster, until that run is done
_HOME = "/api/v1/namespaces/kube-system"  # whose uid tells one cluster from another, by a custom of Kubernetes


@dataclass(frozen=True, slots=True)
class Claim:
    """One cluster of one gateway; `gateway` is "" when the user may not know its uid. `attempt` is of one command."""

    gateway: str
    url: str
    cluster: str
    attempt: str

    @property
    def marks(self) -> dict[str, str]:
        """The annotations of what is made."""
        found = {CLUSTER: self.cluster, GATEWAY: self.gateway, URL: self.url, ATTEMPT: self.attempt}
        return {key: value for key, value in found.items() if value}

    def made(self, obj: Object) -> bool:
        """Whether this attempt made it."""
        return meta.annotations(obj).get(ATTEMPT) == self.attempt

    def covers(self, obj: Object) -> bool:
        """Whether an attempt of this gateway made it for this cluster, this one or an earlier one."""
        found = meta.annotations(obj)
        theirs = (found.get(CLUSTER), found.get(GATEWAY))
        return is_ours(obj) and bool(self.gateway) and theirs == (self.cluster, self.gateway)

    def holds(self, obj: Object) -> bool:
        """As `covers`, also of what was made before marks named a gateway, or for who may not know which it is."""
        found = meta.annotations(obj)
        here = not self.gateway or found.get(GATEWAY, self.gateway) == self.gateway
        return is_ours(obj) and found.get(CLUSTER) == self.cluster and here

    def holder(self, obj: Object) -> str:
        """Whose an object is that this claim does not cover: the end of a sentence."""
        found = meta.annotations(obj)
        if not is_ours(obj):
            return "was not made by OnePass"
        cluster = found.get(CLUSTER, "")
        if self.gateway and found.get(GATEWAY, "") not in ("", self.gateway):
            return f"belongs to the cluster {cluster} of another gateway, {found.get(URL, '')}"
        if cluster != self.cluster:
            return f"belongs to the cluster {cluster}"
        return "is of an earlier time, or of another gateway"

    def named(self, obj: Object) -> str:
        """By which name `leave` of this gateway takes an object away. A mark that is no name is nothing to type."""
        found = meta.annotations(obj)
        cluster = found.get(CLUSTER, "")
        ours = is_ours(obj) and found.get(GATEWAY, "") in ("", self.gateway)
        return cluster if ours and not names.subdomain(cluster) else self.cluster


def claim(gateway: client.Gateway, cluster: str) -> Claim:
    """The claim of a new attempt. Raises Failure."""
    try:
        uid = meta.uid(gateway.get(_HOME))
    except Refused as refused:
        if refused.code not in (403, 404):
            raise
        uid = ""
    return Claim(uid, gateway.url, cluster, secrets.token_hex(8))


def spaces(member: Member, claim: Claim) -> list[str]:
    """The namespaces that attempts of this claim have left in the member; none where the user may not list them."""
    try:
        found = member.list(foothold.spaces())
    except Refused as refused:
        if refused.code != 403:
            raise
        return []
    return [meta.name(each) for each in found if claim.covers(each) and not memberclient.going(each)]


def is_ours(obj: Object) -> bool:
    """Whether OnePass made it, of whichever gateway."""
    return all(meta.labels(obj).get(key) == value for key, value in foothold.LABELS.items())
