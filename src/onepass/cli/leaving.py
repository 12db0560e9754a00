"""Leaving a member: the Cluster here, and what a join made there."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from onepass.api import meta
from onepass.api.meta import Object
from onepass.cli import claims, client, clusterviews, enrolment, foothold
from onepass.cli.claims import Claim
from onepass.cli.failure import Failure, Refused, Unreachable
from onepass.cli.foothold import Foothold
from onepass.cli.memberclient import Member
from onepass.registry import names


class Shut(Failure):
    """The member cannot be reached, or does not let its administrator in."""


@dataclass(frozen=True, slots=True)
class Leave:
    """One member to leave. May be repeated: what is gone already is no mistake."""

    gateway: client.Gateway
    claim: Claim
    namespace: str = ""  # "": where the Cluster says that it joined

    @property
    def name(self) -> str:
        return self.claim.cluster

    @property
    def path(self) -> str:
        return f"{client.CLUSTERS}/{client.segment(self.name)}"

    def run(self, member: Member) -> list[str]:
        """What was taken away, as words. Raises Failure, having changed nothing, when this is the wrong member."""
        cluster = enrolment.find(self.gateway, self.name)
        with self._advised():
            namespace = self._joined(cluster) if cluster else self.namespace
            if not cluster and not namespace:
                namespace = next(iter(claims.spaces(member, self.claim)), foothold.NAMESPACE)
            ground = Foothold(self.name, namespace, "")
            if cluster:
                enrolment.same_place(cluster, member)
            self._ours(member, ground)
        gone = []
        if cluster:  # first, so that no request meets an account that is gone
            self.gateway.delete(self.path)
            gone.append(f"Cluster {self.name}")
        with self._advised():
            for each in ground.paths():
                found = member.take(each, self.claim.holds)
                if found is not None:
                    gone.append(f"{meta.text(found, 'kind') or each} {meta.name(found)} of the member")
        return gone

    def abandon(self) -> list[str]:
        """Take the Cluster alone away: the commands that take away what remains in the member. Raises Failure."""
        cluster = enrolment.registered(self.gateway, self.name)
        ground = Foothold(self.name, self._joined(cluster), "")
        if names.label(ground.namespace):
            raise Failure("--namespace is no name of a namespace", "leave it out, or write it as join had it")
        itself = meta.text(clusterviews.access(cluster), "identity") == "Impersonate"
        self.gateway.delete(self.path)
        kinds = ["clusterrolebinding", *(["clusterrole"] if itself else [])]
        return [
            *(f"kubectl delete {kind} {shlex.quote(ground.binding)}" for kind in kinds),
            # By its label as well: the Cluster may have been made to name a namespace of somebody else.
            f"kubectl delete namespace -l {foothold.LABEL} --field-selector metadata.name={ground.namespace}",
        ]

    def _joined(self, cluster: Object) -> str:
        """The namespace of its account."""
        namespace = self.namespace or foothold.joined(cluster)
        if not namespace:
            raise Failure(
                f"{self.name} was not joined: OnePass has put nothing into that member",
                f"take it away here: onepass cluster remove {shlex.quote(self.name)}",
            )
        return namespace

    def _ours(self, member: Member, ground: Foothold) -> None:
        """Raises Failure when the namespace is not what a join of this cluster made."""
        space = member.get(ground.home)
        if space is not None and not self.claim.holds(space):
            raise Failure(
                f"the namespace {ground.namespace} of the member {self.claim.holder(space)}: nothing is taken away",
                "choose the kubeconfig and context of the member that is to be left, or name its --namespace",
            )

    @contextmanager
    def _advised(self) -> Iterator[None]:
        """To what a member says that lets nobody in: how to do without it. Raises Shut."""
        try:
            yield
        except (Unreachable, Refused) as failed:
            raise Shut(failed.what, "\n".join(filter(None, (failed.hint, without(self.name))))) from failed


def without(name: str) -> str:
    """What to do about a member that is gone, or that its administrator cannot log in to."""
    command = f"onepass cluster leave {shlex.quote(name)} --force"
    return f"if that member is gone for good, or nobody can log in to it: {command}"
