"""Joining a member, leaving it and giving it another credential.

The administrator's own credential is used here, on the way to the member, and goes nowhere else.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.cli import client, enrolment, foothold
from onepass.cli.failure import Failure, Refused
from onepass.cli.foothold import Foothold
from onepass.cli.memberclient import Member
from onepass.cli.memberconfig import Access
from onepass.controllers import rotate
from onepass.pki import lifetimes

ROTATED_SECONDS = 30.0
_PLACEHOLDER = "not-a-token-yet"  # of the dry run, before there is one


@dataclass(frozen=True, slots=True)
class Join:
    """One member to join; `seconds` is how long each token is to last."""

    gateway: client.Gateway
    member: Member
    access: Access
    wish: enrolment.Wish
    ground: Foothold
    seconds: int

    def run(self, judge: Callable[[], Object | None] | None) -> Object:
        """Raises Failure, and leaves nothing behind in either place. `judge` waits for the gateway's word on it."""
        self._check()
        made: list[str] = []
        registered = False
        try:
            for path, obj in self.ground.objects():
                self._create(path, obj)
                made.append(f"{path}/{meta.name(obj)}")
            cluster = enrolment.register(
                self.gateway, self._cluster(issue(self.member, self.ground, self.seconds), True)
            )
            registered = True
            return self._judged(cluster, judge) if judge else cluster
        except BaseException as error:
            self._undo(made, registered, error)
            raise

    def _check(self) -> None:
        """Everything that can be known before anything is changed."""
        if enrolment.leads_back(self.gateway, self.access.server):
            raise Failure(
                f"context {self.access.context} leads to this gateway itself", "name a member's own kubeconfig"
            )
        if self.access.insecure:
            raise Failure(
                f"context {self.access.context} leaves the server's certificate unchecked (insecure-skip-tls-verify): "
                "whoever answers there would get a credential",
                "put certificate-authority-data into the kubeconfig instead",
            )
        self.member.get("/version")
        if self.ground.role and self.member.get(foothold.role_path(self.ground.role)) is None:
            raise Failure(f"the member has no ClusterRole {self.ground.role}", "name one that is there with --role")
        enrolment.register(self.gateway, self._cluster(_PLACEHOLDER, False), dry_run=True)

    def _cluster(self, token: str, renew: bool) -> Object:
        """The Cluster to register, by the account's own token."""
        access = replace(self.access, token=token, certificate=b"", private_key=b"")
        obj = enrolment.cluster(self.ground.cluster, access, self.wish)
        meta.section(obj, "metadata")["annotations"] = {foothold.JOINED: self.ground.namespace}
        _credential(obj).update({"renew": True} if renew else {})
        return obj

    def _create(self, path: str, obj: Object) -> None:
        try:
            self.member.create(path, obj)
        except Refused as refused:
            if refused.code != 409:
                raise
            raise Failure(
                f"the member has a {meta.text(obj, 'kind')} {meta.name(obj)} already, of another gateway or of an "
                "earlier time",
                f"take it away: onepass cluster leave {self.ground.cluster} --kubeconfig FILE, or join in another "
                "namespace: --namespace NAME",
            ) from refused

    def _judged(self, cluster: Object, judge: Callable[[], Object | None]) -> Object:
        found = judge()
        result = enrolment.judged(enrolment.Result(self.access.context, meta.name(cluster), "registered"), found)
        if found is None or not result.good:
            raise Failure(
                f"you reach {self.access.server}, but the gateway does not: {result.why}",
                "mend that and join again, or join with --no-wait; nothing is left of this attempt",
            )
        return found

    def _undo(self, made: list[str], registered: bool, error: BaseException) -> None:
        """Take back, the newest first, what was made. Raises Failure when something remains."""
        left: list[str] = []
        if registered:
            try:
                self.gateway.delete(f"{client.CLUSTERS}/{client.segment(self.ground.cluster)}")
            except Failure as failed:
                left.append(f"the Cluster {self.ground.cluster} ({failed.what})")
        for path in reversed(made):
            try:
                self.member.delete(path)
            except Failure as failed:
                left.append(f"{path} ({failed.what})")
        if left:
            told = error.what if isinstance(error, Failure) else str(error) or type(error).__name__
            raise Failure(
                f"{told}; and it could not be taken back: {', '.join(left)}",
                f"take it away later: onepass cluster leave {self.ground.cluster} --kubeconfig FILE",
            ) from error


def issue(member: Member, ground: Foothold, seconds: int) -> str:
    """A bound token of the account. Raises Failure, also for a member that gives none that OnePass could renew."""
    try:
        answer = member.create(ground.token, foothold.token_request(seconds))
    except Refused as refused:
        if refused.code != 404:
            raise
        told = f"the member makes no token for {ground.namespace}/{foothold.ACCOUNT}: the account is gone"
        raise Failure(
            f"{told}, or it has no TokenRequest API (Kubernetes before 1.22)", "leave the member and join it again"
        ) from refused
    token = meta.text(meta.section(answer, "status"), "token")
    held = lifetimes.bound(token)
    if held is None:
        raise Failure(
            "the member's TokenRequest API gave no bound token", "OnePass needs Kubernetes 1.22 or later on a member"
        )
    if held.lifetime.ends <= time.time():
        raise Failure("the member gave a token that has ended already", "compare the clocks of this machine and of it")
    return token


