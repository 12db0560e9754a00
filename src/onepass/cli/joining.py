"""Joining a member: an account of the gateway's own there, and a Cluster here.

The administrator's own credential is used here, on the way to the member, and goes nowhere else.

Both places are marked with the attempt as long as it is not done, so that whatever breaks off one leaves something that
the next one knows, takes away and makes again. Two attempts at once end with one that is done, or with none.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace

from onepass.api import meta
from onepass.api.meta import Object
from onepass.cli import accounttoken, claims, client, clusterviews, enrolment, foothold, memberclient
from onepass.cli.claims import Claim
from onepass.cli.failure import Failure, Refused, Unreachable
from onepass.cli.foothold import Foothold
from onepass.cli.memberclient import Member
from onepass.cli.memberconfig import Access

_PLACEHOLDER = "not-a-token-yet"  # of the dry run, before there is one
_TRIES = 10  # at a Cluster whose status the prober writes meanwhile


@dataclass(frozen=True, slots=True)
class Join:
    """One member to join; `seconds` is how long each token is to last."""

    gateway: client.Gateway
    member: Member
    access: Access
    wish: enrolment.Wish
    ground: Foothold
    claim: Claim
    seconds: int

    @property
    def path(self) -> str:
        return f"{client.CLUSTERS}/{client.segment(self.ground.cluster)}"

    def run(self, judge: Callable[[], Object | None] | None) -> Object:
        """Raises Failure, and leaves nothing behind in either place. `judge` waits for the gateway's word on it."""
        self._check()
        begun = [self.ground.home]
        try:
            self._clear()
            for path, obj in self.ground.objects(self.claim.marks):
                begun.append(f"{path}/{meta.name(obj)}")
                self._create(path, obj)
            token = accounttoken.issue(self.member, self.ground, self.seconds)
            enrolment.register(self.gateway, self._cluster(token, True))
            if judge:
                self._judged(judge)
            return self._finish()
        except BaseException as error:
            self._undo(begun, error)
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
        for path in reversed(self.ground.names()):
            found = self.member.get(path)
            if found is not None and not memberclient.going(found) and not self.claim.covers(found):
                raise self._held(found)
        elsewhere = [each for each in claims.spaces(self.member, self.claim) if each != self.ground.namespace]
        if elsewhere:
            raise Failure(
                f"an earlier attempt to join {self.ground.cluster} has left the namespace {elsewhere[0]} in the member",
                f"go on with it: --namespace {shlex.quote(elsewhere[0])}, or take it away: "
                f"onepass cluster leave {shlex.quote(self.ground.cluster)} --kubeconfig FILE "
                f"--namespace {shlex.quote(elsewhere[0])}",
            )
        if self._unfinished() is None:
            enrolment.register(self.gateway, self._cluster(_PLACEHOLDER, False), dry_run=True)

    def _cluster(self, token: str, renew: bool) -> Object:
        """The Cluster to register, by the account's own token."""
        access = replace(self.access, token=token, certificate=b"", private_key=b"")
        obj = enrolment.cluster(self.ground.cluster, access, self.wish)
        annotations: Object = {foothold.JOINED: self.ground.namespace, claims.ATTEMPT: self.claim.attempt}
        meta.section(obj, "metadata")["annotations"] = annotations
        clusterviews.credential(obj).update({"renew": True} if renew else {})
        return obj

    def _unfinished(self) -> Object | None:
        """The Cluster of an attempt that is not done, None when there is none. Raises Failure for one that is done."""
        found = enrolment.find(self.gateway, self.ground.cluster)
        if found is None:
            return None
        if claims.ATTEMPT not in meta.annotations(found):
            raise enrolment.registered_already(found)
        enrolment.same_place(found, self.member)
        return found

    def _clear(self) -> None:
        """Take away what an earlier attempt has left: none of it is built upon, since anybody could have made it.

        The namespace is claimed before the Cluster is looked at, and an attempt looks at its namespace before it calls
        its Cluster done: so of two at once one sees the other.
        """
        space = self.member.get(self.ground.home)
        if space is not None and not memberclient.going(space):
            self._mark(space)
        for left in reversed(range(_TRIES)):
            found = self._unfinished()
            if found is None:
                break
            try:
                self.gateway.delete(self.path, found)
                break
            except Refused as refused:
                if refused.code not in (404, 409) or not left:
                    raise
        for path in self.ground.names():
            self.member.take(path, self.claim.covers)
        if space is not None:
            self.member.gone(self.ground.home, meta.uid(space))

    def _mark(self, space: Object) -> None:
        if not self.claim.covers(space):
            raise self._held(space)
        version = meta.text(meta.section(space, "metadata"), "resourceVersion")
        change: Object = {"annotations": {**self.claim.marks}, "resourceVersion": version}
        try:
            self.member.merge(self.ground.home, {"metadata": change})
        except Refused as refused:
            if refused.code != 409:
                raise
            raise self._held(space) from refused

    def _create(self, path: str, obj: Object) -> None:
        for left in reversed(range(_TRIES)):
            try:
                self.member.create(path, obj)
                return
            except Refused as refused:
                if refused.code != 409:
                    raise
                itself = f"{path}/{meta.name(obj)}"
                found = self.member.get(itself)
                if not left or not self._outlived(found):
                    raise self._held(found or obj) from refused
                self.member.take(itself, self._outlived)

    def _outlived(self, found: Object | None) -> bool:
        """Whether it is from a namespace that an earlier attempt made, and lies in this one's, or did until now.

        Sandbox members let a namespace be made anew before what was in it is swept up.
        """
        if found and (not meta.namespace(found) or self.claim.made(found) or not self.claim.covers(found)):
            return False
        space = self.member.get(self.ground.home)
        return space is not None and self.claim.made(space)

    def _held(self, found: Object) -> Failure:
        what = f"{meta.text(found, 'kind')} {meta.name(found)}"
        if self.claim.covers(found):
            return Failure(f"another attempt to join {self.ground.cluster} is under way", "try again when it is done")
        name = self.claim.named(found)
        known = f"that was {name}" if name == self.ground.cluster else f"{name} is not to stay there"
        return Failure(
            f"the member has a {what} already, which {self.claim.holder(found)}",
            f"join in another namespace: --namespace NAME; or, if {known}, take it away first: "
            f"onepass cluster leave {shlex.quote(name)} --kubeconfig FILE",
        )

    def _judged(self, judge: Callable[[], Object | None]) -> None:
        found = judge()
        result = enrolment.Result(self.access.context, self.ground.cluster, "registered")
        result = enrolment.judged(result, found, "the token that it has just made for the gateway")
        if not result.good:
            raise Failure(
                f"you reach {self.access.server}, but the gateway does not: {result.why}",
                "mend that and join again, or join with --no-wait; nothing is left of this attempt",
            )

    def _finish(self) -> Object:
        """Call it done: the Cluster without its mark. Raises Failure when another attempt has taken over."""
        said = ""  # the uid of what was called done, when the answer was lost
        for left in reversed(range(_TRIES)):
            cluster, space = enrolment.find(self.gateway, self.ground.cluster), self.member.get(self.ground.home)
            if said and cluster is not None and meta.uid(cluster) == said and not self.claim.made(cluster):
                return cluster
            if cluster is None or space is None or not (self.claim.made(cluster) and self.claim.made(space)):
                raise Failure(f"another attempt to join {self.ground.cluster} took over", "let one of them be done")
            version = meta.text(meta.section(cluster, "metadata"), "resourceVersion")
            mark: Object = {"annotations": {claims.ATTEMPT: None}, "resourceVersion": version}
            try:
                return self.gateway.merge(self.path, {"metadata": mark})
            except Refused as refused:
                if refused.code not in (404, 409) or not left:
                    raise
            except Unreachable:
                if said:
                    raise
                said = meta.uid(cluster)
        raise AssertionError("the last try returns or raises")

    def _undo(self, begun: list[str], error: BaseException) -> None:
        """Take back, the newest first, what this attempt made. Raises Failure when something remains.

        What a Cluster that is done stands on is another attempt's.
        """
        left: list[str] = []
        try:
            found = enrolment.find(self.gateway, self.ground.cluster)
            marks = meta.annotations(found) if found else {}
            if marks.get(foothold.JOINED) == self.ground.namespace and claims.ATTEMPT not in marks:
                return
            if found is not None and self.claim.made(found):
                self.gateway.delete(self.path)
        except Failure as failed:
            left.append(f"the Cluster {self.ground.cluster}, if it is there ({failed.what})")
        away = False  # who does not answer once is not asked for each
        for path in dict.fromkeys(reversed(begun)):
            try:
                if not away:
                    self.member.take(path, self.claim.made)
                else:
                    left.append(path)
            except Failure as failed:
                away = isinstance(failed, Unreachable)
                left.append(f"{path} ({failed.what})")
        if left:
            told = error.what if isinstance(error, Failure) else _broken(error)
            raise Failure(
                f"{told}; and of this attempt may remain: {', '.join(left)}",
                "join again, which begins anew, or take it away later: "
                f"onepass cluster leave {shlex.quote(self.ground.cluster)} --kubeconfig FILE",
            ) from error


def _broken(error: BaseException) -> str:
    return "this was interrupted" if isinstance(error, KeyboardInterrupt) else "this failed in a way not foreseen"
