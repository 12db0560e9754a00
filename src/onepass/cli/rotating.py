"""Giving a registered member another credential."""

import shlex
import time
from dataclasses import dataclass, replace

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.cli import accounttoken, claims, client, clusterviews, enrolment, foothold
from onepass.cli.failure import Failure
from onepass.cli.foothold import Foothold
from onepass.cli.memberclient import Member
from onepass.cli.memberconfig import Access
from onepass.controllers import rotate

ROTATED_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Rotation:
    """Another credential for a registered member, and the authorities that go with it."""

    gateway: client.Gateway
    name: str

    @property
    def path(self) -> str:
        return f"{client.CLUSTERS}/{client.segment(self.name)}"

    def renew(self) -> Object:
        """Have the gateway renew its token now. Raises Failure."""
        before = enrolment.registered(self.gateway, self.name)
        if clusterviews.credential(before).get("renew") is not True:
            raise Failure(
                f"the gateway cannot renew the credential of {self.name} by itself",
                f"give it a new one: onepass cluster rotate {shlex.quote(self.name)} --kubeconfig FILE",
            )
        old = _fingerprint(before)
        self.gateway.merge(self.path, {"metadata": {"annotations": {rotate.REQUESTED: str(int(time.time()))}}})
        found = self.gateway.wait(client.CLUSTERS, self.name, lambda obj: _fingerprint(obj) != old, ROTATED_SECONDS)
        if found is None:
            why = _why(self.gateway.get(self.path)) or "it has not said why yet"
            raise Failure(
                f"the gateway has not renewed the credential of {self.name}: {why}",
                f"it keeps trying, and uses the present one: onepass cluster show {shlex.quote(self.name)}",
            )
        return found

    def swap(self, access: Access, member: Member, seconds: int) -> Object:
        """Store what a kubeconfig has, or for a joined member another token of its account. Raises Failure.

        The kubeconfig is tried first: what does not work does not take the place of what does.
        """
        cluster = enrolment.registered(self.gateway, self.name)
        enrolment.same_place(cluster, member)
        member.get("/version")
        namespace = foothold.joined(cluster)
        if namespace:
            ground = Foothold(self.name, namespace, "")
            self._ours(member, ground)
            token = accounttoken.issue(member, ground, seconds)
            access = replace(access, token=token, certificate=b"", private_key=b"")
        new = access.spec()
        credential = meta.section(new, "credential")
        # A merge patch: what is not given stays, so what is to go is said.
        cleared: dict[str, JSON] = {"serviceAccountToken": None, "x509": None, "execConfig": None, "fingerprint": None}
        change: Object = {
            "caBundle": new.get("caBundle"),
            "serverName": new.get("serverName"),
            "credential": cleared | {"renew": True if namespace else None} | credential,
        }
        if "proxyURL" in new:
            change["proxyURL"] = new["proxyURL"]
        return self.gateway.merge(self.path, {"spec": {"access": change}})

    def _ours(self, member: Member, ground: Foothold) -> None:
        """Raises Failure when the account is not what a join of this cluster made: it may have more rights."""
        space, claim = member.get(ground.home), claims.claim(self.gateway, self.name)
        if space is not None and not claim.holds(space):
            raise Failure(
                f"the namespace {ground.namespace} of the member {claim.holder(space)}: its account gets no token",
                "see who has changed the annotation of the Cluster, and join it again",
            )


def _fingerprint(cluster: Object) -> str:
    return meta.text(clusterviews.credential(cluster), "fingerprint")


def _why(cluster: Object) -> str:
    found = (each for each in clusterviews.conditions(cluster) if each.get("type") == rotate.CONDITION)
    return meta.text(next(found, {}), "message")