@dataclass(frozen=True, slots=True)
class Leave:
    """One member to leave. May be repeated: what is gone already is no mistake."""

    gateway: client.Gateway
    member: Member
    name: str
    namespace: str = ""  # "": where the Cluster says that it joined

    def run(self) -> list[str]:
        """What was taken away, as words. Raises Failure, having changed nothing, when this is the wrong member."""
        path = f"{client.CLUSTERS}/{client.segment(self.name)}"
        cluster = find(self.gateway, self.name)
        namespace = self.namespace or (meta.annotations(cluster).get(foothold.JOINED, "") if cluster else "")
        if cluster and not namespace:
            raise Failure(
                f"{self.name} was not joined: OnePass has put nothing into that member",
                f"take it away here: onepass cluster remove {self.name}",
            )
        ground = Foothold(self.name, namespace or foothold.NAMESPACE, "")
        if cluster:
            same_place(cluster, self.member)
        self._ours(ground)
        gone = []
        if cluster:  # first, so that no request meets an account that is gone
            self.gateway.delete(path)
            gone.append(f"Cluster {self.name}")
        for each in ground.paths():
            found = self.member.get(each)
            if found is not None and _is_ours(found) and self.member.delete(each):
                gone.append(f"{meta.text(found, 'kind') or each} {meta.name(found)} of the member")
        return gone

    def _ours(self, ground: Foothold) -> None:
        """Raises Failure when the namespace is not what a join of this cluster made."""
        space = self.member.get(ground.home)
        if space is None:
            return
        whose = meta.annotations(space).get(foothold.CLUSTER, "")
        if not _is_ours(space) or whose != self.name:
            belongs = f"belongs to the cluster {whose}" if _is_ours(space) else "was not made by OnePass"
            raise Failure(
                f"the namespace {ground.namespace} of the member {belongs}: nothing is taken away",
                "choose the kubeconfig and context of the member that is to be left, or name its --namespace",
            )


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
        before = self.gateway.get(self.path)
        if _credential(before).get("renew") is not True:
            raise Failure(
                f"the gateway cannot renew the credential of {self.name} by itself",
                f"give it a new one: onepass cluster rotate {self.name} --kubeconfig FILE",
            )
        old = _fingerprint(before)
        self.gateway.merge(self.path, {"metadata": {"annotations": {rotate.REQUESTED: str(int(time.time()))}}})
        found = self.gateway.wait(client.CLUSTERS, self.name, lambda obj: _fingerprint(obj) != old, ROTATED_SECONDS)
        if found is None:
            why = _why(self.gateway.get(self.path)) or "it has not said why yet"
            raise Failure(
                f"the gateway has not renewed the credential of {self.name}: {why}",
                f"it keeps trying, and uses the present one: onepass cluster show {self.name}",
            )
        return found

    def swap(self, access: Access, member: Member, seconds: int) -> Object:
        """Store what a kubeconfig has, or for a joined member another token of its account. Raises Failure.

        The kubeconfig is tried first: what does not work does not take the place of what does.
        """
        cluster = self.gateway.get(self.path)
        same_place(cluster, member)
        member.get("/version")
        namespace = meta.annotations(cluster).get(foothold.JOINED, "")
        if namespace:
            token = issue(member, Foothold(self.name, namespace, ""), seconds)
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
        return self.gateway.merge(self.path, {"spec": {"access": change}})


def find(gateway: client.Gateway, name: str) -> Object | None:
    """The Cluster, None when there is none."""
    try:
        return gateway.get(f"{client.CLUSTERS}/{client.segment(name)}")
    except Refused as refused:
        if refused.code != 404:
            raise
        return None


def same_place(cluster: Object, member: Member) -> None:
    """Raises Failure when a kubeconfig leads elsewhere than a Cluster."""
    endpoint = meta.text(meta.section(meta.section(cluster, "spec"), "access"), "endpoint").rstrip("/")
    if endpoint != member.url.rstrip("/"):
        raise Failure(
            f"context {member.context} leads to {member.url}, and {meta.name(cluster)} is registered at {endpoint}",
            "choose the context of that member with --context",
        )


def _credential(cluster: Object) -> Object:
    return meta.section(meta.section(meta.section(cluster, "spec"), "access"), "credential")


def _fingerprint(cluster: Object) -> str:
    return meta.text(_credential(cluster), "fingerprint")


def _why(cluster: Object) -> str:
    listed = meta.section(cluster, "status").get("conditions")
    for each in listed if isinstance(listed, list) else []:
        if isinstance(each, dict) and each.get("type") == rotate.CONDITION:
            return meta.text(each, "message")
    return ""


def _is_ours(obj: Object) -> bool:
    return all(meta.labels(obj).get(key) == value for key, value in foothold.LABELS.items())
